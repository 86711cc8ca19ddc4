//! Rows become messages. A message holds rows of one stream whose numbers follow one another, and is cut by rows, bytes
//! and time, so that it is never over a limit of the wire.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::batch::{EventRows, RowError, Rows, Value};
use event_schema::clock::Beacon;
use event_schema::identity::StreamId;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::wire::{self, EncodeError, HeaderDraft};

use crate::ingero::{Row, Table, event, text_bytes};
use crate::keys::RowKey;

#[cfg(test)]
mod tests;

/// Largest number of rows in one message. The wire allows 65,536.
const ROWS_MAX: u32 = 8192;
/// Largest number of bytes of the rows in one message, before compression. A larger row makes a message of its own.
const BYTES_MAX: usize = 2 << 20;
/// Longest time between the rows of one message. Tables are partitioned by day, and such a message has rows of two days
/// at most.
const SPAN_NS_MAX: i64 = 24 * 3_600 * 1_000_000_000;

/// Largest number of messages that are open at once. Each takes some hundred kilobytes, however few rows it has.
const OPEN_MAX: usize = 256;
/// Largest number of bytes of the rows in all open messages.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// Why rows cannot be made a message.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A field is missing, or is of another type.
    #[error(transparent)]
    Row(#[from] RowError),
    /// Arrow refused the columns.
    #[error("the rows cannot be made a batch")]
    Batch(#[source] ArrowError),
    /// The message would be over a limit of the wire.
    #[error("the batch cannot be encoded")]
    Encode(#[from] EncodeError),
}

/// A message and where it belongs.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) kind: RecordKind,
    pub(crate) stream: StreamId,
    /// Sequence numbers of its rows.
    pub(crate) seqs: Range<i64>,
    pub(crate) message: Bytes,
}

/// Collects the rows of one table into messages.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    kind: RecordKind,
    cluster: &'a str,
    /// The program that recorded the rows.
    agent: &'a str,
    /// One open message per node: in a merged file their rows take turns.
    open: BTreeMap<String, Open>,
    /// Bytes of rows in the open messages.
    bytes: usize,
}

#[derive(Debug)]
struct Open {
    stream: StreamId,
    first_seq: i64,
    rows: Collected,
    count: u32,
    bytes: usize,
    /// Earliest and latest time of the rows, unix nanoseconds.
    first_ns: i64,
    last_ns: i64,
}

#[derive(Debug)]
enum Collected {
    Events(Box<EventRows>),
    Others(Rows),
}

