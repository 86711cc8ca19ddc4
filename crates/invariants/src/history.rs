//! What snapshots landed that have left a table's metadata, as far as those that are kept show it.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

/// A snapshot that is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Nothing that was between it and the one before it has left the metadata.
    pub(crate) follows: bool,
    /// What its commit landed.
    pub(crate) ranges: Vec<OffsetRange>,
    /// Where the partitions stood that its commit did not move; `None` of another program's.
    pub(crate) others: Option<BTreeMap<TopicPartition, NextOffset>>,
}

/// Where the partitions of a table stand, from snapshot to snapshot.
#[derive(Debug, Default)]
struct Walk {
    reached: BTreeMap<TopicPartition, i64>,
    /// Partitions that were met since snapshots were missing last.
    met: BTreeSet<TopicPartition>,
    is_cut: bool,
    gone: Vec<OffsetRange>,
}

impl Walk {
    /// A partition begins a range here, or stands here.
    fn meet(&mut self, at: &TopicPartition, start: i64) {
        if self.is_cut && self.met.insert(at.clone()) {
            let reached = self.reached.get(at).copied().unwrap_or(0);
            // Empty when the missing snapshots did not move the partition; an overlap is left to the law.
            self.gone.extend((reached < start).then(|| OffsetRange::new(at.clone(), reached, start)));
        }
        self.reach(at, start);
    }

    fn reach(&mut self, at: &TopicPartition, end: i64) {
        let reached = self.reached.entry(at.clone()).or_insert(0);
        *reached = end.max(*reached);
    }
}

/// The ranges that snapshots landed which have left the metadata, without what was explained. `history` is the oldest
/// first, and `next` where the table stands after it.
pub(crate) fn gone(
    history: &[Kept],
    next: &BTreeMap<TopicPartition, NextOffset>,
    explained: &[OffsetRange],
) -> Vec<OffsetRange> {
    let mut walk = Walk::default();
    for kept in history {
        if !kept.follows {
            walk.is_cut = true;
            walk.met.clear();
        }
        for range in &kept.ranges {
            walk.meet(&range.at, range.start);
            walk.reach(&range.at, range.end);
        }
        for (at, stands) in kept.others.iter().flatten() {
            walk.meet(at, stands.0);
        }
    }
    // Partitions that only snapshots of other programs followed the missing ones of.
    for (at, next) in next {
        walk.meet(at, next.0);
    }
    walk.gone.into_iter().flat_map(|gone| without(gone, explained)).collect()
}

/// A range without the offsets of others.
fn without(range: OffsetRange, others: &[OffsetRange]) -> Vec<OffsetRange> {
    let mut rest = vec![range];
    for other in others {
        let mut left = Vec::new();
        for part in rest {
            if part.at != other.at || other.end <= part.start || part.end <= other.start {
                left.push(part);
                continue;
            }
            left.extend((part.start < other.start).then(|| OffsetRange::new(part.at.clone(), part.start, other.start)));
            left.extend((other.end < part.end).then(|| OffsetRange::new(part.at.clone(), other.end, part.end)));
        }
        rest = left;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(at(partition), start, end)
    }

    fn offsets(next: &[(i32, i64)]) -> BTreeMap<TopicPartition, NextOffset> {
        next.iter().map(|(partition, next)| (at(*partition), NextOffset(*next))).collect()
    }

    fn kept(follows: bool, ranges: &[OffsetRange], others: &[(i32, i64)]) -> Kept {
        Kept { follows, ranges: ranges.to_vec(), others: Some(offsets(others)) }
    }

    #[test]
    fn nothing_is_gone_of_a_whole_history_even_if_it_has_a_gap() {
        let whole = [kept(true, &[range(0, 0, 5)], &[]), kept(true, &[range(0, 7, 9)], &[])];
        assert_eq!(gone(&whole, &offsets(&[(0, 12), (1, 3)]), &[]), Vec::new());
    }

    #[test]
    fn what_lies_between_snapshots_that_do_not_follow_one_another_is_gone() {
        let thinned = [
            kept(false, &[range(0, 10, 15)], &[(1, 4)]),
            kept(true, &[range(0, 15, 20)], &[(1, 4)]),
            // Another program's, which does not say where the table stands.
            Kept::default(),
            kept(true, &[range(0, 50, 60)], &[(1, 4), (2, 7)]),
            kept(true, &[range(2, 8, 9)], &[(0, 60), (1, 4)]),
        ];
        let expected = vec![range(0, 0, 10), range(1, 0, 4), range(0, 20, 50), range(2, 0, 7)];
        assert_eq!(gone(&thinned, &offsets(&[(0, 60), (1, 4), (2, 9)]), &[]), expected);
    }

    #[test]
    fn what_was_explained_is_not_gone_a_second_time() {
        let thinned = [kept(false, &[range(0, 10, 15)], &[])];
        let explained = [range(0, 0, 2), range(0, 5, 6), range(0, 9, 10), range(1, 0, 9)];
        assert_eq!(gone(&thinned, &offsets(&[(0, 15)]), &explained), [range(0, 2, 5), range(0, 6, 9)]);
    }
}
