use std::collections::BTreeSet;

use proptest::prelude::*;

use super::Ranges;

proptest! {
    #[test]
    fn ranges_answer_as_a_set_of_numbers_would(inserts in prop::collection::vec((0..60i64, 1..12i64), 0..40)) {
        let mut ranges = Ranges::default();
        let mut model = BTreeSet::new();
        for (first, length) in inserts {
            let fresh: Vec<i64> = ranges.insert(first, first + length).into_iter().flatten().collect();
            let expected: Vec<i64> = (first..first + length).filter(|n| model.insert(*n)).collect();
            prop_assert_eq!(fresh, expected);
            let held: BTreeSet<i64> = ranges.0.iter().flat_map(|(s, e)| *s..*e).collect();
            prop_assert_eq!(&held, &model);
        }
        let apart = ranges.0.iter().zip(ranges.0.iter().skip(1)).all(|((_, end), (start, _))| end < start);
        prop_assert!(apart, "adjacent ranges must be one");
    }
}

#[test]
fn batches_in_order_stay_one_range() {
    let mut ranges = Ranges::default();
    for i in 0..1_000 {
        assert_eq!(ranges.insert(i * 10, i * 10 + 10), vec![i * 10..i * 10 + 10]);
    }
    assert_eq!(ranges.0.len(), 1);
}
