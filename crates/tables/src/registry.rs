//! The list of tables, and how a batch of arrivals becomes the rows of each.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::position::Message;

use crate::arrival::{Arrival, Skipped};
use crate::def::TableDef;
use crate::{bronze, gold, ops, silver};

/// What a table holds, and so how its rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Every message as received. The table records which log it was filled from.
    Messages,
    /// The records of one kind.
    Records(RecordKind),
    /// Partial aggregates of events.
    OpMinute,
    /// What became of each message.
    Ledger,
    /// Messages that could not be decoded.
    DeadLetters,
}

/// When a table is committed. A table that gets rows all the time is committed with every batch. One that gets few
/// waits for more: each commit costs a request to the catalog and four to the store, and leaves a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitPolicy {
    /// Rows wait for so many commit intervals (`ingest.commit_interval`) at most.
    pub intervals: u32,
    /// So many messages with rows are committed at once.
    pub messages: usize,
}

impl CommitPolicy {
    /// With every batch.
    const EACH_BATCH: Self = Self { intervals: 1, messages: 1 };
    /// Facts that answers about the last seconds name: processes, nodes, containers.
    const SOON: Self = Self { intervals: 3, messages: 1_024 };
    const SELDOM: Self = Self { intervals: 10, messages: 1_024 };
}

/// Makes fewer rows of rows in a table's sort order, all rows of each sort key among them.
pub type Fold = fn(&RecordBatch) -> Result<RecordBatch, ArrowError>;

/// A table, and how it is filled.
#[derive(Debug, Clone)]
pub struct Table {
    /// Name, columns and partitioning.
    pub def: TableDef,
    /// Which rows it holds.
    pub content: Content,
    /// How long its rows may wait for a commit.
    pub commit: CommitPolicy,
    /// Version of the code that makes its rows, from 1. It is raised with every change after which a message that has
    /// landed would leave other rows: then `causeway reprocess` brings the older rows to it (ADR 50).
    pub refine_version: u32,
}

impl Table {
    fn new(content: Content, commit: CommitPolicy) -> Self {
        let def = match content {
            Content::Messages => bronze::messages::def(),
            Content::Records(RecordKind::Chain) => gold::chains::def(),
            Content::Records(kind) => silver::def(kind),
            Content::OpMinute => gold::op_minute::def(),
            Content::Ledger => ops::ledger::def(),
            Content::DeadLetters => ops::dlq::def(),
        };
        Self { def, content, commit, refine_version: refine_version(content) }
    }

    /// The rows that arrivals leave in the table, in their order; no batch is empty.
    ///
    /// # Errors
    /// Only on a disagreement between the columns of the table and its rows, or when a decoded batch does not have its
    /// kind's schema.
    pub fn rows(&self, arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
        match self.content {
            Content::Messages => bronze::messages::rows(arrivals),
            Content::Records(RecordKind::Chain) => gold::chains::rows(arrivals),
            Content::Records(kind) => silver::rows(kind, arrivals),
            Content::OpMinute => gold::op_minute::rows(arrivals),
            Content::Ledger => ops::ledger::rows(arrivals),
            Content::DeadLetters => ops::dlq::rows(arrivals),
        }
    }

    /// Makes fewer rows of rows with equal keys without changing what the table means; `None` where every row stays.
    pub fn fold(&self) -> Option<Fold> {
        (self.content == Content::OpMinute).then_some(gold::op_minute::fold as Fold)
    }

    /// Whether its rows are refined from messages, so that they can be made again from `bronze.messages`.
    pub const fn is_refined(&self) -> bool {
        matches!(self.content, Content::Records(_) | Content::OpMinute)
    }

    /// Whether offsets at which the log holds no message leave rows ([`Self::skip_rows`]).
    pub fn keeps_skipped(&self) -> bool {
        self.content == Content::Ledger
    }

