use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use proptest::prelude::*;

use super::super::def;
use super::*;

/// Values of one partial aggregate: key numbers, and durations with their weights.
type Partial = (u8, Vec<(i64, u8)>);

/// Rows as ingest writes them: few keys, so that many are equal.
fn rows(partials: &[Partial]) -> RecordBatch {
    let origins = [("c", "n1"), ("c", "n2"), ("d", "n2")];
    let totals = partials.iter().map(|(key, durations)| {
        let number = i32::from(*key);
        let rank = (key % 2 == 0).then_some(number % 4);
        let minute_us = i64::from(key % 3) * 60_000_000;
        let key = Key {
            origin: usize::from(*key) % 3,
            minute_us,
            rank,
            pid: number,
            source: 1,
            op: number % 2,
            size_class: 0,
        };
        let mut total = Total::default();
        total.add_event(i64::from(number), 3);
        for (ns, weight) in durations {
            total.add_duration(*ns, u64::from(*weight));
        }
        (key, total)
    });
    batch(&origins, &totals.collect::<Vec<_>>()).unwrap()
}

fn partials() -> impl Strategy<Value = Vec<Partial>> {
    let durations = proptest::collection::vec((0..i64::from(u32::MAX), 1..5_u8), 0..4);
    proptest::collection::vec((0..12_u8, durations), 0..40)
}

fn conserved(rows: &RecordBatch) -> Conserved {
    let mut conserved = Conserved::default();
    conserved.add(rows).unwrap();
    conserved
}

proptest! {
    #[test]
    fn folding_keeps_what_adds_up_and_leaves_one_row_of_each_key(all in partials()) {
        let rows = rows(&all);
        let folded = fold(&rows).unwrap();
        prop_assert_eq!(conserved(&rows).difference(&conserved(&folded)), None);
        let keys: std::collections::BTreeSet<u8> = all.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(folded.num_rows(), keys.len());
        let again = fold(&folded).unwrap();
        prop_assert_eq!(again, folded);
    }

    #[test]
    fn it_does_not_matter_in_which_order_and_in_how_many_steps_rows_are_folded(all in partials(), cut in 0..40_usize) {
        let whole = rows(&all);
        let cut = cut.min(whole.num_rows());
        let parts = [whole.slice(cut, whole.num_rows() - cut), whole.slice(0, cut)];
        let folded = parts.map(|part| fold(&part).unwrap());
        let in_steps = fold(&concat_batches(&whole.schema(), &folded).unwrap()).unwrap();
        prop_assert_eq!(in_steps, fold(&whole).unwrap());
    }
}

#[test]
fn rows_come_in_the_order_of_the_table() {
    let all: Vec<Partial> = (0..12).rev().map(|key| (key, vec![(5, 1)])).collect();
    let folded = fold(&rows(&all)).unwrap();
    let partials = Partials::of(&folded).unwrap();
    let found: Vec<_> = (0..folded.num_rows()).map(|row| (partials.node.at(row), partials.minute[row])).collect();
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(folded.schema(), def().arrow_schema());
}

#[test]
fn a_row_that_is_lost_doubled_altered_or_of_another_key_is_named() {
    let all: Vec<Partial> = (0..12).map(|key| (key, vec![(i64::from(key) + 1, 1), (700, 2)])).collect();
    let rows = rows(&all);
    let expected = conserved(&rows);
    let lost = take_record_batch(&rows, &UInt32Array::from_iter_values(1..12)).unwrap();
    let doubled = take_record_batch(&rows, &UInt32Array::from_iter_values((0..12).chain([3]))).unwrap();
    for (broken, node) in [(lost, "n1"), (doubled, "n1")] {
        let difference = expected.difference(&conserved(&broken)).unwrap();
        assert_eq!((difference.node.as_str(), difference.column), (node, "count"));
    }
    // The first row and the fourth are of one node: their counts are exchanged, and all sums stay.
    let counts: Vec<i64> = (0..12_i64).map(|row| [4, 3, 3, 2].get(row as usize).copied().unwrap_or(3)).collect();
    let moved = altered(&rows, 8, Arc::new(Int64Array::from(counts)));
    let difference = expected.difference(&conserved(&moved)).unwrap();
    assert_eq!((difference.node.as_str(), difference.column), ("n1", "key"));
}

fn altered(rows: &RecordBatch, column: usize, values: ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[column] = values;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

#[test]
fn values_that_ingest_never_writes_are_refused() {
    let rows = rows(&[(0, vec![])]);
    let negative = altered(&rows, 8, Arc::new(Int64Array::from(vec![-1])));
    assert!(fold(&negative).unwrap_err().to_string().contains("counts -1 events"));
    let no_sketch = altered(&rows, 13, Arc::new(BinaryArray::from(vec![&b"x"[..]])));
    assert!(fold(&no_sketch).unwrap_err().to_string().contains("not those of a quantile sketch"));
    assert!(fold(&rows.project(&[0, 1]).unwrap()).unwrap_err().to_string().contains("no `node`"));
}
