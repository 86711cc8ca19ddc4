//! The laws of exactly once, as a pure function over what the tables hold.
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

use event_schema::identity::is_recording;
use event_schema::loss::LossCounters;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use event_schema::stream::Stream;
use serde::Serialize;

use crate::runs::{Range, Runs, Shape};

pub(crate) use late::{Late, late};

mod accounts;
mod late;
mod streams;
#[cfg(test)]
mod tests;

/// What the audit reads of all tables.
#[derive(Debug, Default)]
pub struct Facts {
    /// The metadata of each table.
    pub(crate) tables: Vec<TableFacts>,
    /// Offsets of the rows of `bronze.messages`.
    pub(crate) bronze: BTreeMap<TopicPartition, Runs>,
    /// Offsets of the rows of `ops.dlq`.
    pub(crate) dead_letters: BTreeMap<TopicPartition, Runs>,
    /// Rows of `ops.ledger`.
    pub(crate) ledger: Vec<LedgerRow>,
    /// Offsets at which the log holds no message, as `ops.ledger` has them.
    pub(crate) skipped: Vec<OffsetRange>,
    /// The rows of each table of records.
    pub(crate) records: Vec<RecordFacts>,
    /// The `epoch_end` events of `silver.events`, by epoch and stream.
    pub(crate) ends: BTreeMap<Epoch, BTreeMap<Stream, EpochEnd>>,
    /// Events that agents made of themselves, by epoch: they went through no ring.
    pub(crate) own_events: BTreeMap<Epoch, i64>,
    /// Tables that do not hold yet what the ledger has for them.
    pub(crate) late: Vec<Late>,
    /// Events per node, minute and operation in `silver.events`.
    pub(crate) events: BTreeMap<OpMinute, u64>,
    /// Events per node, minute and operation in `gold.op_minute`, of the same messages.
    pub(crate) aggregated: BTreeMap<OpMinute, u64>,
}

impl Facts {
    /// Messages in the ledger.
    pub fn messages(&self) -> usize {
        self.ledger.len()
    }

    /// Rows in the tables of records.
    pub fn rows(&self) -> i64 {
        self.records.iter().flat_map(|records| records.rows.values().flat_map(BTreeMap::values)).sum()
    }

    /// Tables that exist.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Epochs that no account closes: their agent runs, has not shipped everything, or was killed. What the rings and open batches
    /// of one that was killed held is in no count.
    pub fn open_epochs(&self) -> Vec<&Epoch> {
        accounts::open_epochs(self)
    }
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

/// What is read of a table's metadata.
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

impl LedgerRow {
    /// Whether the message holds records of a kind.
    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether the message was decoded, and an agent sent it. A recording has the numbers of the tracer that made it, which leave out
    /// what it did not keep.
    fn is_of_agent(&self) -> bool {
        !self.is_dead_letter && !is_recording(&self.epoch.boot_id)
    }

    /// Whether the message lies before these offsets.
    pub(crate) fn is_below(&self, offsets: &BTreeMap<TopicPartition, NextOffset>) -> bool {
        offsets.get(&self.at).is_some_and(|next| self.offset < next.0)
    }
}

/// A run of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id, a UUID in text form.
    pub boot_id: String,
    /// From 0; later runs in a boot have greater numbers.
    pub epoch: i64,
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

/// What is read of the rows of a table of records.
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
    /// Every law, in the order in which they are checked.
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
}

/// A law that does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// The table, as `namespace.name`.
    pub table: String,
    /// `topic/partition`, or the node, boot and epoch.
    pub place: String,
    /// What the table holds, and what it should hold.
    pub what: String,
}

/// Finds every place where a law does not hold.
pub fn check(facts: &Facts) -> Vec<Broken> {
    let mut broken = Vec::new();
    for table in &facts.tables {
        commits(table, &mut broken);
    }
    messages(facts, &mut broken);
    rows(facts, &mut broken);
    dead_letters(facts, &mut broken);
    for records in &facts.records {
        identity(records, &mut broken);
    }
    streams::sequence(facts, &mut broken);
    streams::ledger(facts, &mut broken);
    accounts::accounts(facts, &mut broken);
    aggregates(facts, &mut broken);
    for late in &facts.late {
        late::not_landed(late, &mut broken);
    }
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
        let mut wrong = Vec::new();
        if !gaps.is_empty() {
            wrong.push(format!("offsets {} are in no commit", list(&gaps)));
        }
        if !repeated.is_empty() {
            wrong.push(format!("offsets {} were committed more than once", list(&repeated)));
        }
        let next = table.next.get(at).map_or(0, |next| next.0);
        let (start, end) = span.unwrap_or(if table.is_cut { (next, next) } else { (0, 0) });
        if end != next {
            wrong.push(format!("commits end at offset {end}, the offset property says {next}"));
        }
        if start > 0 && !table.is_cut {
            wrong.push(format!("offsets 0-{start} are in no commit"));
        }
        for what in wrong {
            report(broken, Law::Commits, &table.name, at, what);
        }
    }
}

/// The explained gaps that belong to the commits still kept: those in front of them are as old as the expired ones.
fn explained_commits(table: &TableFacts) -> impl Iterator<Item = &OffsetRange> {
    table.explained.iter().filter(|gap| {
        let of_partition = table.commits.iter().flatten().filter(|range| range.at == gap.at);
        let first = of_partition.map(|range| range.start).min();
        !table.is_cut || first.is_some_and(|first| first <= gap.end)
    })
}

/// Whether an offset of a log lies in one of these ranges.
pub(crate) fn is_in_any(ranges: &[OffsetRange], topic: &str, partition: i32, offset: i64) -> bool {
    ranges.iter().any(|range| {
        range.at.partition == partition && (range.start..range.end).contains(&offset) && *range.at.topic == *topic
    })
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
        row.is_below(&self.next) && !is_in_any(&self.explained, &row.at.topic, row.at.partition, row.offset)
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
            for range in explained.iter().filter(|range| range.at == *at) {
                runs.add_range(range.start, range.end);
            }
            // A table behind the ledger has not come to all of them.
            let next_of_table = next.get(at).map_or(0, |next| next.0);
            for range in facts.skipped.iter().filter(|range| range.at == *at) {
                runs.add_range(range.start, range.end.min(next_of_table));
            }
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
        for row in facts.ledger.iter().filter(|row| row.has_kind(&records.kind)) {
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

/// The offsets of a shape as text.
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
        let held = facts.events.get(key).copied().unwrap_or(0);
        let counted = facts.aggregated.get(key).copied().unwrap_or(0);
        if held != counted {
            let OpMinute { node, minute_us, source, op } = key;
            let place = format!("{node} minute {} source {source} op {op}", minute_us / 60_000_000);
            let what = format!("counts {counted} events, silver.events holds {held}");
            report(broken, Law::Aggregates, "gold.op_minute", place, what);
        }
    }
}
