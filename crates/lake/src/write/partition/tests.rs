use super::*;
use crate::tests::{NEW_YEAR_DAY, rows};

fn seqs(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        batch.column_by_name("seq").unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    };
    batches.iter().flat_map(column).collect()
}

#[test]
fn rows_of_one_day_pass_through_uncopied() {
    let batch = rows(&[("a", 0, 1), ("a", DAY_MICROS - 1, 2)]);
    let mut days = Days::new();
    split(&batch, 1, &mut days).unwrap();
    assert_eq!(days.keys().copied().collect::<Vec<_>>(), [NEW_YEAR_DAY]);
    let (before, after) = (batch.column(2).to_data(), days[&NEW_YEAR_DAY][0].column(2).to_data());
    assert_eq!(before.buffers()[0].as_ptr(), after.buffers()[0].as_ptr());
}

#[test]
fn rows_around_midnight_go_to_their_days_also_before_1970() {
    let since_epoch = -crate::tests::NEW_YEAR;
    let batch = rows(&[("a", -1, 1), ("a", 0, 2), ("b", DAY_MICROS, 3), ("b", -1, 4), ("b", since_epoch - 1, 5)]);
    let mut days = Days::new();
    split(&batch, 1, &mut days).unwrap();
    let by_day: Vec<_> = days.iter().map(|(day, batches)| (*day, seqs(batches))).collect();
    let expected =
        [(-1, vec![5]), (NEW_YEAR_DAY - 1, vec![1, 4]), (NEW_YEAR_DAY, vec![2]), (NEW_YEAR_DAY + 1, vec![3])];
    assert_eq!(by_day, expected);
}

#[test]
fn batches_gather_per_day() {
    let mut days = Days::new();
    split(&rows(&[("a", 0, 1)]), 1, &mut days).unwrap();
    split(&rows(&[("a", 5, 2)]), 1, &mut days).unwrap();
    assert_eq!(days[&NEW_YEAR_DAY].len(), 2);
}

#[test]
fn only_microsecond_timestamps_without_nulls_can_be_split_by() {
    let batch = rows(&[("a", 0, 1)]);
    assert!(is_splittable(batch.column(1)));
    assert!(!is_splittable(batch.column(2)));
    let holed = arrow::array::TimestampMicrosecondArray::from(vec![Some(1), None]);
    assert!(!is_splittable(&holed));
}
