//! `--nodes` and `--since`: a statement narrowed to some nodes and a stretch of time. Every view the statement names is
//! shadowed by a common table expression of the same name that holds only the rows wanted, so that whatever the statement
//! counts, joins or sorts, it does so over those rows only.

use std::collections::BTreeSet;

use chrono::DateTime;
use service_kit::config::HumanDuration;

use super::talk::node_name;
use crate::client::Completeness;

#[cfg(test)]
mod tests;

/// The views that have a node, and their time in unix nanoseconds.
const VIEWS: [(&str, &str); 6] = [
    ("events", "timestamp"),
    ("event_aggregates", "bucket"),
    ("causal_chains", "detected_at"),
    ("system_snapshots", "timestamp"),
    ("sessions", "started_at"),
    ("process_names", "seen_at"),
];

/// Why a statement cannot be narrowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScopeError {
    #[error("`{text}` is neither a time (2026-03-01T12:00:00Z) nor a duration back from now (5m)")]
    Since { text: String },
    #[error("--nodes and --since narrow the views {}; the statement reads none of them: write a WHERE", names())]
    NoView,
    #[error("--nodes and --since do not reach into `{table}`: read the view instead, or write a WHERE")]
    Qualified { table: String },
}

fn names() -> String {
    VIEWS.map(|(name, _)| name).join(", ")
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    nodes: BTreeSet<String>,
    since_ns: Option<i64>,
}

/// A statement as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scoped {
    pub(crate) sql: String,
    /// Lines put before the user's own: positions in errors count from there.
    pub(crate) lines_before: u64,
}

impl Scope {
    pub(crate) fn new(nodes: &[String], since: Option<&str>, now_ns: i64) -> Result<Self, ScopeError> {
        let nodes = nodes.iter().map(|node| node_name(node).to_owned()).filter(|node| !node.is_empty()).collect();
        let since_ns = since.map(|text| parse_since(text, now_ns)).transpose()?;
        Ok(Self { nodes, since_ns })
    }

    /// When the rows wanted begin, RFC 3339.
    pub(crate) fn since(&self) -> Option<String> {
        let nanos = chrono::SecondsFormat::Nanos;
        self.since_ns.map(|ns| DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(nanos, true))
    }

    /// The part of what the server says that concerns the nodes wanted.
    pub(crate) fn narrowed(&self, completeness: &Completeness) -> Completeness {
        if self.nodes.is_empty() {
            return completeness.clone();
        }
        let missing: Vec<String> = completeness.missing.iter().filter(|n| self.nodes.contains(*n)).cloned().collect();
        let expected = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX);
        let silent = u64::try_from(missing.len()).unwrap_or(u64::MAX);
        Completeness {
            nodes_expected: expected,
            nodes_reporting: expected.saturating_sub(silent),
            missing,
            ..completeness.clone()
        }
    }

    /// Narrows a statement.
    pub(crate) fn apply(&self, sql: &str) -> Result<Scoped, ScopeError> {
        if self.nodes.is_empty() && self.since_ns.is_none() {
            return Ok(Scoped { sql: sql.to_owned(), lines_before: 0 });
        }
        let words = words(sql);
        let begins_with = |names: &[&str]| words.first().is_some_and(|w| is_one_of(w, names));
        if begins_with(&["DESCRIBE", "DESC"]) {
            // It has columns and no rows.
            return Ok(Scoped { sql: sql.to_owned(), lines_before: 0 });
        }
        if let Some(table) = words.iter().find(|w| is_qualified_table(w)) {
            return Err(ScopeError::Qualified { table: (*table).to_owned() });
        }
        let used = VIEWS.iter().filter(|(view, _)| words.iter().any(|w| w.eq_ignore_ascii_case(view)));
        let shadows: Vec<String> = used.map(|(view, time)| self.shadow(view, time)).collect();
        if shadows.is_empty() {
            return Err(ScopeError::NoView);
        }
        // In parentheses the statement keeps what it begins with, be it `WITH RECURSIVE` or a comment; on lines of its own it keeps
        // its columns, so that positions in errors are right. What must stay in front of `WITH` leaves blanks behind.
        let (head, rest) = sql.split_at(if begins_with(&["EXPLAIN"]) { head_of_explain(sql, &words) } else { 0 });
        let blanks: String = head.chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        let sql = format!("{head} WITH {} (\n{blanks}{rest}\n)", shadows.join(", "));
        let lines_before = 1 + u64::try_from(head.matches('\n').count()).unwrap_or(0);
        Ok(Scoped { sql: sql.trim_start_matches(' ').to_owned(), lines_before })
    }

    fn shadow(&self, view: &str, time: &str) -> String {
        let mut conditions = Vec::new();
        if !self.nodes.is_empty() {
            let list: Vec<String> = self.nodes.iter().map(|node| format!("'{}'", node.replace('\'', "''"))).collect();
            conditions.push(format!("node IN ({})", list.join(", ")));
        }
        if let Some(since_ns) = self.since_ns {
            conditions.push(format!("{time} >= {since_ns}"));
        }
        format!("{view} AS (SELECT * FROM {view} WHERE {})", conditions.join(" AND "))
    }
}

fn is_one_of(word: &str, names: &[&str]) -> bool {
    names.iter().any(|name| word.eq_ignore_ascii_case(name))
}

/// Bytes up to the statement that is explained: `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT …]`.
fn head_of_explain(sql: &str, words: &[&str]) -> usize {
    let mut last = words.first().copied().unwrap_or_default();
    let mut names_format = false;
    for word in words.iter().skip(1) {
        if !names_format && !is_one_of(word, &["ANALYZE", "VERBOSE", "FORMAT"]) {
            break;
        }
        names_format = is_one_of(word, &["FORMAT"]);
        last = word;
    }
    // A word is a part of the statement.
    (last.as_ptr() as usize - sql.as_ptr() as usize) + last.len()
}

/// A table of the lake itself, behind the views.
fn is_qualified_table(word: &str) -> bool {
    let schema = word.split_once('.').map(|(schema, _)| schema.to_ascii_lowercase());
    schema.is_some_and(|schema| ["bronze", "silver", "gold", "ops"].contains(&schema.as_str()))
}

/// Unix nanoseconds of a time or of a duration back from now.
fn parse_since(text: &str, now_ns: i64) -> Result<i64, ScopeError> {
    let wrong = || ScopeError::Since { text: text.to_owned() };
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt().ok_or_else(wrong);
    }
    let back: HumanDuration = text.parse().map_err(|_| wrong())?;
    Ok(now_ns.saturating_sub(i64::try_from(back.0.as_nanos()).unwrap_or(i64::MAX)))
}

/// The names of a statement, with the points between them; not what is in quotes or comments.
fn words(sql: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let skip = match c {
            '\'' => quoted(rest, '\''),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
                words.push(&rest[..end]);
                end
            }
            c if c.is_ascii_digit() => rest.find(|c: char| !(c.is_alphanumeric() || c == '.')).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        rest = &rest[skip..];
    }
    words
}

/// Bytes of the quoted text at the beginning, a doubled quote being part of it.
fn quoted(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(end) = text[at..].find(quote) {
        at += end + 1;
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += 1;
    }
    text.len()
}
