//! The limit of rows: the same in every form unless the command gives another.

use std::fmt;
use std::str::FromStr;

/// Rows of an answer when the command gives no limit.
const DEFAULT_ROWS: usize = 10_000;

/// The `--limit` of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Rows(usize),
    All,
}

impl Default for Limit {
    fn default() -> Self {
        Self::Rows(DEFAULT_ROWS)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        text.parse().map(Self::Rows).map_err(|_| "give a number of rows, or `all`".to_owned())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Limit {
    /// The limit of the request. It is always given: without one the server cuts a JSON document after a default of its
    /// own.
    pub(crate) fn to_request(self) -> usize {
        match self {
            Self::Rows(rows) => rows,
            Self::All => usize::MAX,
        }
    }

    /// What to do about an answer that was cut after so many rows.
    pub(crate) fn advice(self, rows: usize) -> &'static str {
        match self {
            Self::Rows(limit) if rows >= limit => "there are more rows: raise --limit, or give --limit all",
            // The server cuts documents that it holds in memory at `query.rows`; streamed forms have no such limit.
            _ => "there are more rows than the server puts into one table: take them with --format ndjson or csv",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_all() {
        assert_eq!(
            ["5", "0", "all", "ALL"].map(|text| text.parse()),
            [Ok(Limit::Rows(5)), Ok(Limit::Rows(0)), Ok(Limit::All), Ok(Limit::All)]
        );
        for text in ["", "-1", "many", "1e3", "99999999999999999999999"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        assert_eq!(Limit::default().to_string().parse(), Ok(Limit::default()));
    }

    #[test]
    fn advice_fits_whose_limit_it_was() {
        assert!(Limit::Rows(5).advice(5).contains("raise --limit"));
        assert!(Limit::Rows(2_000_000).advice(1_000_000).contains("--format ndjson"));
        assert!(Limit::All.advice(1_000_000).contains("--format ndjson"));
    }
}
