//! The list of tables, and how a batch of arrivals becomes the rows of each.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::position::{Message, OffsetRange};

use crate::arrival::Arrival;
use crate::def::TableDef;
use crate::{bronze, gold, ops, silver};

/// Turns arrivals into rows. `ingested_us` is the time of landing, unix microseconds; the same for the whole batch.
///
/// Rows of one arrival come out in its order; a batch with no rows is left out.
pub type MakeRows = fn(&[Arrival], ingested_us: i64) -> Result<Vec<RecordBatch>, ArrowError>;

/// Turns offsets at which the log holds no message into rows.
pub type MakeSkipRows = fn(&[OffsetRange], ingested_us: i64) -> Result<RecordBatch, ArrowError>;

/// Bytes of an arrival that go into a table's rows; 0 when it leaves no row there.
pub type Weigh = fn(&Arrival) -> u64;

/// A table and the way its rows are made.
#[derive(Debug, Clone)]
pub struct Table {
    pub def: TableDef,
    pub make_rows: MakeRows,
    pub weigh: Weigh,
    /// Absent where such offsets leave no row.
    pub make_skip_rows: Option<MakeSkipRows>,
}

impl Table {
    fn new(def: TableDef, make_rows: MakeRows, weigh: Weigh) -> Self {
        Self { def, make_rows, weigh, make_skip_rows: None }
    }
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let ledger = Table::new(ops::ledger::def(), ops::ledger::rows, |_| LEDGER_ROW_BYTES);
    vec![
        Table::new(bronze::messages::def(), bronze::messages::rows, message),
        Table::new(
            silver::def(RecordKind::Event),
            |a, _| silver::rows(RecordKind::Event, a),
            |a| records(RecordKind::Event, a),
        ),
        Table::new(
            silver::def(RecordKind::Stack),
            |a, _| silver::rows(RecordKind::Stack, a),
            |a| records(RecordKind::Stack, a),
        ),
        Table::new(
            silver::def(RecordKind::Process),
            |a, _| silver::rows(RecordKind::Process, a),
            |a| records(RecordKind::Process, a),
        ),
        Table::new(
            silver::def(RecordKind::Session),
            |a, _| silver::rows(RecordKind::Session, a),
            |a| records(RecordKind::Session, a),
        ),
        Table::new(
            silver::def(RecordKind::System),
            |a, _| silver::rows(RecordKind::System, a),
            |a| records(RecordKind::System, a),
        ),
        Table::new(
            silver::def(RecordKind::Cgroup),
            |a, _| silver::rows(RecordKind::Cgroup, a),
            |a| records(RecordKind::Cgroup, a),
        ),
        Table::new(
            silver::def(RecordKind::Aggregate),
            |a, _| silver::rows(RecordKind::Aggregate, a),
            |a| records(RecordKind::Aggregate, a),
        ),
        Table::new(
            silver::def(RecordKind::Chain),
            |a, _| silver::rows(RecordKind::Chain, a),
            |a| records(RecordKind::Chain, a),
        ),
        Table::new(gold::op_minute::def(), gold::op_minute::rows, |a| records(RecordKind::Event, a)),
        Table { make_skip_rows: Some(ops::ledger::skip_rows), ..ledger },
        Table::new(ops::dlq::def(), ops::dlq::rows, dead_letter),
    ]
});

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
