//! The laws of messages and rows: commits, messages, rows, dead letters, identity.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::{OffsetRange, TopicPartition};

use crate::facts::{Boot, LedgerRow, TableFacts};
use crate::laws::{Law, Report, list};
use crate::runs::{Range, Runs, Shape};

pub(super) fn commits(table: &TableFacts, report: &mut Report) {
    let mut runs: BTreeMap<&TopicPartition, Runs> = table.next.keys().map(|at| (at, Runs::default())).collect();
    for range in table.commits.iter().flatten().chain(&table.explained).chain(&table.gone) {
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
        let (start, end) = span.unwrap_or((0, 0));
        if end != next {
            wrong.push(format!("commits end at offset {end}, the offset property says {next}"));
        }
        if start > 0 {
            wrong.push(format!("offsets 0-{start} are in no commit"));
        }
        for what in wrong {
            report.add(Law::Commits, &table.name, at, what);
        }
    }
}

/// A message has the rows that its header announced.
pub(super) fn announced(row: &LedgerRow, report: &mut Report) {
    if row.rows != row.landed + row.duplicates {
        let what = format!(
            "offset {}: {} rows announced, but {} landed and {} were seen before",
            row.offset, row.rows, row.landed, row.duplicates
        );
        report.add(Law::Rows, "ops.ledger", &row.at, what);
    }
}

type OffsetsByLog = BTreeMap<TopicPartition, Runs>;

/// The offsets of messages in the three tables that hold messages.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    ledger: OffsetsByLog,
    bronze: OffsetsByLog,
    dead_letters: OffsetsByLog,
    /// Dead letters of the ledger that `ops.dlq` should hold.
    expected_dead_letters: OffsetsByLog,
}

impl Offsets {
    pub(super) fn add_ledger(&mut self, row: &LedgerRow, dlq: Option<&TableFacts>) {
        add(&mut self.ledger, &row.at, (row.offset, row.offset.saturating_add(1)));
        if row.is_dead_letter && dlq.is_some_and(|dlq| dlq.holds(row)) {
            add(&mut self.expected_dead_letters, &row.at, (row.offset, row.offset.saturating_add(1)));
        }
    }

    /// Adds offsets that hold no message, to both tables as far as they have come.
    pub(super) fn add_skipped(&mut self, range: &OffsetRange, tables: &BTreeMap<String, TableFacts>) {
        for (name, held) in [("ops.ledger", &mut self.ledger), ("bronze.messages", &mut self.bronze)] {
            // A table behind the ledger has not come to all of them.
            let next = tables.get(name).and_then(|table| table.next.get(&range.at)).map_or(0, |next| next.0);
            add(held, &range.at, (range.start, range.end.min(next)));
        }
    }

    pub(super) fn add_bronze(&mut self, at: &TopicPartition, offset: i64) {
        add(&mut self.bronze, at, (offset, offset.saturating_add(1)));
    }

    pub(super) fn add_dead_letter(&mut self, at: &TopicPartition, offset: i64) {
        add(&mut self.dead_letters, at, (offset, offset.saturating_add(1)));
    }

    pub(super) fn check(mut self, tables: &BTreeMap<String, TableFacts>, report: &mut Report) {
        for (name, mut held) in [("bronze.messages", self.bronze), ("ops.ledger", self.ledger)] {
            let none = TableFacts { name: name.to_owned(), ..TableFacts::default() };
            let table = tables.get(name).unwrap_or(&none);
            let logs: BTreeSet<TopicPartition> = table.next.keys().chain(held.keys()).cloned().collect();
            for at in logs {
                let runs = held.remove(&at).unwrap_or_default();
                whole(table, &at, runs, report);
            }
        }
        let logs: BTreeSet<TopicPartition> =
            self.expected_dead_letters.keys().chain(self.dead_letters.keys()).cloned().collect();
        for at in logs {
            let wanted = self.expected_dead_letters.remove(&at).unwrap_or_default().shape();
            let found = self.dead_letters.remove(&at).unwrap_or_default().shape();
            dead_letters(&at, &wanted, &found, report);
        }
    }
}

fn add(to: &mut OffsetsByLog, at: &TopicPartition, (start, end): Range) {
    // Looked up before it is cloned: nearly always the partition is there.
    if let Some(runs) = to.get_mut(at) {
        return runs.add_range(start, end);
    }
    let mut runs = Runs::default();
    runs.add_range(start, end);
    to.insert(at.clone(), runs);
}

/// Every offset of a partition below the table's is there once: as a message, in an explained gap, or as one that holds no message.
fn whole(table: &TableFacts, at: &TopicPartition, mut runs: Runs, report: &mut Report) {
    let name = &table.name;
    for range in table.explained.iter().filter(|range| range.at == *at) {
        runs.add_range(range.start, range.end);
    }
    let end = table.next.get(at).map_or(0, |next| next.0);
    let Shape { span, mut gaps, repeated } = runs.shape();
    let (first, last) = span.unwrap_or((end, end));
    gaps.extend([(0, first), (last, end)].into_iter().filter(|(start, end)| start < end));
    if !gaps.is_empty() {
        report.add(Law::Messages, name, at, format!("offsets {} are missing", list(&gaps)));
    }
    if !repeated.is_empty() {
        report.add(Law::Messages, name, at, format!("offsets {} occur more than once", list(&repeated)));
    }
    if last > end {
        report.add(Law::Messages, name, at, format!("offsets {end}-{last} are beyond the offset property"));
    }
}

fn dead_letters(at: &TopicPartition, wanted: &Shape, found: &Shape, report: &mut Report) {
    if !found.repeated.is_empty() {
        let what = format!("offsets {} occur more than once", list(&found.repeated));
        report.add(Law::DeadLetters, "ops.dlq", at, what);
    }
    if (wanted.span, &wanted.gaps) != (found.span, &found.gaps) {
        let what = format!("holds {}, the ledger says {}", spans(found), spans(wanted));
        report.add(Law::DeadLetters, "ops.dlq", at, what);
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

/// The sequence numbers of each table of records, by node and boot.
#[derive(Debug, Default)]
pub(super) struct Identity(BTreeMap<String, BTreeMap<(String, String), Runs>>);

impl Identity {
    /// Adds sequence numbers of rows.
    pub(super) fn add(&mut self, table: &str, boot: Boot<'_>, numbers: &Runs) {
        let seqs = self.0.entry(table.to_owned()).or_default();
        seqs.entry((boot.node.to_owned(), boot.boot_id.to_owned())).or_default().add_all(numbers);
    }

    /// Reports an id that is not made of its row.
    pub(super) fn misnamed(table: &str, id: &str, report: &mut Report) {
        let what = format!("event_id `{id}` is not made of the row's node, boot and sequence number");
        report.add(Law::Identity, table, id, what);
    }

    pub(super) fn check(self, report: &mut Report) {
        for (table, seqs) in self.0 {
            let repeated = seqs.into_iter().map(|(boot, runs)| (boot, runs.shape().repeated));
            for ((node, boot_id), repeated) in repeated.filter(|(_, repeated)| !repeated.is_empty()) {
                let what = format!("sequence numbers {} occur more than once", list(&repeated));
                report.add(Law::Identity, &table, format!("{node} boot {boot_id}"), what);
            }
        }
    }
}
