//! Cells of an answer by the names of its columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

/// Cells of a batch by column name; `None` for null and for a column of another type.
pub(crate) struct Columns<'a>(pub(crate) &'a RecordBatch);

impl Columns<'_> {
    pub(crate) fn text(&self, name: &str, row: usize) -> Option<String> {
        // The engine reads every text and dictionary of a table as a view: another layout is another type of column.
        let column = self.0.column_by_name(name)?.as_string_view_opt()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    }

    pub(crate) fn long(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub(crate) fn int(&self, name: &str, row: usize) -> Option<i32> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Unix microseconds.
    pub(crate) fn time_us(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    /// Unix milliseconds.
    pub(crate) fn time_ms(&self, name: &str, row: usize) -> Option<i64> {
        // Rounds towards the past, also before 1970, where `/` would round towards 1970.
        self.time_us(name, row).map(|us| us.div_euclid(1_000))
    }

    pub(crate) fn flag(&self, name: &str, row: usize) -> Option<bool> {
        let column = self.0.column_by_name(name)?.as_boolean_opt()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub(crate) fn double(&self, name: &str, row: usize) -> Option<f64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }
}
