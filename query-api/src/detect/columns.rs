//! Cells of an answer by the names of its columns.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use serde::Deserialize;

/// Cells of a batch by column name; `None` for null and for a column of another type.
pub(super) struct Columns<'a>(pub(super) &'a RecordBatch);

impl Columns<'_> {
    pub(super) fn text(&self, name: &str, row: usize) -> Option<String> {
        let column = self.0.column_by_name(name)?.as_string_view_opt()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    }

    pub(super) fn long(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub(super) fn int(&self, name: &str, row: usize) -> Option<i32> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub(super) fn double(&self, name: &str, row: usize) -> Option<f64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    pub(super) fn json<T: for<'de> Deserialize<'de>>(&self, name: &str, row: usize) -> Option<T> {
        serde_json::from_str(&self.text(name, row)?).ok()
    }
}
