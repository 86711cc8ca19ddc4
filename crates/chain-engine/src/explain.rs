//! Why the rank singled out is slow: the parts of its excess time over the reference, less what its peers have of the
//! same (what every rank has explains none), the processes that used its CPU, and the waits that are the evidence.

use std::collections::BTreeMap;

use crate::chain::Culprit;
use crate::features::{CpuWaits, Evidence, Peer};
use crate::iteration::Iteration;
use crate::job::Run;
use crate::peers::{Comparison, peers_in};
use crate::rules::Rules;
use crate::stats::{median, percentile, whole};
use crate::verdict::Shares;

/// A process outside the job that used the rank's CPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preemptor {
    pub(crate) peer: Peer,
    /// Of the time the rank waited for a CPU that processes outside the job had.
    pub(crate) share: f64,
}

/// A wait for a CPU, and the process that used it meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wait {
    pub(crate) start_ts_ns: i64,
    pub(crate) iteration: u64,
    pub(crate) evidence: Evidence,
    pub(crate) peer: Peer,
}

/// The excess of one rank over its slow tiles.
#[derive(Debug, Default)]
pub(crate) struct Explanation {
    pub(crate) shares: Shares,
    /// Busy time relative to the peers' median over the same stretches.
    pub(crate) ratio: f64,
    /// What the slowdown cost an iteration on average, nanoseconds.
    pub(crate) cost_per_iteration_ns: i64,
    /// Excess relative to what the wall time would have been without it.
    pub(crate) slowdown: f64,
    /// Waits for a CPU that processes outside the job had.
    pub(crate) waits: CpuWaits,
    /// Sorted by share. Of many, those that never took much of an iteration are missing.
    pub(crate) preemptors: Vec<Preemptor>,
    /// The weightiest first.
    pub(crate) evidence: Vec<Wait>,
    /// Iterations slower than the reference by [`Rules::affected_ratio`].
    pub(crate) affected: u64,
    pub(crate) first_ts_ns: i64,
    pub(crate) last_ts_ns: i64,
    /// Median busy time per iteration of the peers.
    pub(crate) peers_p50_ns: i64,
    /// 99th percentile of the rank's own.
    pub(crate) p99_ns: i64,
}

impl Explanation {
    /// Ids of the evidence, the weightiest first.
    pub(crate) fn evidence_ids(&self) -> Vec<String> {
        self.evidence.iter().map(|wait| wait.evidence.event_id.to_string()).collect()
    }
}

/// Mean nanoseconds (or bytes) per iteration.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    preempted: f64,
    crowded: f64,
    holder_unknown: f64,
    asleep: f64,
    uninterruptible: f64,
    copying: f64,
    bytes: f64,
}

impl Load {
    fn fields(&mut self) -> [&mut f64; 7] {
        [
            &mut self.preempted,
            &mut self.crowded,
            &mut self.holder_unknown,
            &mut self.asleep,
            &mut self.uninterruptible,
            &mut self.copying,
            &mut self.bytes,
        ]
    }
}

/// Largest number of culprits reported per rank.
const CULPRITS_NAMED: usize = 10;

