use super::*;
use crate::tests::rows;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

const NODE_AND_TIME: [usize; 2] = [0, 1];

fn seqs(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(2).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn sorted_batches_are_put_in_order_without_moving_rows() {
    let (a, b) = (rows(&[("a", 1, 1), ("a", 2, 2)]), rows(&[("a", 2, 3), ("b", 1, 4)]));
    let sorted = sort(vec![b.clone(), a.clone()], &NODE_AND_TIME).unwrap();
    assert_eq!(seqs(&sorted), [1, 2, 3, 4]);
    assert_eq!(sorted[0].column(2).to_data().buffers()[0].as_ptr(), a.column(2).to_data().buffers()[0].as_ptr());
}

#[test]
fn overlapping_batches_are_merged_by_node_then_time() {
    // Dictionaries differ: key 0 is "b" in one and "a" in the other.
    let (x, y) = (rows(&[("b", 1, 1), ("b", 3, 2)]), rows(&[("a", 9, 3), ("b", 2, 4)]));
    assert_eq!(seqs(&sort(vec![x, y], &NODE_AND_TIME).unwrap()), [3, 1, 4, 2]);
}

#[test]
fn equal_keys_keep_the_order_they_came_in() {
    let batch = rows(&[("b", 1, 1), ("a", 1, 2), ("b", 1, 3), ("a", 1, 4)]);
    assert_eq!(seqs(&sort(vec![batch], &NODE_AND_TIME).unwrap()), [2, 4, 1, 3]);
}

#[test]
fn nulls_come_first() {
    let batch = rows(&[("a", 1, 2), ("a", 2, 3), ("a", 3, 4)]);
    assert_eq!(seqs(&sort(vec![batch], &[3]).unwrap()), [3, 2, 4], "share is null where seq is odd");
}

#[test]
fn no_sort_columns_and_no_rows_are_left_alone() {
    assert!(sort(vec![], &NODE_AND_TIME).unwrap().is_empty());
    assert!(sort(vec![rows(&[])], &NODE_AND_TIME).unwrap().is_empty());
    assert_eq!(seqs(&sort(vec![rows(&[("b", 1, 1), ("a", 1, 2)])], &[]).unwrap()), [1, 2]);
}
