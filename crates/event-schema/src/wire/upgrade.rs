//! Rows of an earlier wire version as rows of the current one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::{Decoded, Header, VERSION};
use crate::catalog::{Op, Timing};
use crate::kind::RecordKind;

/// The first version in which a duration may be null.
const NULL_DURATIONS: u16 = 2;

/// A batch of the current version.
pub(super) struct Upgraded {
    batch: RecordBatch,
    /// Memory of the columns that were made here.
    made_bytes: usize,
}

impl Upgraded {
    /// The message with these rows. `raw_bytes` is the size of its decompressed body, which holds the columns that were
    /// not made here.
    pub(super) fn decoded(self, header: Header, raw_bytes: usize) -> Decoded {
        // `boot_ns` was made anew when its differences were added up.
        let boot_ns_bytes = self.batch.num_rows() * size_of::<i64>();
        Decoded { header, batch: self.batch, batch_bytes: raw_bytes + boot_ns_bytes + self.made_bytes }
    }
}

/// Gives a batch the schema of the current version: a column that its version does not have is null. Version 1 wrote 0
/// for a duration that was not measured, see [`without_unmeasured`].
pub(super) fn upgrade(kind: RecordKind, version: u16, batch: RecordBatch) -> Result<Upgraded, ArrowError> {
    // The usual case costs nothing: the columns stay slices of the decompressed body.
    if version == VERSION {
        return Ok(Upgraded { batch, made_bytes: 0 });
    }
    let schema = kind.wire_schema();
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let mut made_bytes = 0;
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            // Every field added since version 1 is nullable, so that null is allowed and means "not recorded then".
            None => new_null_array(field.data_type(), rows),
        };
        columns.push(column);
    }
    if kind == RecordKind::Event && version < NULL_DURATIONS {
        let durations: ArrayRef = Arc::new(without_unmeasured(&batch)?);
        let weights: ArrayRef = Arc::new(weights_of(&batch, &durations)?);
        for (name, column) in [("duration_ns", durations), ("duration_weight", weights)] {
            columns[schema.index_of(name)?] = column;
        }
    }
    for (field, column) in schema.fields().iter().zip(&columns) {
        // The same allocation and not an equal one: only what was made here takes memory of its own.
        let is_carried = batch.column_by_name(field.name()).is_some_and(|carried| Arc::ptr_eq(carried, column));
        made_bytes += if is_carried { 0 } else { column.get_array_memory_size() };
    }
    Ok(Upgraded { batch: RecordBatch::try_new(schema, columns)?, made_bytes })
}

/// The durations of a batch of version 1, in which 0 also stood for one that was not measured: a 0 of an operation that
/// is not timed is null here. Imported events keep it: the system they come from has timed them.
fn without_unmeasured(batch: &RecordBatch) -> Result<Int64Array, ArrowError> {
    let durations = column(batch, "duration_ns")?.as_primitive::<Int64Type>();
    let sources = column(batch, "source")?.as_primitive::<Int32Type>();
    let ops = column(batch, "op")?.as_primitive::<Int32Type>();
    let imported_ids = column(batch, "source_id")?;
    let measured = (0..batch.num_rows()).map(|row| {
        let ns = durations.value(row);
        let is_measured = ns != 0 || imported_ids.is_valid(row) || is_timed(sources.value(row), ops.value(row));
        (durations.is_valid(row) && is_measured).then_some(ns)
    });
    Ok(measured.collect())
}

/// Whether each event of an operation is timed. An operation that is not in the catalogue is of another build: its
/// zeros are kept.
fn is_timed(source: i32, op: i32) -> bool {
    Op::from_numbers(source, op).is_none_or(|op| op.timing() == Timing::Each)
}

/// Each duration of version 1 stands for as many events as its row.
fn weights_of(batch: &RecordBatch, durations: &ArrayRef) -> Result<Float32Array, ArrowError> {
    let weights = column(batch, "sample_weight")?.as_primitive::<Float32Type>();
    Ok((0..batch.num_rows()).map(|row| durations.is_valid(row).then(|| weights.value(row))).collect())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("a batch of events has no `{name}`")))
}
