//! Rows become messages. A parcel is rows of one kind and one node; it has an identity, and each of its rows a number, so that
//! importing them again, from the same file or from another that holds them too, changes nothing.
//!
//! Events carry numbers of their own, counted by the tracer: a parcel is what one session of it recorded, and a recording that
//! has grown, was pruned or merged brings only what was not there. Other rows have no numbers: they are identified by a hash of
//! the rows of their parcel. Those that come minute by minute make a parcel of each, so that of a recording that has grown only
//! the minute in which it was copied comes a second time.

use std::collections::BTreeMap;

use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::batch::{EventRows, RowError, Rows, Value};
use event_schema::clock::Beacon;
use event_schema::identity::{first_seq, stream_number};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::wire::{self, EncodeError, Header};
use sha2::{Digest, Sha256};

use super::ingero::{Row, Table, WrongCell, event};

/// Rows in one message.
const ROWS_PER_MESSAGE: i64 = 8192;

/// Names a parcel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ParcelKey {
    pub(crate) node: String,
    pub(crate) kind: RecordKind,
    pub(crate) part: Part,
}

/// Which rows of a node and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Of the session that began then, unix nanoseconds; they have numbers of their own.
    Session(i64),
    /// Of this minute since 1970, numbered in order and identified by content.
    Minute(i64),
    /// All that are in the file, numbered in order and identified by content.
    Whole,
}

/// Why a row cannot travel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParcelError {
    #[error(transparent)]
    Cell(#[from] WrongCell),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("the rows cannot be made a batch")]
    Batch(#[source] ArrowError),
    #[error("the batch cannot be encoded")]
    Encode(#[from] EncodeError),
    #[error("{kind} records have no stream of their own")]
    NoStream { kind: &'static str },
}

/// What the first reading of a file learns about a parcel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprint {
    pub(crate) rows: u64,
    hash: Sha256,
}

impl Fingerprint {
    /// Takes in a row. Nulls leave no trace, so that a column an older schema lacks changes nothing.
    pub(crate) fn add(&mut self, cells: &[Value]) {
        self.rows += 1;
        self.hash.update([0xff]);
        for (at, cell) in cells.iter().enumerate() {
            let (tag, bytes): (u8, &[u8]) = match cell {
                Value::Null => continue,
                Value::Long(n) => (1, &n.to_le_bytes()),
                Value::Double(n) => (2, &n.to_bits().to_le_bytes()),
                Value::Text(text) => (3, text.as_bytes()),
            };
            self.hash.update([u8::try_from(at).unwrap_or(u8::MAX), tag]);
            self.hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            self.hash.update(bytes);
        }
    }

    /// An id in the form of a boot id: the boot in which these rows were recorded is not known, but always the same.
    pub(crate) fn boot_id(self, key: &ParcelKey) -> String {
        let hash = match key.part {
            Part::Session(started_ns) => Sha256::new().chain_update(started_ns.to_le_bytes()),
            Part::Minute(_) | Part::Whole => self.hash,
        };
        let named = hash.chain_update(key.node.as_bytes()).chain_update([0, key.kind.number()]);
        let digest: [u8; 32] = named.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(id).into_uuid().to_string()
    }
}

/// Whether an id is one of [`Fingerprint::boot_id`]: those say so by their version, and the kernel's are random.
pub(crate) fn is_recording(boot_id: &str) -> bool {
    uuid::Uuid::parse_str(boot_id).is_ok_and(|id| id.get_version_num() == 8)
}

/// Collects the rows of one parcel into messages: a message ends when it is full, and where numbers are left out.
#[derive(Debug)]
pub(crate) struct Packer {
    header: Header,
    /// The sequence number of number 0.
    begin_seq: i64,
    rows: Collected,
}

#[derive(Debug)]
enum Collected {
    Events(Box<EventRows>),
    Others(Rows),
}

impl Packer {
    /// A packer for a parcel that has not been packed yet. `agent` names who recorded the rows.
    pub(crate) fn new(key: &ParcelKey, boot_id: String, cluster: &str, agent: &str) -> Result<Self, ParcelError> {
        let stream = stream_number(key.kind);
        let first_seq = first_seq(0, stream).ok_or(ParcelError::NoStream { kind: key.kind.name() })?;
        let rows = match key.kind {
            RecordKind::Event => Collected::Events(Box::default()),
            kind => Collected::Others(Rows::new(kind)),
        };
        let header = Header {
            kind: key.kind,
            cluster: cluster.to_owned(),
            node: key.node.clone(),
            boot_id,
            epoch: 0,
            stream,
            first_seq,
            rows: 0,
            first_boot_ns: 0,
            last_boot_ns: 0,
            beacon: Beacon::WALL,
            losses: LossCounters::default(),
            agent: agent.to_owned(),
        };
        Ok(Self { header, begin_seq: first_seq, rows })
    }

    /// Adds the row of that number, which is not below that of the one before; returns a message that ended.
    pub(crate) fn add(
        &mut self,
        table: &Table,
        number: i64,
        row: Row,
        time_ns: i64,
    ) -> Result<Option<Bytes>, ParcelError> {
        let seq = self.begin_seq.saturating_add(number);
        let mut ended = None;
        if seq != self.header.first_seq + self.len() {
            if self.len() > 0 {
                ended = Some(self.pack()?);
            }
            self.header.first_seq = seq;
        }
        self.push(table, row, time_ns)?;
        if self.len() >= ROWS_PER_MESSAGE { self.pack().map(Some) } else { Ok(ended) }
    }

    fn push(&mut self, table: &Table, row: Row, time_ns: i64) -> Result<(), ParcelError> {
        match &mut self.rows {
            Collected::Events(rows) => {
                let id = match &row.cells[0] {
                    Value::Text(id) => id.clone(),
                    Value::Long(id) => id.to_string(),
                    _ => String::new(),
                };
                rows.push(&event(&row.cells, &id)?);
            }
            Collected::Others(rows) => rows.push(table.fields(row.cells, time_ns))?,
        }
        Ok(())
    }

    fn len(&self) -> i64 {
        let rows = match &self.rows {
            Collected::Events(rows) => rows.len(),
            Collected::Others(rows) => rows.len(),
        };
        i64::try_from(rows).unwrap_or(i64::MAX)
    }

    /// What is left, if anything.
    pub(crate) fn finish(mut self) -> Result<Option<Bytes>, ParcelError> {
        if self.len() == 0 { Ok(None) } else { self.pack().map(Some) }
    }

    fn pack(&mut self) -> Result<Bytes, ParcelError> {
        let batch = match &mut self.rows {
            Collected::Events(rows) => rows.finish(),
            Collected::Others(rows) => rows.finish(),
        };
        let batch = batch.map_err(ParcelError::Batch)?;
        // Nothing was lost between the file and here; what the tracer itself left out is in its aggregates.
        self.header.losses.emitted = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        let message = wire::encode(&self.header, &batch)?;
        self.header.first_seq += i64::try_from(batch.num_rows()).unwrap_or(0);
        Ok(message)
    }
}

/// Rows by parcel.
pub(crate) type Fingerprints = BTreeMap<ParcelKey, Fingerprint>;

#[cfg(test)]
mod tests;
