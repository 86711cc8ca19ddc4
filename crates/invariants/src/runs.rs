//! Sets of integers as runs: what offsets and sequence numbers are nearly always made of.

/// A half-open range.
pub(crate) type Range = (i64, i64);

/// Ranges that are kept unmerged beside twice those that were merged: a merge then costs a constant time per range.
const LOOSE: usize = 256;

/// Integers that were added, and which of them were added more than once. The memory grows with the number of gaps and of
/// repetitions, not with that of the integers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// In ascending order, none touches another.
    merged: Vec<Range>,
    /// In the order in which they were added; each may overlap any other.
    loose: Vec<Range>,
    /// Ranges that were added although they had been, in no order.
    repeated: Vec<Range>,
}

/// What a set of runs looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Smallest and one past the largest; `None` when empty.
    pub(crate) span: Option<Range>,
    pub(crate) gaps: Vec<Range>,
    /// Ranges that were added more than once.
    pub(crate) repeated: Vec<Range>,
}

impl Runs {
    pub(crate) fn add(&mut self, value: i64) {
        self.add_range(value, value.saturating_add(1));
    }

    /// Adds `[start, end)`; nothing when it is empty.
    pub(crate) fn add_range(&mut self, start: i64, end: i64) {
        if end <= start {
            return;
        }
        // Rows of a file come mostly in the order of their numbers.
        match self.loose.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.loose.push((start, end)),
        }
        if self.loose.len() >= LOOSE + 2 * self.merged.len() {
            self.merge();
        }
    }

    /// Adds all of another set.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.repeated.extend(&other.repeated);
        for (start, end) in other.merged.iter().chain(&other.loose) {
            self.add_range(*start, *end);
        }
    }

    /// Merges the loose ranges into the others.
    pub(crate) fn merge(&mut self) {
        let mut ranges = std::mem::take(&mut self.merged);
        // Taken, so that its memory is free: there are as many sets as boots.
        ranges.append(&mut std::mem::take(&mut self.loose));
        self.merged = joined(ranges, |repeated| self.repeated.push(repeated));
    }

    /// The ranges, in ascending order, none of which touches another.
    pub(crate) fn ranges(&mut self) -> &[Range] {
        self.merge();
        &self.merged
    }

    pub(crate) fn shape(mut self) -> Shape {
        self.merge();
        let span = self.merged.first().zip(self.merged.last()).map(|(first, last)| (first.0, last.1));
        let gaps = self.merged.windows(2).filter_map(|pair| match pair {
            [before, after] => Some((before.1, after.0)),
            _ => None,
        });
        let gaps = gaps.collect();
        // Joined: in which pieces a repetition was found depends on the order of the additions.
        Shape { span, gaps, repeated: joined(self.repeated, drop) }
    }
}

/// Ranges in ascending order, none of which touches another, and the parts that lie in more than one.
fn joined(mut ranges: Vec<Range>, mut repeated: impl FnMut(Range)) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (start, end) in ranges {
        match joined.last_mut() {
            Some((_, reached)) if start <= *reached => {
                // What lies below the end that was reached was added before.
                if start < *reached {
                    repeated((start, end.min(*reached)));
                }
                *reached = end.max(*reached);
            }
            _ => joined.push((start, end)),
        }
    }
    joined
}

impl FromIterator<Range> for Runs {
    fn from_iter<T: IntoIterator<Item = Range>>(ranges: T) -> Self {
        let mut runs = Self::default();
        ranges.into_iter().for_each(|(start, end)| runs.add_range(start, end));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_are_runs_with_gaps_and_repetitions() {
        // A step that has no divisor in common with the count visits every number once, in an order that merges nothing
        // by itself.
        const COUNT: i64 = 100_000;
        let mut runs = Runs::default();
        for step in 0..COUNT {
            let number = step * 7_919 % COUNT;
            if !(500..510).contains(&number) {
                runs.add(number);
            }
        }
        runs.add_range(20, 23);
        assert!(runs.loose.len() + runs.merged.len() < COUNT as usize, "most were merged on the way");
        assert_eq!(runs.shape(), Shape { span: Some((0, COUNT)), gaps: vec![(500, 510)], repeated: vec![(20, 23)] });
    }

    #[test]
    fn the_memory_follows_the_gaps_and_not_the_numbers() {
        let mut runs = Runs::default();
        // Two streams that come in turns, as the rows of a node do by time.
        for number in 0..1_000_000 {
            runs.add(number);
            runs.add((1 << 40) + number);
        }
        assert!(
            runs.merged.len() + runs.loose.len() < 2 * LOOSE + 8,
            "{} ranges",
            runs.merged.len() + runs.loose.len()
        );
        assert_eq!(runs.ranges(), [(0, 1_000_000), (1 << 40, (1 << 40) + 1_000_000)]);
    }

    #[test]
    fn a_repetition_is_found_in_whichever_set_it_was() {
        let whole: Runs = [(0, 4), (2, 3), (6, 8), (7, 9)].into_iter().collect();
        let mut parts: Runs = [(0, 4), (6, 8)].into_iter().collect();
        parts.add_all(&[(7, 9), (2, 3)].into_iter().collect());
        let shape = whole.shape();
        assert_eq!(shape, Shape { span: Some((0, 9)), gaps: vec![(4, 6)], repeated: vec![(2, 3), (7, 8)] });
        assert_eq!(parts.shape(), shape);
    }
}
