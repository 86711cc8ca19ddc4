use proptest::prelude::*;

use super::{RELATIVE_ERROR, Sketch};

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
