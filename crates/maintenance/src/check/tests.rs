use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use proptest::prelude::*;
use tables::def::{ColumnType, Partition, TableName, column};

use super::*;

fn def() -> TableDef {
    TableDef {
        name: TableName { namespace: "silver", name: "t" },
        doc: "rows of the tests",
        columns: vec![
            column(7, "node", ColumnType::String, "").word(),
            column(2, "ts", ColumnType::Timestamptz, ""),
            column(4, "seq", ColumnType::Long, ""),
            column(9, "share", ColumnType::Double, "").optional(),
            column(11, "id", ColumnType::String, "").optional(),
        ],
        partition: Partition::Day("ts"),
        sort: &["node", "ts"],
        tiers: false,
    }
}

/// One row: number of the node, time, number; `share` is null for odd numbers.
type Row = (u8, i64, i64);

fn rows(rows: &[Row]) -> RecordBatch {
    let node: DictionaryArray<Int32Type> = rows.iter().map(|r| Some(["a", "b", "c"][usize::from(r.0) % 3])).collect();
    let ts = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("+00:00");
    let seq = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
    let share: Float64Array = rows.iter().map(|r| (r.2 % 2 == 0).then_some(r.2 as f64 / 2.0)).collect();
    let id: StringArray = rows.iter().map(|r| Some(format!("{}:{}", r.0, r.2))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(node), Arc::new(ts), Arc::new(seq), Arc::new(share), Arc::new(id)];
    RecordBatch::try_new(def().arrow_schema(), columns).unwrap()
}

fn kept(batches: &[RecordBatch]) -> Kept {
    let mut kept = Kept::new(&def(), false);
    batches.iter().for_each(|batch| kept.add(batch).unwrap());
    kept
}

fn taken(rows: &RecordBatch, indices: impl IntoIterator<Item = u32>) -> RecordBatch {
    take_record_batch(rows, &UInt32Array::from_iter_values(indices)).unwrap()
}

fn with_column(rows: &RecordBatch, at: usize, column: ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

proptest! {
    #[test]
    fn the_order_of_rows_and_their_batches_do_not_matter(
        all in proptest::collection::vec((0..3_u8, 0..50_i64, 0..100_i64), 1..60),
        shift in 0..60_usize,
        size in 1..20_usize,
    ) {
        let whole = rows(&all);
        let count = all.len() as u32;
        let turned = taken(&whole, (0..count).map(|i| (i + shift as u32) % count));
        let pieces: Vec<_> = (0..all.len()).step_by(size).map(|i| turned.slice(i, size.min(all.len() - i))).collect();
        prop_assert_eq!(kept(std::slice::from_ref(&whole)).compare(&kept(&pieces)), Ok(()));
    }

    #[test]
    fn one_row_that_is_lost_doubled_or_altered_is_found(
        all in proptest::collection::vec((0..3_u8, 0..50_i64, 0..100_i64), 2..60),
        at in 0..60_usize,
        column in 0..3_usize,
    ) {
        let at = at % all.len();
        let read = kept(&[rows(&all)]);
        let mut lost = all.clone();
        lost.remove(at);
        let mut doubled = all.clone();
        doubled[(at + 1) % all.len()] = all[at];
        let mut altered = all.clone();
        match column {
            0 => altered[at].0 = (altered[at].0 + 1) % 3,
            1 => altered[at].1 += 1,
            _ => altered[at].2 += 2,
        }
        prop_assert!(read.compare(&kept(&[rows(&lost)])).is_err());
        prop_assert!(read.compare(&kept(&[rows(&altered)])).is_err());
        if all[(at + 1) % all.len()] != all[at] {
            prop_assert!(read.compare(&kept(&[rows(&doubled)])).is_err(), "as many rows, one of them twice");
        }
    }
}

#[test]
fn a_difference_names_what_differs() {
    let whole = rows(&[(0, 1, 10), (0, 2, 12), (1, 3, 14), (1, 4, 16)]);
    let read = kept(std::slice::from_ref(&whole));
    let differs = |written: RecordBatch| read.compare(&kept(&[written])).unwrap_err();
    assert_eq!(differs(taken(&whole, [0, 1, 2])), Difference::Rows { read: 4, written: 3 });
    let nulls: Float64Array = [Some(5.0), None, Some(7.0), Some(8.0)].into_iter().collect();
    assert_eq!(
        differs(with_column(&whole, 3, Arc::new(nulls))),
        Difference::Nulls { column: "share", read: 0, written: 1 }
    );
    let late = rows(&[(0, 1, 10), (0, 2, 12), (1, 3, 14), (1, 5, 16)]);
    assert_eq!(differs(late), Difference::Bounds { column: "ts" });
    let moved = rows(&[(0, 1, 10), (0, 2, 12), (0, 3, 14), (1, 4, 16)]);
    assert_eq!(differs(moved), Difference::NodeRows { node: "a".to_owned(), read: 2, written: 3 });
    let share: Float64Array = [5.0, 6.0, 7.5, 8.0].into_iter().map(Some).collect();
    assert_eq!(differs(with_column(&whole, 3, Arc::new(share))), Difference::Values { column: "share" });
    // Every column has the values it had, and each node its rows: two values changed places.
    let exchanged: Float64Array = [6.0, 5.0, 7.0, 8.0].into_iter().map(Some).collect();
    assert_eq!(differs(with_column(&whole, 3, Arc::new(exchanged))), Difference::Node { node: "a".to_owned() });
}

#[test]
fn a_column_that_a_file_does_not_have_is_as_one_of_nulls() {
    let whole = rows(&[(0, 1, 10), (1, 2, 12)]);
    let added = with_column(&whole, 4, Arc::new(StringArray::new_null(2)));
    let absent = with_column(&whole, 4, arrow::array::new_null_array(&arrow::datatypes::DataType::Utf8, 2));
    assert_eq!(kept(&[added]).compare(&kept(&[absent])), Ok(()));
}

#[test]
fn rows_of_other_columns_are_no_rows_of_the_table() {
    let narrow = rows(&[(0, 1, 10)]).project(&[0, 1]).unwrap();
    assert!(Kept::new(&def(), false).add(&narrow).is_err());
    let other = Kept::new(&def(), true);
    assert_eq!(kept(&[]).compare(&other), Err(Difference::Kind));
    assert_eq!(kept(&[concat_batches(&def().arrow_schema(), &[]).unwrap()]).rows(), 0);
}
