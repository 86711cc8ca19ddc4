//! The proof of the [laws](crate::laws): pure, and a fold over rows in any order. It keeps runs of numbers and sums, so that its
//! memory follows the partitions, streams, epochs, gaps, dead letters, messages that a table is behind with, and thousands of messages
//! (`rows`), and not the messages.

use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

use crate::facts::{Boot, Counts, Epoch, LedgerRow, OpMinute, OwnEvents, TableFacts};
use crate::laws::{Broken, Law, Report, Unproved};
use crate::runs::Runs;
use accounts::Accounts;
use late::Late;
use messages::{Identity, Offsets};
use rows::Rows;
pub(crate) use rows::Suspects;
use streams::Streams;

mod accounts;
mod late;
mod messages;
mod rows;
mod streams;
#[cfg(test)]
mod tests;

/// What was found when everything was read.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The places where a law does not hold; of many in one table a thousand, and the number of the others.
    pub broken: Vec<Broken>,
    /// The laws that could not be proved, of which nothing is in `broken`.
    pub unproved: Vec<Unproved>,
    /// Messages in the ledger.
    pub messages: u64,
    /// Rows in the tables of records.
    pub rows: u64,
    /// Tables that exist.
    pub tables: usize,
    /// Epochs that no account closes: their agent runs, has not shipped everything, or was killed. What the rings and open batches
    /// of one that was killed held is in no count.
    pub open_epochs: Vec<Epoch>,
}

impl Verdict {
    /// Whether every law was proved.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.unproved.is_empty()
    }
}

/// What is known so far of the messages that were read.
#[derive(Debug)]
pub(crate) struct Proof {
    tables: BTreeMap<String, TableFacts>,
    offsets: Offsets,
    identity: Identity,
    by_message: Rows,
    streams: Streams,
    accounts: Accounts,
    late: Late,
    /// Messages with events were met that one of the two tables of events holds, and the other does not hold yet.
    are_events_apart: bool,
    messages: u64,
    rows: u64,
    report: Report,
}

impl Proof {
    /// Begins with the metadata of the tables. `registered` are the tables that messages have rows for, whether they exist or not;
    /// `records` those of records with their kinds.
    pub(crate) fn begin(
        tables: Vec<TableFacts>,
        registered: impl IntoIterator<Item = String>,
        records: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut report = Report::default();
        for table in &tables {
            messages::commits(table, &mut report);
        }
        let late = Late::begin(&tables, registered);
        let tables: BTreeMap<_, _> = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        let unread = tables.get("ops.ledger").map(|ledger| ledger.explained.clone()).unwrap_or_default();
        Self {
            tables,
            offsets: Offsets::default(),
            identity: Identity::default(),
            by_message: Rows::begin(records),
            streams: Streams::begin(unread),
            accounts: Accounts::default(),
            late,
            are_events_apart: false,
            messages: 0,
            rows: 0,
            report,
        }
    }

    /// Adds a message of `ops.ledger`.
    pub(crate) fn add_ledger(&mut self, row: &LedgerRow) {
        self.messages += 1;
        self.are_events_apart |= self.sets_events_apart(row);
        messages::announced(row, &mut self.report);
        self.offsets.add_ledger(row, self.tables.get("ops.dlq"));
        self.by_message.add_ledger(row, &self.tables);
        self.streams.add(row);
        self.accounts.add(row);
        self.late.add(row);
    }

    /// Adds offsets at which the log holds no message, as `ops.ledger` has them.
    pub(crate) fn add_skipped(&mut self, range: &OffsetRange) {
        self.offsets.add_skipped(range, &self.tables);
    }

    /// Adds a row of `bronze.messages`.
    pub(crate) fn add_bronze(&mut self, at: &TopicPartition, offset: i64) {
        self.offsets.add_bronze(at, offset);
    }

    /// Adds a row of `ops.dlq`.
    pub(crate) fn add_dead_letter(&mut self, at: &TopicPartition, offset: i64) {
        self.offsets.add_dead_letter(at, offset);
    }

