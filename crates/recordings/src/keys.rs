//! What identifies an imported row, so that importing it again, from the same file, from one that has grown, or from
//! another that holds it too, changes nothing.
//!
//! Ingest identifies a row by node, boot, epoch, stream and sequence number. An event has a number of its own, counted
//! by the tracer: its boot stands for the session that recorded it, and a recording that has grown, was pruned or
//! merged brings only what has not landed. Every other row is identified by its content: epoch and sequence number are
//! taken from a hash of it. The name of the file is part of no key.

use std::collections::HashMap;
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::{SEQS_MAX, StreamId, first_seq};
use event_schema::kind::RecordKind;
use event_schema::stream::Stream;
use tables::seen::Seen;

use crate::digest::Digest;
use crate::ingero::{Row, Session, Table, event_number};

/// Events without a session are distinguished by the minute in which they began.
const MINUTE_NS: i64 = 60_000_000_000;
/// Epochs over which the rows of a table that are identified by their content are spread. With the 36 bits of a
/// sequence number they make 48 bits of the content's hash: by the birthday bound a collision is expected among some 16
/// million rows, with 36 bits among 260,000. Each epoch is a run of its own to ingest, with a home of its own (ADR 23),
/// so there are no more of them.
const CONTENT_EPOCHS: i64 = 1 << 12;

/// What identifies a row to ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKey {
    pub(crate) stream: StreamId,
    pub(crate) seq: i64,
}

/// For events whose keys are another recording's: boot id → which other boot id they take.
pub(crate) type Alternates = HashMap<Arc<str>, u32>;

/// Gives the rows of one file their keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    alternates: Alternates,
    /// Keys that the file had already.
    numbers: Seen,
    /// How often each content has occurred.
    copies: HashMap<Digest, u32>,
}

impl Keys {
    pub(crate) fn new(alternates: Alternates) -> Self {
        Self { alternates, ..Self::default() }
    }

    /// The key of the next row of a table. `session` is that in which it happened.
    pub(crate) fn of(&mut self, table: &Table, row: &Row, node: &str, session: Option<&Session>) -> Option<RowKey> {
        // An event without a number, or with one that the file had already, is identified by its content like other
        // rows.
        if table.kind == RecordKind::Event
            && let Some((_, key)) = self.of_event(table, row, node, session)
        {
            return Some(key);
        }
        let content = identity_of(table, &row.cells).with(&[node.as_bytes()]);
        // Equal rows of a file are several rows: the count distinguishes them.
        let copy = self.copies.entry(content).and_modify(|copies| *copies += 1).or_insert(0);
        let mut content = content.with(&[&copy.to_le_bytes()]);
        loop {
            let key = of_content(table, row, content, node, session)?;
            if !self.numbers.note(key.stream.clone(), key.seq, key.seq + 1).is_empty() {
                return Some(key);
            }
            // A collision of the hash within the file: ingest would drop one of the two rows. Hashed again until the
            // key is free.
            content = content.with(&[b"again"]);
        }
    }

    /// The key of an event by its number, and the boot id that it has unless that is another recording's; `None` when
    /// it has no number, or one that the file had already.
    pub(crate) fn of_event(
        &mut self,
        table: &Table,
        row: &Row,
        node: &str,
        session: Option<&Session>,
    ) -> Option<(Arc<str>, RowKey)> {
        // The first column of `events` is the id: the order of columns is fixed (`tables.rs`).
        let number = event_number(row.cells.first()?, node)?;
        let recorded = match session {
            Some(session) => session.digest,
            None => {
                // Numbers begin anew with each run of the tracer: the minute separates runs that no session separates.
                let minute = table.time_of(&row.cells)?.div_euclid(MINUTE_NS);
                Digest::of_cells("minute", [("minute", &Value::Long(minute))].into_iter())
            }
        };
        let boot = recorded.with(&[node.as_bytes(), table.name.as_bytes()]);
        let base = boot.boot_id();
        // Another host's recording has this boot id in the lake (`settle.rs`): the file's events take one derived from
        // it.
        let boot = self.alternates.get(&base).map_or(boot, |alternate| boot.with(&[&alternate.to_le_bytes()]));
        let stream = stream(table.kind, boot, node, 0);
        // `event_number` is below `SEQS_MAX`: the sum stays within the bits of the stream and below the next epoch.
        let seq = first_seq(0, stream.stream)? + number;
        let is_first = !self.numbers.note(stream.clone(), seq, seq + 1).is_empty();
        is_first.then_some((base, RowKey { stream, seq }))
    }
}

/// A hash of what identifies a row among those of its table.
fn identity_of(table: &Table, cells: &[Value]) -> Digest {
    let identity = table.columns.iter().zip(cells).filter(|(column, _)| column.is_identity);
    Digest::of_cells(table.name, identity.map(|(column, cell)| (column.name, cell)))
}

fn of_content(table: &Table, row: &Row, content: Digest, node: &str, session: Option<&Session>) -> Option<RowKey> {
    let (boot, epoch) = match table.kind {
        // A session is recorded twice, when it begins and when it has ended: both rows belong to one run, so that its
        // boot id is made of the beginning alone.
        RecordKind::Session => (Digest::of_cells("run", [("", row.cells.first()?)].into_iter()), 0),
        // The kernel reuses process numbers, so that one means another process in another session; and two recordings
        // of a node may share a minute, of which each has a part.
        RecordKind::Process | RecordKind::Aggregate => match session {
            Some(session) => (session.digest, content.below(0, CONTENT_EPOCHS)),
            None => (Digest::NONE, content.below(0, CONTENT_EPOCHS)),
        },
        _ => (Digest::NONE, content.below(0, CONTENT_EPOCHS)),
    };
    // The same number and name in another session is another process.
    let content = if table.kind == RecordKind::Process { content.with_digest(&boot) } else { content };
    let stream = stream(table.kind, boot.with(&[node.as_bytes(), table.name.as_bytes()]), node, epoch);
    // Epoch and number are taken from different bytes of the hash, 0 to 7 and 8 to 15: from the same ones they would
    // depend on each other, and fewer keys would be used.
    let seq = first_seq(epoch, stream.stream)? + content.below(8, SEQS_MAX);
    Some(RowKey { stream, seq })
}

fn stream(kind: RecordKind, boot: Digest, node: &str, epoch: i64) -> StreamId {
    StreamId { node: node.into(), boot_id: boot.boot_id(), epoch, stream: Stream::of(kind) }
}

#[cfg(test)]
mod tests;
