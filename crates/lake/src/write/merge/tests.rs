use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use proptest::prelude::*;

use super::*;
use crate::tests::{def, rows};
use crate::write::order;

const NODE_AND_TIME: [usize; 2] = [0, 1];

/// All merged rows. Inputs are sequences of batches.
fn merged(inputs: Vec<Vec<RecordBatch>>, columns: &[usize]) -> Result<Vec<RecordBatch>, Refused> {
    let mut merge = Merge::new(&def().arrow_schema(), columns, inputs.len()).unwrap();
    let mut inputs: Vec<_> = inputs.into_iter().map(Vec::into_iter).collect();
    let mut found = Vec::new();
    loop {
        while let Some(input) = merge.wanted() {
            match inputs[input].next() {
                Some(batch) => merge.give(input, batch)?,
                None => merge.end(input),
            }
        }
        match merge.next().unwrap() {
            Some(batch) => found.push(batch),
            None => return Ok(found),
        }
    }
}

fn seqs(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(2).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn inputs_are_merged_by_node_then_time_and_equal_keys_in_the_order_of_the_inputs() {
    // Dictionaries differ: key 0 is "b" in one and "a" in the other.
    let x = vec![rows(&[("b", 1, 1)]), rows(&[]), rows(&[("b", 3, 2), ("c", 1, 3)])];
    let y = vec![rows(&[("a", 9, 4), ("b", 2, 5), ("b", 3, 6)])];
    assert_eq!(seqs(&merged(vec![x, vec![], y], &NODE_AND_TIME).unwrap()), [4, 1, 5, 2, 6, 3]);
}

/// Rows of one node, one microsecond apart.
fn stretch(from: i64, count: i64) -> RecordBatch {
    rows(&(from..from + count).map(|seq| ("a", seq, seq)).collect::<Vec<_>>())
}

#[test]
fn long_runs_of_one_input_are_not_copied() {
    let long = LONG_RUN as i64;
    let x = stretch(0, 2 * long);
    let y = stretch(2 * long, 10);
    let z = vec![stretch(2 * long + 10, long), stretch(4 * long, long)];
    let found = merged(vec![vec![y, stretch(3 * long + 10, 5)], z, vec![x.clone()]], &NODE_AND_TIME).unwrap();
    assert_eq!(found[0], x);
    // Shared with the input, and no copy of it.
    let values = |batch: &RecordBatch| batch.column(2).as_primitive::<Int64Type>().values().as_ptr();
    assert_eq!(values(&found[0]), values(&x));
    let all = seqs(&found);
    assert!(all.is_sorted());
    assert_eq!(all.len() as i64, 4 * long + 15);
}

#[test]
fn nulls_come_first_and_without_a_sort_order_inputs_follow_one_another() {
    let inputs = || vec![vec![rows(&[("a", 1, 3), ("a", 2, 4)])], vec![rows(&[("a", 3, 1), ("a", 4, 2)])]];
    assert_eq!(seqs(&merged(inputs(), &[3]).unwrap()), [3, 1, 2, 4], "share is null where seq is odd");
    assert_eq!(seqs(&merged(inputs(), &[]).unwrap()), [3, 4, 1, 2]);
    assert!(merged(vec![], &NODE_AND_TIME).unwrap().is_empty());
}

#[test]
fn an_input_that_is_not_sorted_is_refused_within_and_across_batches() {
    let within = vec![rows(&[("b", 1, 1), ("a", 2, 2)])];
    let across = vec![rows(&[("b", 1, 1)]), rows(&[("a", 2, 2)])];
    // Above the first row of the batch before, and below its last one.
    let between = vec![rows(&[("a", 1, 1), ("c", 1, 2)]), rows(&[("b", 1, 3)])];
    for input in [within, across, between] {
        assert!(matches!(merged(vec![input], &NODE_AND_TIME), Err(Refused::NotSorted)));
    }
}

#[test]
fn a_batch_that_is_larger_than_the_output_comes_out_in_several() {
    let many: Vec<_> = (0..20_000).map(|seq| ("a", seq, seq)).collect();
    let found = merged(vec![vec![rows(&[("b", 0, 20_000)])], vec![rows(&many)]], &NODE_AND_TIME).unwrap();
    assert!(found.len() > 2 && found.iter().all(|batch| batch.num_rows() <= OUTPUT_ROWS), "{} batches", found.len());
    assert_eq!(seqs(&found), (0..=20_000).collect::<Vec<_>>());
}

#[test]
fn memory_is_that_of_the_batches_that_are_open() {
    let mut merge = Merge::new(&def().arrow_schema(), &NODE_AND_TIME, 2).unwrap();
    let batch = rows(&[("a", 1, 1), ("a", 2, 2)]);
    merge.give(0, batch.clone()).unwrap();
    let one = merge.memory_bytes();
    assert!(one > batch_bytes(&batch));
    merge.give(1, batch.clone()).unwrap();
    assert_eq!(merge.memory_bytes(), 2 * one);
    merge.next().unwrap();
    assert_eq!((merge.wanted(), merge.memory_bytes()), (Some(0), one));
}

#[test]
fn columns_that_share_a_buffer_count_once() {
    let batch = rows(&(0..1_000).map(|seq| ("a", seq, seq)).collect::<Vec<_>>());
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let read = StreamReader::try_new(&bytes[..], None).unwrap().next().unwrap().unwrap();
    assert_eq!(batch_bytes(&read), batch_bytes(&batch));
    assert!(read.get_array_memory_size() > 2 * batch_bytes(&read), "its buffers would count several times");
}

/// Sorted rows cut into batches: few nodes and times, so that many keys are equal.
fn input() -> impl Strategy<Value = Vec<Vec<(char, i64)>>> {
    let row = (proptest::char::range('a', 'd'), 0..6_i64);
    (prop::collection::vec(row, 0..40), 1..12_usize).prop_map(|(mut rows, size)| {
        rows.sort();
        rows.chunks(size).map(<[_]>::to_vec).collect()
    })
}

proptest! {
    #[test]
    fn a_merge_is_the_stable_sort_of_all_rows(inputs in prop::collection::vec(input(), 1..9)) {
        let mut seq = 0;
        let inputs: Vec<Vec<RecordBatch>> = inputs
            .iter()
            .map(|batches| {
                let batches = batches.iter().map(|batch| {
                    let names: Vec<_> = batch.iter().map(|(node, ts)| (node.to_string(), *ts)).collect();
                    let numbered = names.iter().map(|(node, ts)| {
                        seq += 1;
                        (node.as_str(), *ts, seq)
                    });
                    rows(&numbered.collect::<Vec<_>>())
                });
                batches.collect()
            })
            .collect();
        let all: Vec<_> = inputs.iter().flatten().cloned().collect();
        let all = concat_batches(&def().arrow_schema(), &all).unwrap();
        let sorted = order::sort(vec![all], &NODE_AND_TIME).unwrap();
        prop_assert_eq!(seqs(&merged(inputs, &NODE_AND_TIME).unwrap()), seqs(&sorted));
    }
}
