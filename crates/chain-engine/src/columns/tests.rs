//! Batches that do not fit are refused by name.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array};

use super::*;
use crate::fixture::{Job, batch};

fn some_batch() -> RecordBatch {
    batch(&Job::default().rows()[..20])
}

fn with(column: &str, array: ArrayRef) -> RecordBatch {
    let batch = some_batch();
    let columns = COLUMNS.map(|name| {
        let own = batch.column_by_name(name).expect("a column of the fixture");
        (name, if name == column { Arc::clone(&array) } else { Arc::clone(own) }, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of equal length")
}

fn refusal(batch: &RecordBatch) -> String {
    Columns::of(batch).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_missing_column_is_named() {
    let batch = some_batch();
    let index = batch.schema().index_of("boot_ns").expect("a column of the fixture");
    let mut kept: Vec<usize> = (0..batch.num_columns()).collect();
    kept.remove(index);
    assert_eq!(refusal(&batch.project(&kept).expect("indexes")), "column boot_ns is missing; select it");
}

#[test]
fn a_column_of_another_type_is_named_with_both_types() {
    let floats = Arc::new(Float64Array::from(vec![0.5; 20]));
    assert_eq!(refusal(&with("ts_ns", floats.clone())), "column ts_ns has type Float64; a signed integer is needed");
    assert_eq!(refusal(&with("node", floats)), "column node has type Float64; text is needed");
}

#[test]
fn a_null_where_a_value_must_be_is_named_with_its_row() {
    let mut values = vec![Some(1); 20];
    values[7] = None;
    let column = Arc::new(Int64Array::from(values));
    assert_eq!(refusal(&with("op", column.clone())), "column op is null in row 7; it must have a value");
    assert_eq!(refusal(&with("rank", column)), "", "a rank may be unknown");
}

#[test]
fn wider_integers_fit() {
    let wide = Arc::new(Int64Array::from((0..20).map(|n| n + i64::from(i32::MAX)).collect::<Vec<_>>()));
    let columns = Columns::of(&with("pid", wide)).expect("an integer column");
    let pids: Vec<i32> = columns.observations().map(|row| row.pid).collect();
    assert_eq!(pids[..2], [i32::MAX, -1], "a pid beyond 32 bits is no pid");
}
