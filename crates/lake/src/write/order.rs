//! Brings the rows of one file into the table's sort order. Input usually is a few batches, each sorted already: then
//! the batches are put in order and no row is moved.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::error::ArrowError;
use arrow::row::{Row, RowConverter, Rows, SortField};

/// The rows of the batches in ascending order of the columns, nulls first.
pub(super) fn sort(mut batches: Vec<RecordBatch>, columns: &[usize]) -> Result<Vec<RecordBatch>, ArrowError> {
    batches.retain(|batch| batch.num_rows() > 0);
    let Some(first) = batches.first() else { return Ok(batches) };
    if columns.is_empty() {
        return Ok(batches);
    }
    let schema = first.schema();
    let fields = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
    // Arrow's row format: keys of several columns compare as bytes. The default options are ascending, nulls first.
    let converter = RowConverter::new(fields)?;
    let keys = batches.iter().map(|batch| keys_of(&converter, batch, columns)).collect::<Result<Vec<_>, _>>()?;
    if let Some(order) = order_of_sorted_runs(&keys) {
        return Ok(order.into_iter().filter_map(|i| batches.get(i).cloned()).collect());
    }
    let all = concat_batches(&schema, &batches)?;
    // Three copies of the rows at once would be the peak of a whole commit.
    drop((batches, keys));
    let keys = keys_of(&converter, &all, columns)?;
    // `take` gets 32-bit indices, half as large as 64-bit ones.
    let rows = u32::try_from(all.num_rows()).map_err(|_| ArrowError::ComputeError("more than 4 G rows".into()))?;
    let mut order: Vec<u32> = (0..rows).collect();
    // Stable, and fast on runs that are sorted already.
    order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    Ok(vec![take_record_batch(&all, &UInt32Array::from(order))?])
}

fn keys_of(converter: &RowConverter, batch: &RecordBatch, columns: &[usize]) -> Result<Rows, ArrowError> {
    let columns: Vec<_> = columns.iter().map(|i| batch.column(*i).clone()).collect();
    converter.convert_columns(&columns)
}

/// The order of the batches that makes the whole sorted, when there is one.
fn order_of_sorted_runs(keys: &[Rows]) -> Option<Vec<usize>> {
    if !keys.iter().all(is_sorted) {
        return None;
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| ends(&keys[*a]).cmp(&ends(&keys[*b])));
    // Runs that overlap have no such order and are sorted row by row.
    let follows = order.windows(2).all(|pair| {
        let (_, last) = ends(&keys[pair[0]]);
        let (first, _) = ends(&keys[pair[1]]);
        last <= first
    });
    follows.then_some(order)
}

fn is_sorted(rows: &Rows) -> bool {
    (1..rows.num_rows()).all(|i| rows.row(i - 1) <= rows.row(i))
}

/// The first and the last key of a batch, which is not empty.
fn ends(rows: &Rows) -> (Row<'_>, Row<'_>) {
    // Does not underflow: empty batches were removed at the beginning of `sort`.
    (rows.row(0), rows.row(rows.num_rows() - 1))
}

#[cfg(test)]
mod tests;
