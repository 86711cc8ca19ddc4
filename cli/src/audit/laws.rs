//! The laws of exactly once, as a pure function over what the tables say.
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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use event_schema::loss::LossCounters;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use event_schema::stream::Stream;
use serde::Serialize;

use super::runs::{Range, Runs, Shape};

pub(crate) use late::{Late, late};

pub(crate) mod accounts;
mod late;
mod streams;
#[cfg(test)]
mod tests;

/// What all tables say.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) tables: Vec<TableFacts>,
    /// Rows of `bronze.messages` and `ops.dlq`.
    pub(crate) bronze: BTreeMap<TopicPartition, Runs>,
    pub(crate) dead_letters: BTreeMap<TopicPartition, Runs>,
    /// Rows of `ops.ledger`.
    pub(crate) ledger: Vec<LedgerRow>,
    /// Offsets at which the log holds no message, as `ops.ledger` has them.
    pub(crate) skipped: Vec<OffsetRange>,
    pub(crate) records: Vec<RecordFacts>,
    /// The `epoch_end` events of `silver.events`, by epoch and stream.
    pub(crate) ends: BTreeMap<Epoch, BTreeMap<Stream, EpochEnd>>,
    /// Events that agents made of themselves, by epoch: they went through no ring.
    pub(crate) own_events: BTreeMap<Epoch, i64>,
    /// Tables that do not hold yet what the ledger has for them.
    pub(crate) late: Vec<Late>,
    /// Events per node, minute and operation, in `silver.events` and in `gold.op_minute`, at the same messages.
    pub(crate) events: BTreeMap<OpMinute, u64>,
    pub(crate) aggregated: BTreeMap<OpMinute, u64>,
}

/// What events are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpMinute {
    pub(crate) node: String,
    /// Start of the minute, unix microseconds.
    pub(crate) minute_us: i64,
    pub(crate) source: i32,
    pub(crate) op: i32,
}

/// What a table's metadata says.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFacts {
    pub(crate) name: String,
    /// The offset properties.
    pub(crate) next: BTreeMap<TopicPartition, NextOffset>,
    /// The ranges of each snapshot that is still kept.
    pub(crate) commits: Vec<Vec<OffsetRange>>,
    /// What the log no longer held when it was to be read.
    pub(crate) explained: Vec<OffsetRange>,
    /// Older snapshots have expired: the first range need not begin at the log's beginning.
    pub(crate) is_cut: bool,
}

/// A row of `ops.ledger`.
#[derive(Debug, Clone)]
pub(crate) struct LedgerRow {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) is_dead_letter: bool,
    /// `None` for a dead letter.
    pub(crate) kind: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) stream: Stream,
    pub(crate) first_seq: i64,
    pub(crate) rows: i64,
    pub(crate) landed: i64,
    pub(crate) duplicates: i64,
    pub(crate) losses: LossCounters,
}

/// A run of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch {
    pub(crate) node: String,
    pub(crate) boot_id: String,
    pub(crate) epoch: i64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} boot {} epoch {}", self.node, self.boot_id, self.epoch)
    }
}

/// The probes' own counters when an agent ended, as the last event of a stream has them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EpochEnd {
    pub(crate) attempts: u64,
    pub(crate) ring_drop: u64,
    pub(crate) drained: u64,
}

/// What a table of records says.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordFacts {
    pub(crate) table: String,
    pub(crate) kind: String,
    /// Rows by log and offset of their message.
    pub(crate) rows: BTreeMap<TopicPartition, BTreeMap<i64, i64>>,
    /// Sequence numbers by node and boot.
    pub(crate) seqs: BTreeMap<(String, String), Runs>,
    /// Rows whose `event_id` is not made of their node, boot and sequence number.
    pub(crate) misnamed: Vec<String>,
}

/// Which law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Law {
    Commits,
    Messages,
    Rows,
    DeadLetters,
    Identity,
    Sequence,
    Ledger,
    Accounts,
    Aggregates,
}

impl Law {
    pub(crate) const ALL: [Self; 9] = [
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

    pub(crate) const fn statement(self) -> &'static str {
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
}

/// A law that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    pub(crate) table: String,
    /// `topic/partition`, or the node, boot and epoch.
    pub(crate) place: String,
    pub(crate) what: String,
}

/// Every law that does not hold.
pub(crate) fn check(facts: &Facts) -> Vec<Broken> {
    let mut broken = Vec::new();
    facts.tables.iter().for_each(|table| commits(table, &mut broken));
    messages(facts, &mut broken);
    rows(facts, &mut broken);
    dead_letters(facts, &mut broken);
    facts.records.iter().for_each(|records| identity(records, &mut broken));
    streams::sequence(facts, &mut broken);
    streams::ledger(facts, &mut broken);
    accounts::accounts(facts, &mut broken);
    aggregates(facts, &mut broken);
    facts.late.iter().for_each(|late| late::not_landed(late, &mut broken));
    broken
}

