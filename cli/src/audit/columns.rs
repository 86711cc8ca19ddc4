//! The columns of a batch of a table, by type.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use event_schema::stream::Stream;

use super::facts::FactsError;

/// The columns of a batch by type.
pub(super) struct Columns<'a> {
    pub(super) table: String,
    pub(super) batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn wrong(&self, at: usize) -> FactsError {
        FactsError::Column { table: self.table.clone(), column: self.batch.schema_ref().field(at).name().clone() }
    }

    pub(super) fn int(&self, at: usize) -> Result<&'a [i32], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int32Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(super) fn long(&self, at: usize) -> Result<&'a [i64], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int64Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(super) fn float(&self, at: usize) -> Result<&'a [f32], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Float32Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(super) fn micros(&self, at: usize) -> Result<&'a [i64], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<TimestampMicrosecondType>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    /// The stream that a row's number names.
    pub(super) fn stream(&self, number: i32) -> Result<Stream, FactsError> {
        Stream::from_number(number).ok_or_else(|| FactsError::Stream { table: self.table.clone(), number })
    }

    /// Null reads as empty.
    pub(super) fn text(&self, at: usize) -> Result<Vec<&'a str>, FactsError> {
        let column = self.batch.column(at).as_string_opt::<i32>().ok_or_else(|| self.wrong(at))?;
        Ok((0..column.len()).map(|row| if column.is_null(row) { "" } else { column.value(row) }).collect())
    }
}
