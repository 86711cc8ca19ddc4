//! Every number the engine decides by, in one place: what counts as slow, as lasting, as explained ([`Rules`]), and how much
//! memory it may take ([`Limits`]).

/// Thresholds and bounds of an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub rules: Rules,
    pub limits: Limits,
}

/// When a rank is slow and when its slowness is explained.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Iterations at the start of a thread's life that are left out: lazy loading of modules, first allocations.
    pub warmup_iterations: u64,
    /// Ranks below which none can be singled out: of two, either may be the odd one.
    pub min_ranks: usize,
    /// Iterations every rank must have before anything is said.
    pub min_iterations: usize,
    /// Iterations that a stretch of time should hold, so that its median is steady.
    pub tile_iterations: i64,
    /// Shortest stretch, nanoseconds; longer than what clocks usually differ by.
    pub tile_min_ns: i64,
    /// Times the error of wall time that a stretch must be.
    pub tile_errors: i64,
    /// Busy time relative to the reference from which a rank is slow.
    pub min_ratio: f64,
    /// Distance from the peers' median, in their robust standard deviations.
    pub min_z: f64,
    /// Least robust standard deviation, as a share of the median: few peers agree by chance.
    pub scale_floor: f64,
    /// Least share of the iteration's wall time that the excess must be.
    pub min_impact: f64,
    /// Share of the iteration's wall time by which a rank must wait less than its peers' median to be what they wait for, and
    /// by which no rank may wait less than it.
    pub min_lead: f64,
    /// A slow spell needs this many slow stretches ...
    pub persistence_k: usize,
    /// ... out of this many in a row.
    pub persistence_n: usize,
    /// All slow stretches together must be this share of those watched ...
    pub min_episode_share: f64,
    /// ... or last this long, nanoseconds.
    pub min_episode_ns: i64,
    /// Stretches needed before a rank's own past serves as its baseline.
    pub baseline_tiles: usize,
    /// Share of the run's stretches in which a rank must have been compared for it to be called healthy.
    pub min_compared_share: f64,
    /// Share of the slowdown that a cause must explain to be named.
    pub min_explained: f64,
    /// Median share of wall time spent runnable but not running from which "everybody is preempted" is said.
    pub crowded_share: f64,
    /// Share of a node's rows lost, late or dropped from which "healthy" is no longer said, nor a rank on it called slow.
    pub max_missing_share: f64,
    /// Evidence ids per chain.
    pub evidence_ids: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            warmup_iterations: 5,
            min_ranks: 3,
            min_iterations: 30,
            tile_iterations: 10,
            tile_min_ns: 100_000_000,
            tile_errors: 8,
            min_ratio: 1.15,
            min_z: 3.0,
            scale_floor: 0.03,
            min_impact: 0.05,
            min_lead: 0.03,
            persistence_k: 3,
            persistence_n: 5,
            min_episode_share: 0.1,
            min_episode_ns: 10_000_000_000,
            baseline_tiles: 8,
            min_compared_share: 0.9,
            min_explained: 0.5,
            crowded_share: 0.25,
            max_missing_share: 0.05,
            evidence_ids: 10,
        }
    }
}

/// Bounds of memory. What is left out at a bound is counted in [`crate::Coverage`].
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Rows held back for the watermark, about 80 bytes each and waits for a CPU 100 more. At the bound the process with most of
    /// them folds its older half early.
    pub pending_rows: usize,
    /// Iterations kept, all threads together: 150 bytes each, and as much again for each of the four processes at most that it
    /// remembers as having had its CPU. At the bound every thread forgets its oldest.
    pub iterations: usize,
    /// Processes known. Rows of further ones are dropped.
    pub processes: usize,
    /// Threads known per process. Rows of further ones are dropped.
    pub threads_per_process: usize,
    /// Calls and waits kept per thread between two iterations. At the bound the older half is dropped.
    pub intervals_per_thread: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_rows: 1 << 21,
            iterations: 1 << 19,
            processes: 1 << 16,
            threads_per_process: 1 << 10,
            intervals_per_thread: 1 << 14,
        }
    }
}
