//! The laws of exactly once. [`crate::proof`] holds what is read of the tables against them.
//!
//! 1. *Commits*: the ranges of a table's snapshots follow one another without gap or overlap, up to its offset property.
//! 2. *Messages*: `bronze.messages` and `ops.ledger` hold every offset below theirs once.
//! 3. *Rows*: every silver table holds, for each message, the rows its header announced less those seen before.
//! 4. *Dead letters*: `ops.dlq` holds each message that could not be decoded, once.
//! 5. *Identity*: no record occurs twice.
//! 6. *Sequence*: within a stream no record is missing that no loss accounts for, unless it may lie in a recorded gap.
//! 7. *Ledger*: per node, boot and epoch, emitted = landed + each counted loss.
//! 8. *Accounts*: what the probes had counted when their agent ended is what the ledger counts of its epoch.
//! 9. *Aggregates*: `gold.op_minute` counts, per node, minute and operation, what `silver.events` holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::runs::Range;

/// Which law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// The snapshots of a table.
    Commits,
    /// `bronze.messages` and `ops.ledger`.
    Messages,
    /// The tables of records.
    Rows,
    /// `ops.dlq`.
    DeadLetters,
    /// Sequence numbers and event ids.
    Identity,
    /// The sequence numbers of a stream.
    Sequence,
    /// The sums of an epoch.
    Ledger,
    /// The probes' own counters.
    Accounts,
    /// `gold.op_minute`.
    Aggregates,
}

impl Law {
    /// Every law, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::Commits,
        Self::Messages,
        Self::Rows,
        Self::DeadLetters,
        Self::Identity,
        Self::Sequence,
        Self::Ledger,
        Self::Accounts,
        Self::Aggregates,
    ];

    /// The law, in a sentence.
    pub const fn statement(self) -> &'static str {
        match self {
            Self::Commits => "commits follow one another without gap or overlap, up to the offset property",
            Self::Messages => "every offset is in bronze.messages and ops.ledger once",
            Self::Rows => "every message has the rows its header announced, less those seen before",
            Self::DeadLetters => "every message that could not be decoded is in ops.dlq once",
            Self::Identity => "no record occurs twice",
            Self::Sequence => "no record of a stream is missing that no loss accounts for",
            Self::Ledger => "emitted = landed + counted losses, per node, boot and epoch",
            Self::Accounts => {
                "what the probes had counted when their agent ended is what the ledger counts of its epoch"
            }
            Self::Aggregates => "gold.op_minute counts what silver.events holds, per node, minute and operation",
        }
    }

    /// The tables without which the law cannot be proved. Any other table that is absent breaks the law instead, where
    /// the ledger has messages for it.
    const fn needs(self) -> &'static [&'static str] {
        match self {
            // Each table is judged by itself.
            Self::Commits | Self::Identity => &[],
            Self::Messages | Self::Rows | Self::DeadLetters | Self::Sequence | Self::Ledger => &["ops.ledger"],
            // The accounts of agents are events. Which messages the two tables of events have both come to is known
            // from the ledger.
            Self::Accounts | Self::Aggregates => &["ops.ledger", "silver.events"],
        }
    }
}

/// A law that cannot be proved, because a table is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unproved {
    /// The law.
    pub law: Law,
    /// The table that is absent, as `namespace.name`.
    pub table: &'static str,
}

impl Unproved {
    /// The laws that cannot be proved of a lake, in the order of [`Law::ALL`]. `has` says whether it has a table.
    pub(crate) fn without(has: impl Fn(&str) -> bool) -> Vec<Self> {
        let mut unproved = Vec::new();
        for law in Law::ALL {
            let absent = law.needs().iter().filter(|table| !has(table));
            unproved.extend(absent.map(|table| Self { law, table }));
        }
        unproved
    }
}

/// Why, and what to do.
impl fmt::Display for Unproved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not in this lake: ingest has not made it yet, or another program dropped it; start ingest, which fills \
             it from the log, and audit again",
            self.table
        )
    }
}

/// A law that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// The table, as `namespace.name`.
    pub table: String,
    /// `topic/partition`, or the node, boot and epoch; `elsewhere` in the entry that counts those left out.
    pub place: String,
    /// What the table holds, and what it should hold.
    pub what: String,
}

/// Places that are listed for a law and a table. A table that lost its files breaks a law once for each message.
const PLACES: usize = 1_000;

/// The places where laws do not hold, as far as they are listed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    broken: Vec<Broken>,
    counts: BTreeMap<(Law, String), usize>,
}

impl Report {
    pub(crate) fn add(&mut self, law: Law, table: &str, place: impl fmt::Display, what: impl Into<String>) {
        let count = self.counts.entry((law, table.to_owned())).or_default();
        *count += 1;
        if *count <= PLACES {
            self.broken.push(Broken { law, table: table.to_owned(), place: place.to_string(), what: what.into() });
        }
    }

    /// All that were listed, by law; where some were left out, their number is the last entry of the law and table.
    pub(crate) fn into_broken(mut self) -> Vec<Broken> {
        for ((law, table), count) in self.counts {
            if let Some(left_out) = count.checked_sub(PLACES).filter(|left_out| *left_out > 0) {
                let what = format!("{left_out} more places, which are not listed");
                self.broken.push(Broken { law, table, place: "elsewhere".to_owned(), what });
            }
        }
        // Stable: the places of a law stay in the order in which they were found.
        self.broken.sort_by_key(|broken| broken.law);
        self.broken
    }
}

/// `5-7, 9-10`, shortened: a broken table may have thousands.
pub(crate) fn list(ranges: &[Range]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = ranges.iter().take(SHOWN).map(|(start, end)| format!("{start}-{end}")).collect();
    let more = if ranges.len() > SHOWN { format!(" and {} more", ranges.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_counted() {
        let mut report = Report::default();
        for offset in 0..PLACES + 7 {
            report.add(Law::Rows, "silver.events", offset, "0 rows");
        }
        report.add(Law::Messages, "ops.ledger", "t/0", "offsets 1-2 are missing");
        let broken = report.into_broken();
        assert_eq!(broken.len(), PLACES + 2);
        assert_eq!(broken.first().map(|broken| broken.law), Some(Law::Messages));
        assert_eq!(broken.last().map(|broken| &*broken.what), Some("7 more places, which are not listed"));
    }
}
