//! The columns of a batch, by name.

use arrow::array::{ArrowPrimitiveType, AsArray, BinaryArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::position::TopicPartition;

/// A column that is absent, or has another type than this version writes.
#[derive(Debug, thiserror::Error)]
#[error("column `{0}` has another type than this version writes")]
pub struct ColumnError(&'static str);

pub(super) fn text<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a StringArray, ColumnError> {
    batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or(ColumnError(name))
}

pub(super) fn binary<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a BinaryArray, ColumnError> {
    batch.column_by_name(name).and_then(|c| c.as_binary_opt::<i32>()).ok_or(ColumnError(name))
}

pub(super) fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a PrimitiveArray<T>, ColumnError> {
    batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<T>()).ok_or(ColumnError(name))
}

/// Where the messages of the rows lie: the columns `log_name`, `log_partition` and `log_offset`.
pub(super) struct Places<'a> {
    log: &'a StringArray,
    partition: &'a PrimitiveArray<Int32Type>,
    offset: &'a PrimitiveArray<Int64Type>,
}

pub(super) const PLACE: [&str; 3] = ["log_name", "log_partition", "log_offset"];

impl<'a> Places<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self, ColumnError> {
        Ok(Self {
            log: text(batch, "log_name")?,
            partition: numbers::<Int32Type>(batch, "log_partition")?,
            offset: numbers::<Int64Type>(batch, "log_offset")?,
        })
    }

    pub(super) fn at(&self, row: usize) -> TopicPartition {
        TopicPartition::new(self.log.value(row), self.partition.value(row))
    }

    pub(super) fn offset(&self, row: usize) -> i64 {
        self.offset.value(row)
    }

    /// Whether a row lies in the same log and partition as another one.
    pub(super) fn is_same_log(&self, row: usize, other: usize) -> bool {
        self.partition.value(row) == self.partition.value(other) && self.log.value(row) == self.log.value(other)
    }
}
