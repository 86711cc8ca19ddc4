//! How long the calls of each operation took, and how often they were made.

use std::collections::{BTreeMap, VecDeque};

use event_schema::catalog::Source;

use super::Event;
use crate::stats::percentile;

/// Calls of an operation that the usual look takes in.
const LATEST: usize = 1_000;
/// Looks after which a peak rate is used.
const LOOKS_BEFORE_DROPS: u32 = 5;
/// Shortest time between two looks that gives a rate, seconds.
const RATE_MIN_S: f64 = 0.5;
/// Fewest calls between two looks that give a rate.
const RATE_MIN_CALLS: usize = 10;

/// What a look sees of one operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OpStats {
    /// Number of the source: CUDA or driver.
    pub source: i32,
    /// Number of the operation within it.
    pub op: i32,
    /// Calls whose duration was measured.
    pub count: usize,
    /// Median duration over the calls looked at, nanoseconds.
    pub p50_ns: i64,
    /// 99th percentile, nanoseconds.
    pub p99_ns: i64,
    /// `None` until the peak is used, and where the calls are too few.
    pub rates: Option<Rates>,
}

/// How often an operation is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Calls a second since the last look.
    pub now: f64,
    /// The most of any two looks.
    pub peak: f64,
}

/// CUDA and driver calls by operation.
#[derive(Debug, Default)]
pub(super) struct Ops {
    calls: BTreeMap<(i32, i32), Calls>,
    looked_ns: Option<i64>,
    looks: u32,
}

#[derive(Debug, Default)]
struct Calls {
    /// Calls, timed or not.
    made: usize,
    all_ns: Vec<i64>,
    latest_ns: VecDeque<i64>,
    /// Of the last look; absent before the first one that saw the operation.
    counted: Option<usize>,
    peak: f64,
}

impl Ops {
    pub(super) fn observe(&mut self, event: &Event) {
        if ![Source::Cuda.number(), Source::Driver.number()].contains(&event.source) {
            return;
        }
        let calls = self.calls.entry((event.source, event.op)).or_default();
        calls.made += 1;
        // A call without a duration counts for the rate and not for percentiles: 0 would draw the median down.
        let Some(duration_ns) = event.duration_ns else { return };
        calls.all_ns.push(duration_ns);
        // A ring of the latest calls: a window by number, as the reference has it, whatever the rate.
        if calls.latest_ns.len() == LATEST {
            calls.latest_ns.pop_front();
        }
        calls.latest_ns.push_back(duration_ns);
    }

    pub(super) fn look(&mut self, now_ns: i64, over_all: bool) -> Vec<OpStats> {
        let elapsed_s = self.looked_ns.map(|before_ns| now_ns.saturating_sub(before_ns) as f64 / 1e9);
        let is_peak_believed = self.looks >= LOOKS_BEFORE_DROPS;
        let stats = self.calls.iter_mut().map(|(&(source, op), calls)| {
            // Also before a peak is used: `rate` records it.
            let rate = calls.rate(elapsed_s);
            let rates = rate.map(|now| Rates { now, peak: calls.peak }).filter(|_| is_peak_believed);
            let mut durations: Vec<i64> =
                if over_all { calls.all_ns.clone() } else { calls.latest_ns.iter().copied().collect() };
            let [p50_ns, p99_ns] = [0.5, 0.99].map(|share| percentile(&mut durations, share).unwrap_or(0));
            OpStats { source, op, count: calls.all_ns.len(), p50_ns, p99_ns, rates }
        });
        let stats = stats.collect();
        self.looked_ns = Some(now_ns);
        self.looks = self.looks.saturating_add(1);
        stats
    }
}

impl Calls {
    /// Calls a second since the last look, and notes the peak. `None` where they are too few or too close together.
    fn rate(&mut self, elapsed_s: Option<f64>) -> Option<f64> {
        // Replaced at every look, so that the next rate is of the time since this one, whether or not it gives a rate.
        let counted = self.counted.replace(self.made);
        let elapsed_s = elapsed_s.filter(|s| *s >= RATE_MIN_S)?;
        // Cannot underflow: the number of calls only grows.
        let made = self.made - counted?;
        if made < RATE_MIN_CALLS {
            return None;
        }
        let rate = made as f64 / elapsed_s;
        self.peak = self.peak.max(rate);
        Some(rate)
    }
}