impl<'a> Packer<'a> {
    pub(crate) fn new(kind: RecordKind, cluster: &'a str, agent: &'a str) -> Self {
        Self { kind, cluster, agent, open: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a row; returns the messages that it ended.
    ///
    /// # Errors
    /// The row lacks a field, or a message that it ended cannot be encoded.
    pub(crate) fn add(&mut self, table: &Table, key: RowKey, row: Row, time_ns: i64) -> Result<Vec<Packed>, PackError> {
        let node = key.stream.node.to_string();
        let bytes = bytes_of(&row);
        let mut ended = Vec::new();
        // First, since it frees memory: then perhaps no other message must end before its time.
        if self.open.get(&node).is_some_and(|open| !open.takes(&key, bytes, time_ns)) {
            ended.extend(self.end(&node)?);
        }
        while self.bytes + bytes > OPEN_BYTES_MAX || (self.open.len() >= OPEN_MAX && !self.open.contains_key(&node)) {
            // The fullest frees most memory with one message, and comes nearest to a message that is full.
            let Some(fullest) = self.open.iter().max_by_key(|(_, open)| open.bytes).map(|(node, _)| node.clone())
            else {
                // Nothing is open: one row alone may exceed the bound.
                break;
            };
            ended.extend(self.end(&fullest)?);
        }
        let kind = self.kind;
        let open = self.open.entry(node).or_insert_with(|| Open::new(kind, key, time_ns));
        open.push(table, row, bytes, time_ns)?;
        self.bytes += bytes;
        Ok(ended)
    }

    /// Ends the open message of a node.
    fn end(&mut self, node: &str) -> Result<Option<Packed>, PackError> {
        let open = self.open.remove(node);
        // Every open message's bytes were added to the sum in `add`: it does not underflow.
        self.bytes -= open.as_ref().map_or(0, |open| open.bytes);
        open.map(|open| self.pack(open)).transpose()
    }

    /// The messages that are still open.
    ///
    /// # Errors
    /// A message cannot be encoded.
    pub(crate) fn finish(mut self) -> Result<Vec<Packed>, PackError> {
        std::mem::take(&mut self.open).into_values().map(|open| self.pack(open)).collect()
    }

    fn pack(&self, mut open: Open) -> Result<Packed, PackError> {
        let batch = match &mut open.rows {
            Collected::Events(rows) => rows.finish(),
            Collected::Others(rows) => rows.finish(),
        };
        let batch = batch.map_err(PackError::Batch)?;
        let draft = HeaderDraft {
            kind: self.kind,
            cluster: self.cluster.to_owned(),
            node: open.stream.node.to_string(),
            boot_id: open.stream.boot_id.to_string(),
            epoch: open.stream.epoch,
            stream: open.stream.stream,
            beacon: Beacon::WALL,
            // Nothing was lost between the file and here, so that emitted = landed and the ledger closes. What the
            // tracer itself left out is in its aggregates.
            losses: LossCounters { emitted: u64::from(open.count), ..LossCounters::default() },
            agent: self.agent.to_owned(),
        };
        let message = wire::encode(&draft, open.first_seq, &batch)?;
        let seqs = open.first_seq..open.first_seq + i64::from(open.count);
        Ok(Packed { kind: self.kind, stream: open.stream, seqs, message })
    }
}

impl Open {
    fn new(kind: RecordKind, key: RowKey, time_ns: i64) -> Self {
        let rows = match kind {
            RecordKind::Event => Collected::Events(Box::default()),
            kind => Collected::Others(Rows::new(kind)),
        };
        let RowKey { stream, seq } = key;
        Self { stream, first_seq: seq, rows, count: 0, bytes: 0, first_ns: time_ns, last_ns: time_ns }
    }

    /// Whether a row may join the message.
    fn takes(&self, key: &RowKey, bytes: usize, time_ns: i64) -> bool {
        // A header has the first number only: the rows of a message are numbered from it without gaps.
        let follows = key.stream == self.stream && key.seq == self.first_seq + i64::from(self.count);
        let span_ns = self.last_ns.max(time_ns).saturating_sub(self.first_ns.min(time_ns));
        follows && self.count < ROWS_MAX && self.bytes + bytes <= BYTES_MAX && span_ns < SPAN_NS_MAX
    }

    fn push(&mut self, table: &Table, row: Row, bytes: usize, time_ns: i64) -> Result<(), RowError> {
        match &mut self.rows {
            Collected::Events(rows) => {
                let id = match &row.cells[0] {
                    Value::Text(id) => id.clone(),
                    Value::Long(id) => id.to_string(),
                    // Never: the id is required, and `Holds::Id` admits integers and texts.
                    _ => String::new(),
                };
                rows.push(&event(&row.cells, &id));
            }
            Collected::Others(rows) => rows.push(table.fields(row.cells, time_ns))?,
        }
        self.count += 1;
        self.bytes += bytes;
        self.first_ns = self.first_ns.min(time_ns);
        self.last_ns = self.last_ns.max(time_ns);
        Ok(())
    }
}

/// Approximate size of a row in a message, bytes.
fn bytes_of(row: &Row) -> usize {
    let texts: usize = row.cells.iter().map(text_bytes).sum();
    // A number takes 8 bytes at most; 64 for what a row has beside its cells, such as times and offsets of texts.
    texts + 8 * row.cells.len() + 64
}
