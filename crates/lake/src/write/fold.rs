//! Makes one row of several with equal sort keys, in a stream of sorted rows. What is done to the rows belongs to the
//! table; here they are held back until all rows of a key are there.

use std::mem::take;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// Gets rows in the table's sort order, all rows of each sort key among them, and returns rows in the same order.
pub type FoldRows = fn(&RecordBatch) -> Result<RecordBatch, ArrowError>;

/// The rows of the sort key that is not complete yet.
#[derive(Debug)]
pub(super) struct Folding {
    fold: FoldRows,
    schema: SchemaRef,
    converter: RowConverter,
    columns: Vec<usize>,
    held: Vec<RecordBatch>,
    /// Of the rows that are held.
    key: Vec<u8>,
}

impl Folding {
    /// A fold of rows that come sorted by the columns, at least one.
    pub(super) fn new(fold: FoldRows, schema: &SchemaRef, columns: &[usize]) -> Result<Self, ArrowError> {
        let fields: Vec<_> = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
        Ok(Self {
            fold,
            schema: SchemaRef::clone(schema),
            converter: RowConverter::new(fields)?,
            columns: columns.to_vec(),
            held: Vec::new(),
            key: Vec::new(),
        })
    }

    /// Takes the next rows and returns those that became complete, folded.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        // Keys of rows compare as bytes, also with those of the batch before (Arrow's row format).
        let columns: Vec<_> = self.columns.iter().map(|i| batch.column(*i).clone()).collect();
        let keys = self.converter.convert_columns(&columns)?;
        let last = keys.row(keys.num_rows() - 1);
        // Bisection, because the rows are sorted.
        let rows: Vec<usize> = (0..keys.num_rows()).collect();
        let start = rows.partition_point(|row| keys.row(*row) < last);
        let is_same_key = start == 0 && self.key == last.as_ref();
        self.key = last.as_ref().to_vec();
        if start > 0 {
            self.held.push(batch.slice(0, start));
        }
        // All that is held belongs to keys that end here, unless this batch goes on with the key.
        let complete = if is_same_key { None } else { self.finish()? };
        self.held.push(batch.slice(start, batch.num_rows() - start));
        Ok(complete)
    }

    /// Folds what is held; `None` when nothing is.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.held.is_empty() {
            return Ok(None);
        }
        // One batch: the fold sees all rows of a key, wherever they were cut.
        let rows = concat_batches(&self.schema, &take(&mut self.held))?;
        (self.fold)(&rows).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::tests::{def, rows};

    fn key(batch: &RecordBatch, row: usize) -> Result<Vec<u8>, ArrowError> {
        let columns = [batch.column(0).slice(row, 1), batch.column(1).slice(row, 1)];
        let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        Ok(RowConverter::new(fields)?.convert_columns(&columns)?.row(0).as_ref().to_vec())
    }

    /// Keeps the last row of each (node, ts).
    fn last_of_each(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut kept = Vec::new();
        for row in 0..batch.num_rows() {
            if row + 1 == batch.num_rows() || key(batch, row)? != key(batch, row + 1)? {
                kept.push(batch.slice(row, 1));
            }
        }
        concat_batches(&batch.schema(), &kept)
    }

    fn folded(batches: &[RecordBatch]) -> Vec<i64> {
        let mut folding = Folding::new(last_of_each, &def().arrow_schema(), &[0, 1]).unwrap();
        let mut found: Vec<RecordBatch> = Vec::new();
        for batch in batches {
            found.extend(folding.push(batch.clone()).unwrap());
        }
        found.extend(folding.finish().unwrap());
        assert!(folding.finish().unwrap().is_none());
        found.iter().flat_map(|b| b.column(2).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn all_rows_of_a_key_are_folded_at_once_however_they_are_cut_into_batches() {
        let all =
            [("a", 1, 1), ("a", 1, 2), ("a", 2, 3), ("b", 1, 4), ("b", 1, 5), ("b", 1, 6), ("b", 1, 7), ("c", 0, 8)];
        for size in 1..=all.len() {
            let batches: Vec<_> = all.chunks(size).map(rows).collect();
            assert_eq!(folded(&batches), [2, 3, 7, 8], "batches of {size}");
        }
        assert_eq!(folded(&[]), [] as [i64; 0]);
        assert_eq!(folded(&[rows(&[])]), [] as [i64; 0]);
    }
}
