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
use event_schema::identity::{SEQS_MAX, StreamId, first_seq};
use event_schema::kind::RecordKind;
use event_schema::stream::Stream;
use sha2::{Digest as _, Sha256};
use tables::seen::Seen;

use super::ingero::{Row, Session, Table, event_number};

/// Events without a session are distinguished by the minute in which they began.
const MINUTE_NS: i64 = 60_000_000_000;
/// Epochs over which the rows of a table that are known by their content are spread. Who looks at runs sees as many at most; with
/// the sequence number it makes 48 bits of the content's hash.
const CONTENT_EPOCHS: i64 = 1 << 12;

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

/// What an event holds, to compare it with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Of what a tracer writes once.
    once: u64,
    /// Of what it may write anew, such as a duration that was not known yet.
    anew: u64,
}

impl Content {
    /// Of named cells in a fixed order.
    pub(crate) fn of<'a>(
        once: impl Iterator<Item = (&'a str, &'a Value)>,
        anew: impl Iterator<Item = (&'a str, &'a Value)>,
    ) -> Self {
        let number = |digest: Digest| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest.0[..8]);
            u64::from_le_bytes(bytes)
        };
        Self { once: number(Digest::of_cells("event", once)), anew: number(Digest::of_cells("event", anew)) }
    }

    /// Whether they are one event, however often its tracer has written it.
    pub(crate) fn is_same_event(self, other: Self) -> bool {
        self.once == other.once
    }
}

/// For events whose keys are another recording's: boot id → which other boot id they take.
pub(crate) type Alternates = HashMap<Arc<str>, u32>;

/// Gives the rows of one file their keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    alternates: Alternates,
    /// Keys that the file had already.
    numbers: Seen,
    /// How often a content came.
    copies: HashMap<Digest, u32>,
}

impl Keys {
    pub(crate) fn new(alternates: Alternates) -> Self {
        Self { alternates, ..Self::default() }
    }

    /// The key of the next row of a table. `session` is that in which it happened.
    pub(crate) fn of(&mut self, table: &Table, row: &Row, node: &str, session: Option<&Session>) -> Option<RowKey> {
        if table.kind == RecordKind::Event
            && let Some((_, key)) = self.of_event(table, row, node, session)
        {
            return Some(key);
        }
        let content = Digest::of_row(table, &row.cells).with(&[node.as_bytes()]);
        // Equal rows are as many as there are: the second is another row than the first.
        let copy = self.copies.entry(content).and_modify(|copies| *copies += 1).or_insert(0);
        let mut content = content.with(&[&copy.to_le_bytes()]);
        loop {
            let key = of_content(table, row, content, node, session)?;
            if !self.numbers.note(key.stream.clone(), key.seq, key.seq + 1).is_empty() {
                return Some(key);
            }
            // Two contents with one key are as good as none, but both are rows.
            content = content.with(&[b"again"]);
        }
    }

    /// The key of an event by its number, and the boot id that it has unless that is another recording's; `None` when it has no
    /// number, or one that the file had already.
    pub(crate) fn of_event(
        &mut self,
        table: &Table,
        row: &Row,
        node: &str,
        session: Option<&Session>,
    ) -> Option<(Arc<str>, RowKey)> {
        let number = event_number(row.cells.first()?, node)?;
        let recorded = match session {
            Some(session) => session.digest,
            None => {
                let minute = table.time_of(&row.cells)?.div_euclid(MINUTE_NS);
                Digest::of_cells("minute", [("minute", &Value::Long(minute))].into_iter())
            }
        };
        let boot = recorded.with(&[node.as_bytes(), table.name.as_bytes()]);
        let base = boot.boot_id();
        let boot = self.alternates.get(&base).map_or(boot, |alternate| boot.with(&[&alternate.to_le_bytes()]));
        let stream = stream(table.kind, boot, node, 0);
        let seq = first_seq(0, stream.stream)? + number;
        let is_first = !self.numbers.note(stream.clone(), seq, seq + 1).is_empty();
        is_first.then_some((base, RowKey { stream, seq }))
    }
}

fn of_content(table: &Table, row: &Row, content: Digest, node: &str, session: Option<&Session>) -> Option<RowKey> {
    let (boot, epoch) = match table.kind {
        // The beginning of a session and its end are two rows of one run.
        RecordKind::Session => (Digest::of_cells("run", [("", row.cells.first()?)].into_iter()), 0),
        // A process number means something else in another session, and two recordings of a node may share a minute.
        RecordKind::Process | RecordKind::Aggregate => match session {
            Some(session) => (session.digest, content.below(0, CONTENT_EPOCHS)),
            None => (Digest([0; 32]), content.below(0, CONTENT_EPOCHS)),
        },
        _ => (Digest([0; 32]), content.below(0, CONTENT_EPOCHS)),
    };
    // The same number and name in another session is another process.
    let content = if table.kind == RecordKind::Process { content.with(&[&boot.0]) } else { content };
    let stream = stream(table.kind, boot.with(&[node.as_bytes(), table.name.as_bytes()]), node, epoch);
    let seq = first_seq(epoch, stream.stream)? + content.below(8, SEQS_MAX);
    Some(RowKey { stream, seq })
}

fn stream(kind: RecordKind, boot: Digest, node: &str, epoch: i64) -> StreamId {
    StreamId { node: node.into(), boot_id: boot.boot_id(), epoch, stream: Stream::of(kind) }
}

#[cfg(test)]
mod tests;
