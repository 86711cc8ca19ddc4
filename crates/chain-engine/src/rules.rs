//! The thresholds from which a rank is slow, a spell lasts and a cause explains it ([`Rules`]), and the bounds of the
//! engine's memory ([`Limits`]).
//!
//! Where a number follows from another or is taken from the literature, its docstring says so. A *choice* has no such
//! source; its docstring says what moving it does. Together they were measured by `causeway-loadtest bench detect`
//! (docs/FIGURES.md: the hogged rank blamed in 20 of 20 live runs, none blamed in 20 of 20 without a hog) and by the
//! simulated jobs of `tests/many.rs`, which fail when a healthy rank is blamed or fewer than 95 of 100 hogged ones are
//! found.

/// Thresholds and bounds of an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// When a rank is slow, and when that is explained.
    pub rules: Rules,
    /// How much may be kept in memory.
    pub limits: Limits,
}

/// When a rank is slow and when that is explained.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Iterations at the start of a thread's life that are left out: lazy loading of modules, first allocations. A
    /// choice: lower it and the start of a job spreads the busy times; raise it and short jobs have too little data.
    pub warmup_iterations: u64,
    /// Ranks below which none can be singled out. Not a choice: of two, either may be the odd one.
    pub min_ranks: usize,
    /// Iterations that at least `min_ranks` ranks must have before anything is said. A choice: as many as
    /// `persistence_k` full tiles hold. Lower it and a run is judged on tiles half full; raise it and short jobs have
    /// too little data.
    pub min_iterations: usize,
    /// Iterations that a tile should hold; half as many are compared too. The standard error of a median of n normally
    /// distributed values is 1.25 standard deviations by the square root of n, so of ten 0.4. A choice: raise it and
    /// medians are steadier, and a spell must last longer to be seen.
    pub tile_iterations: i64,
    /// Shortest tile, nanoseconds. A choice, well above what clocks of two nodes usually differ by: chrony's project
    /// page gives a few milliseconds for two machines synchronised over the Internet, and tens of microseconds within a
    /// LAN. Lower it and ranks are compared across different moments; raise it and a spell must last longer to be seen.
    pub tile_min_ns: i64,
    /// Length of a tile relative to the error of wall time at least. A choice: at 8, an eighth of a tile's iterations
    /// may lie in the wrong one, which its median tolerates. Raise it and nodes with a coarse clock are compared in
    /// longer tiles.
    pub tile_errors: i64,
    /// Busy time relative to the reference from which a rank is slow. A choice: lower it and ranks that always differ a
    /// little are called slow; raise it and weak faults go unseen.
    pub min_ratio: f64,
    /// Distance from the peers' median in their robust standard deviations from which a rank is an outlier. Leys et al.
    /// ("Detecting outliers: Do not use standard deviation around the mean, use absolute deviation around the median",
    /// J. Exp. Soc. Psychol. 49, 2013) give 3 as very conservative and 2.5 as moderately so. Lower it and ranks of an
    /// uneven job are called slow.
    pub min_z: f64,
    /// Least robust standard deviation, as a share of the median: few peers agree by chance. A choice, and without
    /// effect while `min_ratio` is at least 1 + `min_z` times this. Raise it beyond and it takes the place of
    /// `min_ratio`.
    pub scale_floor: f64,
    /// Least share of the iteration's wall time that the excess must be. A choice: lower it and a rank is slow whose
    /// excess hardly slows the job; raise it and a fault is passed over where the GPU paces the job.
    pub min_impact: f64,
    /// Share of the iteration's wall time by which a rank must wait less than its peers' median to be what they wait
    /// for, and by which no rank may wait less than it. A choice: at 0, a rank is taken for the last one by any
    /// difference; raise it and weak faults go unseen.
    pub min_lead: f64,
    /// Wall time relative to the peers' median from which a rank delays the job even though it waits as long as they
    /// do: where no rank waits for another. A choice: lower it and ranks that drift apart are called slow.
    pub min_wall_ratio: f64,
    /// A slow spell needs this many slow tiles ...
    pub persistence_k: usize,
    /// ... out of this many in a row. A choice, as k: lower k or raise n and single tiles that are slow by chance make
    /// a spell; raise k and only a steady fault does.
    pub persistence_n: usize,
    /// All slow tiles together must be this share of those watched ... A choice: lower it and a long job is blamed for
    /// a rare spell.
    pub min_episode_share: f64,
    /// ... or last this long, nanoseconds. A choice: in a job of hours no spell of minutes reaches the share. Raise it
    /// and those are passed over.
    pub min_episode_ns: i64,
    /// Tiles needed before a rank's own past serves as its baseline, which is their lower quartile: of eight, the third
    /// smallest. A choice: lower it and the baseline is one or two tiles; raise it and ranks of different roles are
    /// compared with one another for longer.
    pub baseline_tiles: usize,
    /// Share of the run's tiles in which a rank must have been compared for it to be called healthy. A choice: one less
    /// `min_episode_share`, so that what is missing cannot hold a spell by that share; in a run of more than 100 s it
    /// may still hold one by `min_episode_ns`. Raise it and ranks that come late make a run unknown.
    pub min_compared_share: f64,
    /// Share of the slowdown that a cause must explain to be named. Follows from shares of one whole: no other cause
    /// that does not overlap it explains more.
    pub min_explained: f64,
    /// Median share of wall time spent runnable but not running from which every rank counts as preempted. A choice:
    /// lower it and jobs on busy nodes are unknown instead of healthy.
    pub crowded_share: f64,
    /// Share of a node's rows lost, late or dropped from which "healthy" is no longer said, nor a rank on it called
    /// slow (ADR 25). A choice: raise it and two iterations with the lost call between them pass for one slow
    /// iteration.
    pub max_missing_share: f64,
    /// Busy time relative to the reference from which an iteration of a slow spell counts as affected. A choice: it
    /// moves that count and the times at which a chain begins and ends, and decides nothing else.
    pub affected_ratio: f64,
    /// Evidence ids per chain. A choice: as many as a person looks at.
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
            min_wall_ratio: 1.2,
            persistence_k: 3,
            persistence_n: 5,
            min_episode_share: 0.1,
            min_episode_ns: 10_000_000_000,
            baseline_tiles: 8,
            // 1 less `min_episode_share`.
            min_compared_share: 0.9,
            min_explained: 0.5,
            crowded_share: 0.25,
            max_missing_share: 0.05,
            affected_ratio: 1.1,
            evidence_ids: 10,
        }
    }
}

/// Bounds of memory. What is left out at a bound is counted in [`crate::Coverage`]. All are choices: raise one and the
/// engine takes more memory, lower it and more is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Rows held back for the watermark, about 80 bytes each and waits for a CPU 100 more. At the bound the process
    /// with most of them folds its older half early.
    pub pending_rows: usize,
    /// Iterations kept, all threads together: 150 bytes each, and as much again for each of the four processes at most
    /// that it records as having used its CPU. At the bound the oldest iterations of every thread are discarded.
    pub iterations: usize,
    /// Processes registered. Rows of further ones are dropped.
    pub processes: usize,
    /// Threads registered per process. Rows of further ones are dropped.
    pub threads_per_process: usize,
    /// Calls and waits kept per thread between two iterations. At the bound the older half is dropped.
    pub intervals_per_thread: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // About 170 MB of rows; waits for a CPU take up to 210 MB more.
            pending_rows: 1 << 21,
            iterations: 1 << 19,
            processes: 1 << 16,
            threads_per_process: 1 << 10,
            intervals_per_thread: 1 << 14,
        }
    }
}