impl Run<'_> {
    /// The processes that had the CPU of a rank.
    pub(crate) fn culprits(&self, rank: usize, preemptors: &[Preemptor]) -> Vec<Culprit> {
        let node = self.members[rank].node_number;
        let mut culprits = Vec::new();
        for Preemptor { peer, share } in preemptors.iter().take(CULPRITS_NAMED) {
            culprits.push(Culprit {
                pid: peer.pid,
                name: self.names.process(node, peer.pid).map(str::to_owned),
                is_causeway: self.names.is_causeway(node, peer.pid),
                share: *share,
            });
        }
        culprits
    }

    fn is_own(&self, rank: usize, peer: &Peer) -> bool {
        self.own_threads.contains(&(self.members[rank].node_number, peer.pid))
    }

    /// The waits for processes that were taken for outsiders until their own rows showed that they are of the job.
    fn found_own(&self, rank: usize, iteration: &Iteration) -> CpuWaits {
        let mut own = CpuWaits::default();
        iteration.parts.peers.iter().filter(|wait| self.is_own(rank, &wait.peer)).for_each(|wait| own.add(wait.waits));
        own
    }

    /// Mean time per iteration that the rank waited for CPUs that outsiders had, nanoseconds.
    pub(crate) fn preempted_ns(&self, rank: usize, iterations: &[&Iteration]) -> f64 {
        self.load(rank, iterations).preempted
    }

    fn load(&self, rank: usize, iterations: &[&Iteration]) -> Load {
        let mut load = Load::default();
        for iteration in iterations {
            // Waits folded before the rows of their process came were taken for waits for outsiders: here they move to
            // the job.
            let own = self.found_own(rank, iteration);
            load.preempted += iteration.parts.outsiders.less(own).busy_ns as f64;
            load.crowded += iteration.parts.own_job_ns as f64 + own.busy_ns as f64;
            load.holder_unknown += iteration.parts.unknown_ns as f64;
            load.asleep += iteration.parts.sleep_ns as f64;
            load.uninterruptible += iteration.parts.uninterruptible_ns as f64;
            load.copying += iteration.copy_ns as f64;
            load.bytes += iteration.copy_bytes as f64;
        }
        let count = iterations.len().max(1) as f64;
        load.fields().into_iter().for_each(|sum| *sum /= count);
        load
    }
}

/// Explains the slow spells of `rank`.
pub(crate) fn explain(run: Run<'_>, comparison: &Comparison, rank: usize, rules: &Rules) -> Explanation {
    let mut explanation = Explanation { first_ts_ns: i64::MAX, last_ts_ns: i64::MIN, ..Explanation::default() };
    let mut sums = Sums::default();
    for &tile in &comparison.episodes[rank] {
        // Both are there: an episode consists of marked tiles, and only a compared tile is marked.
        let (Some(sample), Some(mark)) = (&comparison.tiles[tile][rank], comparison.marks[rank][tile]) else {
            continue;
        };
        let iterations = &run.members[rank].iterations[sample.iterations.clone()];
        sums.add_tile(run, comparison, (rank, tile), iterations);
        // Weighted by iterations, as all that `add_tile` adds.
        sums.reference_ns += mark.reference_ns * iterations.len() as f64;
        for iteration in iterations {
            note_waits(run, rank, iteration, &mut explanation, &mut sums);
            if iteration.busy_ns(comparison.view) as f64 >= rules.affected_ratio * mark.reference_ns {
                explanation.affected += 1;
                explanation.first_ts_ns = explanation.first_ts_ns.min(iteration.start_ts_ns());
                explanation.last_ts_ns = explanation.last_ts_ns.max(iteration.end_ts_ns());
            }
        }
    }
    sums.fill(&mut explanation, rules.evidence_ids);
    explanation
}

/// Sums over the slow tiles of a rank, of which an [`Explanation`] is made.
#[derive(Default)]
struct Sums {
    busy_ns: f64,
    /// What the busy time should have been.
    reference_ns: f64,
    wall_ns: f64,
    /// Own load less the peers' median, times iterations.
    excess: Load,
    /// The peers' median busy time, times iterations.
    peers_busy_ns: f64,
    own_bytes: f64,
    peers_bytes: f64,
    by_peer: BTreeMap<Peer, i64>,
    own_busy: Vec<i64>,
    peers_busy: Vec<f64>,
}

impl Sums {
    fn add_tile(
        &mut self,
        run: Run<'_>,
        comparison: &Comparison,
        (rank, tile): (usize, usize),
        iterations: &[&Iteration],
    ) {
        // Means and medians are weighted by iterations, since tiles hold different numbers of them.
        let count = iterations.len() as f64;
        let mut peers: [Vec<f64>; 7] = Default::default();
        let mut peers_busy = Vec::new();
        for (other, sample) in peers_in(&comparison.tiles[tile], rank) {
            let mut load = run.load(other, &run.members[other].iterations[sample.iterations.clone()]);
            peers_busy.push(sample.busy_ns);
            peers.iter_mut().zip(load.fields()).for_each(|(all, one)| all.push(*one));
        }
        self.peers_busy.extend_from_slice(&peers_busy);
        self.peers_busy_ns += median(peers_busy).unwrap_or(0.0) * count;
        let mut load = run.load(rank, iterations);
        self.own_bytes += load.bytes * count;
        // 6 is `bytes`, the last of `Load::fields`.
        self.peers_bytes += median(peers[6].clone()).unwrap_or(0.0) * count;
        for ((excess, own), peers) in self.excess.fields().into_iter().zip(load.fields()).zip(peers) {
            // Less what the peers have of the same at the same time (a control group): what every rank has explains
            // none.
            *excess += (*own - median(peers).unwrap_or(0.0)) * count;
        }
        for iteration in iterations {
            self.busy_ns += iteration.busy_ns(comparison.view) as f64;
            self.wall_ns += iteration.wall_ns() as f64;
            self.own_busy.push(iteration.busy_ns(comparison.view));
        }
    }