    /// The rows that such offsets leave.
    ///
    /// # Errors
    /// Only on a disagreement between the columns of the table and its rows.
    pub fn skip_rows(&self, skipped: &[Skipped]) -> Result<Vec<RecordBatch>, ArrowError> {
        if skipped.is_empty() || !self.keeps_skipped() {
            return Ok(Vec::new());
        }
        ops::ledger::skip_rows(skipped).map(|rows| Vec::from([rows]))
    }

    /// Bytes of an arrival that go into the rows; 0 when it leaves no row.
    pub fn weigh(&self, arrival: &Arrival) -> u64 {
        match self.content {
            Content::Messages => message(arrival),
            Content::Records(kind) => records(kind, arrival),
            Content::OpMinute => records(RecordKind::Event, arrival),
            Content::Ledger => LEDGER_ROW_BYTES,
            Content::DeadLetters => dead_letter(arrival),
        }
    }
}

// Events and what is made per message change with every batch; the rest comes seldom and is committed together.
static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    vec![
        Table::new(Content::Messages, CommitPolicy::EACH_BATCH),
        Table::new(Content::Records(RecordKind::Event), CommitPolicy::EACH_BATCH),
        Table::new(Content::Records(RecordKind::Stack), CommitPolicy::SELDOM),
        Table::new(Content::Records(RecordKind::Process), CommitPolicy::SOON),
        Table::new(Content::Records(RecordKind::Session), CommitPolicy::SOON),
        Table::new(Content::Records(RecordKind::System), CommitPolicy::SELDOM),
        Table::new(Content::Records(RecordKind::Cgroup), CommitPolicy::SOON),
        Table::new(Content::Records(RecordKind::Aggregate), CommitPolicy::SELDOM),
        Table::new(Content::Records(RecordKind::Chain), CommitPolicy::SELDOM),
        Table::new(Content::OpMinute, CommitPolicy::EACH_BATCH),
        Table::new(Content::Ledger, CommitPolicy::EACH_BATCH),
        Table::new(Content::DeadLetters, CommitPolicy::SELDOM),
    ]
});

/// Versions of the code that makes rows, of each table for itself: a change of one leaves the rows of the others as
/// they are.
const fn refine_version(content: Content) -> u32 {
    match content {
        Content::Messages | Content::Ledger | Content::DeadLetters => 1,
        Content::Records(kind) => silver::refine_version(kind),
        Content::OpMinute => gold::op_minute::REFINE_VERSION,
    }
}

/// A row of the ledger, with its names.
const LEDGER_ROW_BYTES: u64 = 512;
/// What a row needs beside its bytes.
const ROW_BYTES: u64 = 128;

fn message(arrival: &Arrival) -> u64 {
    let Message { key, payload, headers, .. } = &arrival.message;
    // Values of headers are written in hexadecimal.
    let headers: usize = headers.iter().map(|(name, value)| name.len() + 2 * value.len()).sum();
    ROW_BYTES + (key.as_ref().map_or(0, Bytes::len) + payload.len() + headers) as u64
}

fn dead_letter(arrival: &Arrival) -> u64 {
    arrival.outcome.as_ref().map_or_else(|rejection| message(arrival) + rejection.detail.len() as u64, |_| 0)
}

fn records(kind: RecordKind, arrival: &Arrival) -> u64 {
    match &arrival.outcome {
        // The whole batch, also where few of its rows are new: slices keep its buffers in memory.
        Ok(decoded) if decoded.header.kind == kind && arrival.fresh_rows() > 0 => {
            ROW_BYTES + decoded.batch_bytes as u64
        }
        _ => 0,
    }
}

/// Every table messages land in.
pub fn all() -> &'static [Table] {
    &TABLES
}

/// Looks a table up by `namespace` and `name`.
pub fn find(namespace: &str, name: &str) -> Option<&'static Table> {
    all().iter().find(|t| t.def.name.namespace == namespace && t.def.name.name == name)
}

#[cfg(test)]
mod tests;
