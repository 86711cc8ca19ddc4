//! The columns of a batch of a table, by type.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use event_schema::stream::Stream;

use crate::error::FactsError;

/// The columns of a batch by type.
pub(crate) struct Columns<'a> {
    table: &'a str,
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    /// Of a batch of a table.
    pub(crate) fn of(table: &'a str, batch: &'a RecordBatch) -> Self {
        Self { table, batch }
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    fn wrong(&self, at: usize) -> FactsError {
        FactsError::Column { table: self.table.to_owned(), column: self.batch.schema_ref().field(at).name().clone() }
    }

    pub(crate) fn int(&self, at: usize) -> Result<&'a [i32], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int32Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(crate) fn long(&self, at: usize) -> Result<&'a [i64], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Int64Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(crate) fn float(&self, at: usize) -> Result<&'a [f32], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<Float32Type>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    pub(crate) fn micros(&self, at: usize) -> Result<&'a [i64], FactsError> {
        let column = self.batch.column(at).as_primitive_opt::<TimestampMicrosecondType>();
        column.map(|c| &c.values()[..]).ok_or_else(|| self.wrong(at))
    }

    /// The stream that a row's number names.
    pub(crate) fn stream(&self, number: i32) -> Result<Stream, FactsError> {
        Stream::from_number(number).ok_or_else(|| FactsError::Stream { table: self.table.to_owned(), number })
    }

    /// Null reads as empty.
    pub(crate) fn text(&self, at: usize) -> Result<Vec<&'a str>, FactsError> {
        let column = self.batch.column(at).as_string_opt::<i32>().ok_or_else(|| self.wrong(at))?;
        Ok((0..column.len()).map(|row| if column.is_null(row) { "" } else { column.value(row) }).collect())
    }
}