    fn fill(mut self, explanation: &mut Explanation, evidence: usize) {
        let excess_ns = self.busy_ns - self.reference_ns;
        explanation.shares = Shares {
            preempted: share_of(excess_ns, self.excess.preempted),
            crowded_by_job: share_of(excess_ns, self.excess.crowded),
            holder_unknown: share_of(excess_ns, self.excess.holder_unknown),
            asleep: share_of(excess_ns, self.excess.asleep),
            uninterruptible: share_of(excess_ns, self.excess.uninterruptible),
            copying: share_of(excess_ns, self.excess.copying),
            bytes_ratio: if self.peers_bytes > 0.0 { self.own_bytes / self.peers_bytes } else { 1.0 },
        };
        explanation.ratio = if self.peers_busy_ns > 0.0 { self.busy_ns / self.peers_busy_ns } else { 0.0 };
        explanation.cost_per_iteration_ns = whole((excess_ns / self.own_busy.len().max(1) as f64).max(0.0));
        // Against the time without the fault and not the time with it: twice the length is a slowdown of 1.
        let without_ns = self.wall_ns - excess_ns;
        explanation.slowdown = if without_ns > 0.0 { (excess_ns / without_ns).max(0.0) } else { 0.0 };
        explanation.peers_p50_ns = whole(median(self.peers_busy).unwrap_or(0.0));
        explanation.p99_ns = percentile(&mut self.own_busy, 0.99).unwrap_or(0);
        let all_ns = explanation.waits.busy_ns;
        explanation.preemptors = self
            .by_peer
            .into_iter()
            // At least 1, since waits for a CPU may all have lain within calls that wait for other ranks.
            .map(|(peer, ns)| Preemptor { peer, share: ns as f64 / all_ns.max(1) as f64 })
            .collect();
        // Ties are broken by number, so that equal shares give the same order in every report.
        explanation.preemptors.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.peer.cmp(&b.peer)));
        explanation.evidence.sort_by(|a, b| a.evidence.by_weight(&b.evidence));
        // After sorting: the weightiest waits of all slow tiles are kept, not the first ones.
        explanation.evidence.truncate(evidence);
    }
}

/// What a part is of the excess, 0 to 1; 0 where there is no excess.
fn share_of(excess_ns: f64, part_ns: f64) -> f64 {
    if excess_ns > 0.0 { (part_ns / excess_ns).clamp(0.0, 1.0) } else { 0.0 }
}

/// Adds the waits of an iteration for CPUs that outsiders had: to the sums by process, and to the evidence.
fn note_waits(run: Run<'_>, rank: usize, iteration: &Iteration, explanation: &mut Explanation, sums: &mut Sums) {
    explanation.waits.add(iteration.parts.outsiders.less(run.found_own(rank, iteration)));
    for wait in iteration.parts.peers.iter().filter(|wait| !run.is_own(rank, &wait.peer)) {
        // By process: one process that comes back in each iteration is one cause.
        let by_peer = sums.by_peer.entry(wait.peer).or_default();
        *by_peer = by_peer.saturating_add(wait.waits.busy_ns);
        explanation.evidence.push(Wait {
            start_ts_ns: wait.weightiest.start_ns + iteration.offset_ns,
            iteration: iteration.number,
            evidence: wait.weightiest.clone(),
            peer: wait.peer,
        });
    }
}