fn report(broken: &mut Vec<Broken>, law: Law, table: &str, place: impl fmt::Display, what: impl Into<String>) {
    broken.push(Broken { law, table: table.to_owned(), place: place.to_string(), what: what.into() });
}

/// `5-7, 9-10`, shortened: a broken table may have thousands.
fn list(ranges: &[Range]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = ranges.iter().take(SHOWN).map(|(start, end)| format!("{start}-{end}")).collect();
    let more = if ranges.len() > SHOWN { format!(" and {} more", ranges.len() - SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn commits(table: &TableFacts, broken: &mut Vec<Broken>) {
    let mut runs: BTreeMap<&TopicPartition, Runs> = table.next.keys().map(|at| (at, Runs::default())).collect();
    for range in table.commits.iter().flatten().chain(explained_commits(table)) {
        runs.entry(&range.at).or_default().add_range(range.start, range.end);
    }
    for (at, runs) in runs {
        let Shape { span, gaps, repeated } = runs.shape();
        let mut say = |what: String| report(broken, Law::Commits, &table.name, at, what);
        if !gaps.is_empty() {
            say(format!("offsets {} are in no commit", list(&gaps)));
        }
        if !repeated.is_empty() {
            say(format!("offsets {} were committed more than once", list(&repeated)));
        }
        let next = table.next.get(at).map_or(0, |next| next.0);
        let (start, end) = span.unwrap_or(if table.is_cut { (next, next) } else { (0, 0) });
        if end != next {
            say(format!("commits end at offset {end}, the offset property says {next}"));
        }
        if start > 0 && !table.is_cut {
            say(format!("offsets 0-{start} are in no commit"));
        }
    }
}

/// The explained gaps that belong to the commits still kept: those in front of them are as old as the expired ones.
fn explained_commits(table: &TableFacts) -> impl Iterator<Item = &OffsetRange> {
    let is_kept = |gap: &&OffsetRange| {
        let of_partition = table.commits.iter().flatten().filter(|range| range.at == gap.at);
        let first = of_partition.map(|range| range.start).min();
        !table.is_cut || first.is_some_and(|first| first <= gap.end)
    };
    table.explained.iter().filter(is_kept)
}

/// Which messages a table holds: those below its offsets, but for the gaps that were explained.
#[derive(Debug, Clone, Default)]
struct Held {
    next: BTreeMap<TopicPartition, NextOffset>,
    explained: Vec<OffsetRange>,
}

impl Held {
    fn of(facts: &Facts, table: &str) -> Self {
        let found = facts.tables.iter().find(|t| t.name == table);
        found.map(|t| Self { next: t.next.clone(), explained: t.explained.clone() }).unwrap_or_default()
    }

    fn holds(&self, row: &LedgerRow) -> bool {
        let is_in = |gap: &OffsetRange| gap.at == row.at && (gap.start..gap.end).contains(&row.offset);
        self.next.get(&row.at).is_some_and(|next| row.offset < next.0) && !self.explained.iter().any(is_in)
    }
}

fn messages(facts: &Facts, broken: &mut Vec<Broken>) {
    let mut ledger: BTreeMap<TopicPartition, Runs> = BTreeMap::new();
    for row in &facts.ledger {
        ledger.entry(row.at.clone()).or_default().add(row.offset);
    }
    for (table, held) in [("bronze.messages", &facts.bronze), ("ops.ledger", &ledger)] {
        let Held { next, explained } = Held::of(facts, table);
        for at in next.keys().chain(held.keys()).collect::<BTreeSet<_>>() {
            let mut runs = held.get(at).cloned().unwrap_or_default();
            let explained = explained.iter().filter(|range| range.at == *at);
            explained.for_each(|range| runs.add_range(range.start, range.end));
            // A table behind the ledger has not come to all of them.
            let next_of_table = next.get(at).map_or(0, |next| next.0);
            let skipped = facts.skipped.iter().filter(|range| range.at == *at);
            skipped.for_each(|range| runs.add_range(range.start, range.end.min(next_of_table)));
            let Shape { span, mut gaps, repeated } = runs.shape();
            let end = next.get(at).map_or(0, |next| next.0);
            let (first, last) = span.unwrap_or((end, end));
            gaps.extend([(0, first), (last, end)].into_iter().filter(|(start, end)| start < end));
            if !gaps.is_empty() {
                report(broken, Law::Messages, table, at, format!("offsets {} are missing", list(&gaps)));
            }
            if !repeated.is_empty() {
                report(broken, Law::Messages, table, at, format!("offsets {} occur more than once", list(&repeated)));
            }
            if last > end {
                report(
                    broken,
                    Law::Messages,
                    table,
                    at,
                    format!("offsets {end}-{last} are beyond the offset property"),
                );
            }
        }
    }
}

fn rows(facts: &Facts, broken: &mut Vec<Broken>) {
    for row in facts.ledger.iter().filter(|row| row.rows != row.landed + row.duplicates) {
        let what = format!(
            "offset {}: {} rows announced, but {} landed and {} were seen before",
            row.offset, row.rows, row.landed, row.duplicates
        );
        report(broken, Law::Rows, "ops.ledger", &row.at, what);
    }
    for records in &facts.records {
        let held = Held::of(facts, &records.table);
        // By message: rows that the ledger has, and rows that the table has.
        let mut messages: BTreeMap<(&TopicPartition, i64), [i64; 2]> = BTreeMap::new();
        for row in facts.ledger.iter().filter(|row| row.kind.as_ref() == Some(&records.kind)) {
            if held.holds(row) {
                messages.entry((&row.at, row.offset)).or_default()[0] += row.landed;
            }
        }
        for (at, offsets) in &records.rows {
            for (offset, found) in offsets {
                messages.entry((at, *offset)).or_default()[1] = *found;
            }
        }
        for ((at, offset), [wanted, found]) in messages {
            if wanted != found {
                let what = format!("offset {offset}: {found} rows, the ledger says {wanted}");
                report(broken, Law::Rows, &records.table, at, what);
            }
        }
    }
}

fn dead_letters(facts: &Facts, broken: &mut Vec<Broken>) {
    let held = Held::of(facts, "ops.dlq");
    let mut expected: BTreeMap<&TopicPartition, BTreeSet<i64>> = BTreeMap::new();
    for row in facts.ledger.iter().filter(|row| row.is_dead_letter) {
        if held.holds(row) {
            expected.entry(&row.at).or_default().insert(row.offset);
        }
    }
    for at in expected.keys().copied().chain(facts.dead_letters.keys()).collect::<BTreeSet<_>>() {
        let wanted: Runs = expected.get(at).into_iter().flatten().map(|offset| (*offset, offset + 1)).collect();
        let found = facts.dead_letters.get(at).map(Runs::shape).unwrap_or_default();
        if !found.repeated.is_empty() {
            let what = format!("offsets {} occur more than once", list(&found.repeated));
            report(broken, Law::DeadLetters, "ops.dlq", at, what);
        }
        let wanted = wanted.shape();
        if (wanted.span, &wanted.gaps) != (found.span, &found.gaps) {
            let what = format!("holds {}, the ledger says {}", spans(&found), spans(&wanted));
            report(broken, Law::DeadLetters, "ops.dlq", at, what);
        }
    }
}

/// The offsets of a shape, for people.
fn spans(shape: &Shape) -> String {
    let Some((first, end)) = shape.span else { return "nothing".to_owned() };
    match shape.gaps.as_slice() {
        [] => format!("offsets {first}-{end}"),
        gaps => format!("offsets {first}-{end} without {}", list(gaps)),
    }
}

fn identity(records: &RecordFacts, broken: &mut Vec<Broken>) {
    for ((node, boot_id), seqs) in &records.seqs {
        let repeated = seqs.shape().repeated;
        if !repeated.is_empty() {
            let what = format!("sequence numbers {} occur more than once", list(&repeated));
            report(broken, Law::Identity, &records.table, format!("{node} boot {boot_id}"), what);
        }
    }
    for id in &records.misnamed {
        let what = format!("event_id `{id}` is not made of the row's node, boot and sequence number");
        report(broken, Law::Identity, &records.table, id, what);
    }
}

fn aggregates(facts: &Facts, broken: &mut Vec<Broken>) {
    for key in facts.events.keys().chain(facts.aggregated.keys()).collect::<BTreeSet<_>>() {
        let count = |of: &BTreeMap<OpMinute, u64>| of.get(key).copied().unwrap_or(0);
        let (held, counted) = (count(&facts.events), count(&facts.aggregated));
        if held != counted {
            let OpMinute { node, minute_us, source, op } = key;
            let place = format!("{node} minute {} source {source} op {op}", minute_us / 60_000_000);
            let what = format!("counts {counted} events, silver.events holds {held}");
            report(broken, Law::Aggregates, "gold.op_minute", place, what);
        }
    }
}
