//! What identifies an imported row, so that importing it again, from the same file, from one that has grown, or from another that
//! holds it too, changes nothing.
//!
//! The centre knows a row by node, boot, epoch, stream and sequence number. An event has a number of its own, counted by the
//! tracer: its boot stands for the session that recorded it, and a recording that has grown, was pruned or merged brings only
//! what was not there. Every other row is known by its content: epoch and sequence number are taken from a hash of it. The name
//! of the file is part of nothing.

use std::collections::HashMap;
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::{EPOCHS_MAX, SEQS_MAX, StreamId, first_seq, stream_number};
use event_schema::kind::RecordKind;
use sha2::{Digest as _, Sha256};
use tables::seen::Seen;

use super::ingero::{Row, Session, Table, event_number};

/// Events without a session are told apart by the minute they began in.
const MINUTE_NS: i64 = 60_000_000_000;

/// A hash of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Of cells by name. Nulls leave no trace, so that a column that an older schema lacks changes nothing.
    pub(crate) fn of_cells<'a>(label: &str, cells: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut hash = Sha256::new();
        add(&mut hash, label.as_bytes());
        for (name, cell) in cells {
            let bytes: &[u8] = match cell {
                Value::Null => continue,
                Value::Long(number) => &number.to_le_bytes(),
                Value::Double(number) => &number.to_bits().to_le_bytes(),
                Value::Text(text) => text.as_bytes(),
            };
            add(&mut hash, name.as_bytes());
            hash.update([type_tag(cell)]);
            add(&mut hash, bytes);
        }
        Self(hash.finalize().into())
    }

    /// Of what identifies a row among those of its table.
    pub(crate) fn of_row(table: &Table, cells: &[Value]) -> Self {
        let identity = table.columns.iter().zip(cells).filter(|(column, _)| column.is_identity);
        Self::of_cells(table.name, identity.map(|(column, cell)| (column.name, cell)))
    }

    /// Of this and more.
    fn with(&self, more: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        more.iter().for_each(|bytes| add(&mut hash, bytes));
        Self(hash.finalize().into())
    }

    /// In hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// An id in the form of a boot id: the boot in which the rows were recorded is not known, but always the same.
    fn boot_id(&self) -> Arc<str> {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        uuid::Builder::from_custom_bytes(id).into_uuid().to_string().into()
    }

    /// A number below `end`, from the eight bytes that begin at `at`.
    fn below(&self, at: usize, end: i64) -> i64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        let end = u64::try_from(end).unwrap_or(1).max(1);
        i64::try_from(u64::from_le_bytes(bytes) % end).unwrap_or(0)
    }
}

fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(bytes);
}

fn type_tag(cell: &Value) -> u8 {
    match cell {
        Value::Null => 0,
        Value::Long(_) => 1,
        Value::Double(_) => 2,
        Value::Text(_) => 3,
    }
}

/// Whether a boot id is one of a recording: those say so by their version, and the kernel's are random.
pub(crate) fn is_recording(boot_id: &str) -> bool {
    uuid::Uuid::parse_str(boot_id).is_ok_and(|id| id.get_version_num() == 8)
}

/// What the centre knows a row by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKey {
    pub(crate) stream: StreamId,
    pub(crate) seq: i64,
}

/// Gives the rows of one file their keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Numbers of events that the file had already.
    numbers: Seen,
    /// How often a content came.
    copies: HashMap<Digest, u32>,
}

impl Keys {
    /// The key of the next row of a table. `session` is that in which it happened.
    pub(crate) fn of(&mut self, table: &Table, row: &Row, node: &str, session: Option<&Session>) -> Option<RowKey> {
        if table.kind == RecordKind::Event
            && let Some(key) = self.of_event(table, row, node, session)
        {
            return Some(key);
        }
        let content = Digest::of_row(table, &row.cells).with(&[node.as_bytes()]);
        // Equal rows are as many as there are: the second is another row than the first.
        let copy = self.copies.entry(content).and_modify(|copies| *copies += 1).or_insert(0);
        let content = content.with(&[&copy.to_le_bytes()]);
        of_content(table, row, content, node, session)
    }

    /// The key of an event by its number; `None` when it has none, or one that the file had already.
    fn of_event(&mut self, table: &Table, row: &Row, node: &str, session: Option<&Session>) -> Option<RowKey> {
        let number = event_number(row.cells.first()?, node)?;
        let recorded = match session {
            Some(session) => session.digest,
            None => {
                let minute = table.time_of(&row.cells)?.div_euclid(MINUTE_NS);
                Digest::of_cells("minute", [("minute", &Value::Long(minute))].into_iter())
            }
        };
        let stream = stream(table.kind, recorded.with(&[node.as_bytes(), table.name.as_bytes()]), node, 0);
        let seq = first_seq(0, stream.stream)? + number;
        let is_first = !self.numbers.note(stream.clone(), seq, seq + 1).is_empty();
        is_first.then_some(RowKey { stream, seq })
    }
}

fn of_content(table: &Table, row: &Row, content: Digest, node: &str, session: Option<&Session>) -> Option<RowKey> {
    let (boot, epoch) = match table.kind {
        // The beginning of a session and its end are two rows of one run.
        RecordKind::Session => (Digest::of_cells("run", [("", row.cells.first()?)].into_iter()), 0),
        // A process number means something else in another session.
        RecordKind::Process => match session {
            Some(session) => (session.digest, content.below(0, EPOCHS_MAX)),
            None => (Digest([0; 32]), content.below(0, EPOCHS_MAX)),
        },
        _ => (Digest([0; 32]), content.below(0, EPOCHS_MAX)),
    };
    // The same number and name in another session is another process.
    let content = if table.kind == RecordKind::Process { content.with(&[&boot.0]) } else { content };
    let stream = stream(table.kind, boot.with(&[node.as_bytes(), table.name.as_bytes()]), node, epoch);
    let seq = first_seq(epoch, stream.stream)? + content.below(8, SEQS_MAX);
    Some(RowKey { stream, seq })
}

fn stream(kind: RecordKind, boot: Digest, node: &str, epoch: i64) -> StreamId {
    StreamId { node: node.into(), boot_id: boot.boot_id(), epoch, stream: stream_number(kind) }
}

#[cfg(test)]
mod tests;