    /// Adds rows of a message that a table of records holds.
    pub(crate) fn add_rows(&mut self, table: &str, at: &TopicPartition, offset: i64, rows: i64) {
        self.rows = self.rows.saturating_add(rows.unsigned_abs());
        self.by_message.add_found(table, at, offset, rows);
    }

    /// Adds sequence numbers of rows of a table of records.
    pub(crate) fn add_numbers(&mut self, table: &str, boot: Boot<'_>, numbers: &Runs) {
        self.identity.add(table, boot, numbers);
    }

    /// Adds an `event_id` that is not made of its row's node, boot and sequence number.
    pub(crate) fn add_misnamed(&mut self, table: &str, id: &str) {
        Identity::misnamed(table, id, &mut self.report);
    }

    /// Messages whose rows may differ from the ledger: they are to be read again, and returned ([`Self::look_at`]). Called once,
    /// when all rows were added.
    pub(crate) fn take_suspects(&mut self) -> Vec<Suspects> {
        self.by_message.take_suspects()
    }

    /// Judges messages that were read again.
    pub(crate) fn look_at(&mut self, suspects: Suspects) {
        suspects.report(&mut self.report);
    }

    /// What is known of a table's metadata.
    pub(crate) fn table(&self, name: &str) -> Option<&TableFacts> {
        self.tables.get(name)
    }

    /// Between the offsets of the two tables there may be messages, but none with events.
    fn sets_events_apart(&self, row: &LedgerRow) -> bool {
        if row.landed == 0 || !row.has_kind(RecordKind::Event.name()) {
            return false;
        }
        let is_in = |table: &str| self.tables.get(table).is_some_and(|table| row.is_below(&table.next));
        is_in("silver.events") != is_in("gold.op_minute")
    }

    pub(crate) fn are_events_apart(&self) -> bool {
        self.are_events_apart
    }

    /// Adds what the two tables of events count of the same minutes, which are all that they have of these.
    pub(crate) fn add_minutes(&mut self, events: &Counts, aggregated: &Counts) {
        for key in events.keys().chain(aggregated.keys().filter(|key| !events.contains_key(key))) {
            let held = events.get(key).copied().unwrap_or(0);
            let counted = aggregated.get(key).copied().unwrap_or(0);
            if held != counted {
                let OpMinute { node, minute_us, source, op } = key;
                let place = format!("{node} minute {} source {source} op {op}", minute_us / 60_000_000);
                let what = format!("counts {counted} events, silver.events holds {held}");
                self.report.add(Law::Aggregates, "gold.op_minute", place, what);
            }
        }
    }

    /// Whether a table, which stands at `next` now, holds less than the ledger has for it.
    pub(crate) fn is_late(&mut self, table: &str, next: &BTreeMap<TopicPartition, NextOffset>) -> bool {
        self.late.is_late(table, next)
    }

    /// Reports a table that is late.
    pub(crate) fn report_late(&mut self, table: &str, next: &BTreeMap<TopicPartition, NextOffset>) {
        self.late.report(table, next, &mut self.report);
    }

    /// The verdict, when everything was added.
    pub(crate) fn finish(self, own: &OwnEvents) -> Verdict {
        let Self { tables, offsets, identity, mut streams, mut accounts, mut report, .. } = self;
        offsets.check(&tables, &mut report);
        identity.check(&mut report);
        for epoch in streams.check(&mut report) {
            accounts.note_unread(&epoch);
        }
        accounts.check(own, &mut report);
        let unproved = Unproved::without(|table| tables.contains_key(table));
        // What seems to break such a law is what the absent table lacks.
        let mut broken = report.into_broken();
        broken.retain(|broken| !is_unproved(broken.law, &unproved));
        // Without the events of agents every epoch would seem to be open.
        let open_epochs = if is_unproved(Law::Accounts, &unproved) { Vec::new() } else { accounts.open_epochs(own) };
        Verdict { broken, unproved, messages: self.messages, rows: self.rows, tables: tables.len(), open_epochs }
    }
}

fn is_unproved(law: Law, unproved: &[Unproved]) -> bool {
    unproved.iter().any(|unproved| unproved.law == law)
}
