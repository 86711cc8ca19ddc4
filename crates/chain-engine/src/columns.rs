//! A typed view of a batch of `silver.events` rows. Columns are found by name, whatever their order and string
//! encoding, so that the engine accepts batches from Parquet, DataFusion or the wire.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use thiserror::Error;

use crate::observation::Observation;

/// The columns the engine reads; project these.
pub const COLUMNS: [&str; 20] = [
    "event_id",
    "cluster",
    "node",
    "boot_id",
    "ts_ns",
    "boot_ns",
    "clock_error_ns",
    "source",
    "op",
    "duration_ns",
    "pid",
    "tid",
    "rank",
    "world_size",
    "job_id",
    "arg0",
    "arg1",
    "bytes",
    "peer_comm",
    "peer_pid",
];

/// Why a batch cannot be read.
#[derive(Debug, Error)]
pub enum ColumnError {
    #[error("column {column} is missing; select it")]
    Missing { column: &'static str },
    #[error("column {column} has type {found}; {wanted} is needed")]
    Type { column: &'static str, found: DataType, wanted: &'static str },
    #[error("column {column} is null in row {row}; it must have a value")]
    Null { column: &'static str, row: usize },
    #[error("column {column} cannot be read")]
    Read {
        column: &'static str,
        #[source]
        source: ArrowError,
    },
}

/// The columns of one batch.
pub(crate) struct Columns {
    rows: usize,
    event_id: StringViewArray,
    cluster: StringViewArray,
    node: StringViewArray,
    boot_id: StringViewArray,
    ts_ns: Int64Array,
    boot_ns: Int64Array,
    clock_error_ns: Int64Array,
    source: Int64Array,
    op: Int64Array,
    duration_ns: Int64Array,
    pid: Int64Array,
    tid: Int64Array,
    rank: Int64Array,
    world_size: Int64Array,
    job_id: StringViewArray,
    arg0: Int64Array,
    arg1: Int64Array,
    bytes: Int64Array,
    peer_comm: StringViewArray,
    peer_pid: Int64Array,
}

impl Columns {
    pub(crate) fn of(batch: &RecordBatch) -> Result<Self, ColumnError> {
        Ok(Self {
            rows: batch.num_rows(),
            event_id: required(batch, "event_id", text)?,
            cluster: required(batch, "cluster", text)?,
            node: required(batch, "node", text)?,
            boot_id: required(batch, "boot_id", text)?,
            ts_ns: required(batch, "ts_ns", integer)?,
            boot_ns: required(batch, "boot_ns", integer)?,
            clock_error_ns: required(batch, "clock_error_ns", integer)?,
            source: required(batch, "source", integer)?,
            op: required(batch, "op", integer)?,
            // Not `required`: null is a value of its own here, a duration that was not measured.
            duration_ns: integer(batch, "duration_ns")?,
            pid: required(batch, "pid", integer)?,
            tid: required(batch, "tid", integer)?,
            rank: integer(batch, "rank")?,
            world_size: integer(batch, "world_size")?,
            job_id: text(batch, "job_id")?,
            arg0: required(batch, "arg0", integer)?,
            arg1: required(batch, "arg1", integer)?,
            bytes: integer(batch, "bytes")?,
            peer_comm: text(batch, "peer_comm")?,
            peer_pid: integer(batch, "peer_pid")?,
        })
    }

    pub(crate) fn observations(&self) -> impl Iterator<Item = Observation<'_>> {
        (0..self.rows).map(|row| Observation {
            event_id: self.event_id.value(row),
            cluster: self.cluster.value(row),
            node: self.node.value(row),
            boot_id: self.boot_id.value(row),
            ts_ns: self.ts_ns.value(row),
            boot_ns: self.boot_ns.value(row),
            clock_error_ns: self.clock_error_ns.value(row),
            source: narrow(self.source.value(row)),
            op: narrow(self.op.value(row)),
            duration_ns: optional(&self.duration_ns, row),
            pid: narrow(self.pid.value(row)),
            tid: narrow(self.tid.value(row)),
            rank: optional(&self.rank, row).map(narrow),
            world_size: optional(&self.world_size, row).map(narrow),
            job_id: optional_text(&self.job_id, row),
            arg0: self.arg0.value(row),
            arg1: self.arg1.value(row),
            bytes: optional(&self.bytes, row),
            peer_comm: optional_text(&self.peer_comm, row),
            peer_pid: optional(&self.peer_pid, row).map(narrow),
        })
    }
}

pub(crate) fn required<A: Array>(
    batch: &RecordBatch,
    column: &'static str,
    read: fn(&RecordBatch, &'static str) -> Result<A, ColumnError>,
) -> Result<A, ColumnError> {
    let array = read(batch, column)?;
    match (0..array.len()).find(|&row| array.null_count() > 0 && array.is_null(row)) {
        Some(row) => Err(ColumnError::Null { column, row }),
        None => Ok(array),
    }
}

pub(crate) fn text(batch: &RecordBatch, column: &'static str) -> Result<StringViewArray, ColumnError> {
    // A view shares the bytes of its strings and unpacks a dictionary to one entry per row.
    let array = convert(batch, column, (is_text, "text"), &DataType::Utf8View)?;
    array.as_string_view_opt().cloned().ok_or_else(|| mistyped(column, &array, "text"))
}

/// Whether a column holds text, in any encoding.
fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_plain_text(values),
        other => is_plain_text(other),
    }
}

fn is_plain_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(crate) fn integer(batch: &RecordBatch, column: &'static str) -> Result<Int64Array, ColumnError> {
    let array = convert(batch, column, (DataType::is_signed_integer, "a signed integer"), &DataType::Int64)?;
    array.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| mistyped(column, &array, "a signed integer"))
}

fn convert(
    batch: &RecordBatch,
    column: &'static str,
    (fits, wanted): (impl Fn(&DataType) -> bool, &'static str),
    into: &DataType,
) -> Result<ArrayRef, ColumnError> {
    let array = batch.column_by_name(column).ok_or(ColumnError::Missing { column })?;
    // Before the cast: Arrow would parse numbers out of text and turn what does not parse into null.
    if !fits(array.data_type()) {
        return Err(mistyped(column, array, wanted));
    }
    cast(array, into).map_err(|source| ColumnError::Read { column, source })
}

fn mistyped(column: &'static str, array: &ArrayRef, wanted: &'static str) -> ColumnError {
    ColumnError::Type { column, found: array.data_type().clone(), wanted }
}

fn optional(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

fn optional_text(array: &StringViewArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

/// Columns that are `int` in the table; a wider value is no value of theirs, and -1 names nothing.
pub(crate) fn narrow(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(-1)
}

#[cfg(test)]
mod tests;
