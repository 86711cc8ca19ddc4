//! What a node lost, and when. A loss counts against the iterations that its time overlaps and against no others.
//!
//! A loss is *heavy* when more than [`crate::Rules::max_missing_share`] of what the node made in its time is missing:
//! calls that end iterations are then likely to be among it, and an iteration that overlaps it is not judged. A lighter
//! one is tolerated.

/// Events that a node made in a stretch of time and that never became rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// First moment, unix nanoseconds.
    pub from_ns: i64,
    /// Last moment, unix nanoseconds; inclusive.
    pub to_ns: i64,
    /// Events lost.
    pub lost: u64,
    /// Events that the node made in that time and meant to keep, those lost included.
    pub made: u64,
}

impl Loss {
    /// Lost events as a share of those made, 0 to 1.
    pub fn share(&self) -> f64 {
        // A report may have fewer made than lost; at least as many keep the share at 1 or less.
        if self.lost == 0 { 0.0 } else { self.lost as f64 / self.made.max(self.lost) as f64 }
    }

    pub(crate) fn overlaps(&self, from_ns: i64, to_ns: i64) -> bool {
        self.from_ns <= to_ns && from_ns <= self.to_ns
    }

    /// Both together, and the time between them.
    fn joined(self, other: Self) -> Self {
        Self {
            from_ns: self.from_ns.min(other.from_ns),
            to_ns: self.to_ns.max(other.to_ns),
            lost: self.lost.saturating_add(other.lost),
            made: self.made.saturating_add(other.made),
        }
    }

    /// All of them as one; `None` of none.
    pub(crate) fn sum(losses: impl IntoIterator<Item = Self>) -> Option<Self> {
        losses.into_iter().reduce(Self::joined)
    }
}

/// Stretches kept per node and weight. Beyond them neighbours are joined, which charges the time between them too.
const STRETCHES_MAX: usize = 1 << 12;

/// The losses of one node.
#[derive(Debug, Default)]
pub(crate) struct NodeLosses {
    heavy: Stretches,
    light: Stretches,
}

impl NodeLosses {
    pub(crate) fn note(&mut self, loss: Loss, max_missing_share: f64) {
        // Reports come from the lake and are not trusted: an end before its beginning would break the search by time.
        if loss.lost > 0 && loss.from_ns <= loss.to_ns {
            let stretches = if loss.share() > max_missing_share { &mut self.heavy } else { &mut self.light };
            stretches.push(loss);
        }
    }

    /// Joins what overlaps; to be called before the losses are read.
    pub(crate) fn settle(&mut self) {
        self.heavy.settle();
        self.light.settle();
    }

    /// Sorted by time, without overlaps.
    pub(crate) fn heavy(&self) -> &[Loss] {
        &self.heavy.of
    }

    /// Sorted by time, without overlaps.
    pub(crate) fn light(&self) -> &[Loss] {
        &self.light.of
    }
}

#[derive(Debug, Default)]
struct Stretches {
    of: Vec<Loss>,
}

impl Stretches {
    fn push(&mut self, loss: Loss) {
        self.of.push(loss);
        // At twice the bound, so that the cost of sorting is spread over as many pushes (amortised).
        if self.of.len() > 2 * STRETCHES_MAX {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.of.sort_unstable_by_key(|loss| (loss.from_ns, loss.to_ns, loss.lost, loss.made));
        self.of = std::mem::take(&mut self.of).into_iter().fold(Vec::new(), |mut joined: Vec<Loss>, loss| {
            // Sorted by their beginnings, so that only the last stretch joined can overlap the next one.
            match joined.last_mut().filter(|last| loss.from_ns <= last.to_ns) {
                Some(last) => *last = last.joined(loss),
                None => joined.push(loss),
            }
            joined
        });
        // Nothing lost is dropped at the bound: pairs of neighbours are joined, and only their times become coarser.
        while self.of.len() > STRETCHES_MAX {
            self.of = self.of.chunks(2).filter_map(|pair| Loss::sum(pair.iter().copied())).collect();
        }
    }
}

/// Those of sorted losses without overlaps that share time with a stretch.
pub(crate) fn overlapping(losses: &[Loss], from_ns: i64, to_ns: i64) -> &[Loss] {
    // Binary search twice: sorted and disjoint, the stretches rise in their ends as in their beginnings.
    let first = losses.partition_point(|loss| loss.to_ns < from_ns);
    let rest = &losses[first..];
    &rest[..rest.partition_point(|loss| loss.from_ns <= to_ns)]
}

#[cfg(test)]
mod tests;
