//! The proof of the [laws](crate::laws): pure, and a fold over windows of messages. Between two windows it keeps what later ones
//! may complete, as runs of numbers and as sums, so that its memory follows the number of partitions, streams, epochs and gaps, and
//! not that of the messages. The verdict is the same however the messages are cut into windows.

use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};

use crate::facts::{Counts, Epoch, LedgerRow, OpMinute, OwnEvents, TableFacts, Window};
use crate::laws::{Broken, Law, Report};
use accounts::Accounts;
use late::Late;
use messages::{Identity, Offsets};
use streams::Streams;

mod accounts;
mod late;
mod messages;
mod streams;
#[cfg(test)]
mod tests;

/// What was found when everything was read.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Every place where a law does not hold; of many in one table the first thousand and their number.
    pub broken: Vec<Broken>,
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

/// What is known so far of the messages that were read.
#[derive(Debug)]
pub(crate) struct Proof {
    tables: BTreeMap<String, TableFacts>,
    offsets: Offsets,
    identity: Identity,
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
    /// Begins with the metadata of the tables. `registered` are the tables that messages have rows for, whether they exist or not.
    pub(crate) fn begin(tables: Vec<TableFacts>, registered: impl IntoIterator<Item = String>) -> Self {
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
            streams: Streams::begin(unread),
            accounts: Accounts::default(),
            late,
            are_events_apart: false,
            messages: 0,
            rows: 0,
            report,
        }
    }

    /// Adds the messages of a window. Each message is in one window, with all its rows of all tables.
    pub(crate) fn add(&mut self, window: &Window) {
        for row in &window.ledger {
            self.messages += 1;
            self.are_events_apart |= self.sets_events_apart(row);
            self.streams.add(row);
            self.accounts.add(row);
            self.late.add(row);
        }
        self.offsets.add(window, self.tables.get("ops.dlq"));
        self.rows += messages::rows(window, &self.tables, &mut self.report);
        for records in &window.records {
            self.identity.add(records, &mut self.report);
        }
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

    /// The verdict, when all windows were added.
    pub(crate) fn finish(self, own: &OwnEvents) -> Verdict {
        let Self { tables, offsets, identity, mut streams, mut accounts, mut report, .. } = self;
        offsets.check(&tables, &mut report);
        identity.check(&mut report);
        for epoch in streams.check(&mut report) {
            accounts.note_unread(&epoch);
        }
        accounts.check(own, &mut report);
        Verdict {
            broken: report.into_broken(),
            messages: self.messages,
            rows: self.rows,
            tables: tables.len(),
            open_epochs: accounts.open_epochs(own),
        }
    }
}
