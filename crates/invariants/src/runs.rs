//! Sets of integers as runs: what offsets and sequence numbers are nearly always made of.

/// Integers that were added, with repetitions kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Half-open, in the order they came.
    runs: Vec<(i64, i64)>,
}

/// A half-open range.
pub(crate) type Range = (i64, i64);

/// What a set of runs looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Smallest and one past the largest; `None` when empty.
    pub(crate) span: Option<Range>,
    pub(crate) gaps: Vec<Range>,
    /// Ranges that came more than once.
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
        match self.runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.runs.push((start, end)),
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        let mut sorted = self.runs.clone();
        sorted.sort_unstable();
        let mut shape = Shape::default();
        for (start, end) in sorted {
            let Some((_, reached)) = &mut shape.span else {
                shape.span = Some((start, end));
                continue;
            };
            if start > *reached {
                shape.gaps.push((*reached, start));
            }
            if start < *reached {
                shape.repeated.push((start, end.min(*reached)));
            }
            *reached = end.max(*reached);
        }
        shape
    }
}

impl FromIterator<Range> for Runs {
    fn from_iter<T: IntoIterator<Item = Range>>(ranges: T) -> Self {
        let mut runs = Self::default();
        ranges.into_iter().for_each(|(start, end)| runs.add_range(start, end));
        runs
    }
}
