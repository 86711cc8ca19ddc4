//! Counters of loss: every batch reports what was made and what was lost, so that the ledger closes.

use std::ops::{Add, AddAssign};

/// Counts since the previous batch of the same stream.
///
/// Law (per node, boot and epoch, summed over all batches): `emitted = rows landed + lost()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossCounters {
    /// Records that the probes attempted to make.
    pub emitted: u64,
    /// Records the kernel ring had no room for.
    pub ring_drop: u64,
    /// Records shed under overload.
    pub shed: u64,
    /// Records left out on purpose (below a threshold, or by sampling).
    pub sampled_out: u64,
    /// Records the spool had no room for.
    pub spool_drop: u64,
}

impl LossCounters {
    /// Everything emitted that will never land.
    pub fn lost(&self) -> u64 {
        // Saturating here and below: headers are not trusted, and a sum that wraps round would close a ledger that does
        // not.
        [self.ring_drop, self.shed, self.sampled_out, self.spool_drop].into_iter().fold(0, u64::saturating_add)
    }
}

impl Add for LossCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            emitted: self.emitted.saturating_add(other.emitted),
            ring_drop: self.ring_drop.saturating_add(other.ring_drop),
            shed: self.shed.saturating_add(other.shed),
            sampled_out: self.sampled_out.saturating_add(other.sampled_out),
            spool_drop: self.spool_drop.saturating_add(other.spool_drop),
        }
    }
}

impl AddAssign for LossCounters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
