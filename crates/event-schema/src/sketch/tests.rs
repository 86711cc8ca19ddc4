use proptest::prelude::*;

use super::{BUCKET_MAX, FORMAT, RELATIVE_ERROR, Sketch, bucket_of};

fn sketch(values: &[i64]) -> Sketch {
    let mut s = Sketch::new();
    values.iter().for_each(|v| s.add(*v, 1));
    s
}

proptest! {
    #[test]
    fn a_quantile_is_within_the_relative_error_of_the_exact_one(
        mut values in prop::collection::vec(0..i64::MAX, 1..400), q in 0.0..=1.0f64,
    ) {
        let estimate = sketch(&values).quantile(q).unwrap();
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let exact = values[rank - 1] as f64;
        prop_assert!((estimate - exact).abs() <= exact * RELATIVE_ERROR * 1.0001 + 1e-9, "{estimate} for {exact}");
    }

    #[test]
    fn merging_in_any_grouping_gives_the_same_bytes_as_adding(
        parts in prop::collection::vec(prop::collection::vec(-5..1_000_000_000i64, 0..50), 0..6),
    ) {
        let all: Vec<i64> = parts.iter().flatten().copied().collect();
        let mut forward = Sketch::new();
        parts.iter().for_each(|p| forward.merge(&sketch(p)));
        let mut backward = Sketch::new();
        parts.iter().rev().for_each(|p| backward.merge(&sketch(p)));
        prop_assert_eq!(forward.to_bytes(), sketch(&all).to_bytes());
        prop_assert_eq!(backward.to_bytes(), forward.to_bytes());
        prop_assert_eq!(forward.count(), all.len() as u64);
    }

    #[test]
    fn bytes_read_back_as_the_same_sketch(values in prop::collection::vec(any::<i64>(), 0..200)) {
        let s = sketch(&values);
        prop_assert_eq!(Sketch::from_bytes(&s.to_bytes()).unwrap(), s);
    }

    #[test]
    fn any_bytes_are_a_sketch_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(s) = Sketch::from_bytes(&bytes) {
            prop_assert_eq!(Sketch::from_bytes(&s.to_bytes()).unwrap(), s);
        }
    }

    #[test]
    fn what_is_read_is_written_as_the_same_bytes(
        // Small ones often: they are whole numbers, and most sequences of others end in an error.
        behind in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..24),
    ) {
        let bytes = [&[FORMAT][..], &behind].concat();
        if let Ok(s) = Sketch::from_bytes(&bytes) {
            prop_assert_eq!(s.to_bytes(), bytes);
            prop_assert!(s.quantile(1.0).is_none_or(f64::is_finite));
        }
    }
}

fn refused_at(bytes: &[u8]) -> usize {
    Sketch::from_bytes(bytes).unwrap_err().at
}

#[test]
fn a_number_in_more_bytes_than_it_needs_is_refused() {
    assert_eq!(refused_at(&[FORMAT, 0x80, 0]), 2, "a count of zeros");
    assert_eq!(refused_at(&[FORMAT, 0, 0x81, 0x80, 0, 1]), 4, "a bucket");
    assert_eq!(refused_at(&[FORMAT, 0, 1, 0x81, 0]), 4, "the count of a bucket");
}

#[test]
fn a_number_of_more_than_64_bits_is_refused() {
    let mut bytes = [0xff; 11];
    bytes[0] = FORMAT;
    bytes[10] = 1;
    assert_eq!(Sketch::from_bytes(&bytes).unwrap().count(), u64::MAX);
    for last in [2, 0x81] {
        bytes[10] = last;
        assert_eq!(refused_at(&bytes), 10, "{last:#x}");
    }
}

#[test]
fn a_bucket_that_no_value_has_is_refused() {
    assert_eq!(bucket_of(i64::MAX), BUCKET_MAX);
    assert_eq!(sketch(&[i64::MAX]).to_bytes(), [FORMAT, 0, 0x88, 0x11, 1]);
    assert_eq!(refused_at(&[FORMAT, 0, 0x89, 0x11, 1]), 2, "one higher");
}

#[test]
fn a_value_without_weight_leaves_a_sketch_as_it_is() {
    for value in [-1, 0, 7, i64::MAX] {
        let mut s = sketch(&[7]);
        s.add(value, 0);
        assert_eq!(s, sketch(&[7]), "{value}");
        let mut empty = Sketch::new();
        empty.add(value, 0);
        assert_eq!(Sketch::from_bytes(&empty.to_bytes()), Ok(Sketch::new()), "{value}");
    }
}

#[test]
fn an_empty_sketch_has_no_quantile() {
    assert_eq!(Sketch::new().quantile(0.5), None);
}

#[test]
fn the_largest_value_has_a_bucket_of_its_own() {
    let p = sketch(&[i64::MAX]).quantile(1.0).unwrap();
    assert!((p / i64::MAX as f64 - 1.0).abs() <= RELATIVE_ERROR);
}

#[test]
fn counts_end_at_the_largest_number() {
    let mut s = sketch(&[0, 7]);
    (0..2).for_each(|_| s.add(7, u64::MAX));
    s.merge(&s.clone());
    assert_eq!((s.count(), s.quantile(1.0).is_some()), (u64::MAX, true));
}
