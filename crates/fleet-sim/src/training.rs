//! A data-parallel training job over a fleet: every iteration each rank launches kernels, computes, joins a collective
//! and waits in `cudaStreamSynchronize` for the slowest. One rank may share its CPU with another process, so that there
//! is a straggler with a cause to find. Everything follows from the seed.

use bytes::Bytes;
use event_schema::batch::{Event, MeasuredDuration, ProcessInfo};
use event_schema::catalog::Op;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{BOOT_NS, FleetError, FleetSpec, Node, whole_ns};

const US: i64 = 1_000;
const MS: i64 = 1_000 * US;
/// Kernels a rank launches in an iteration, at least.
const MIN_LAUNCHES: i64 = 4;
/// Events of a rank in an iteration beside its launches, waits for the CPU estimated at one.
const OTHER_EVENTS: i64 = 4;
/// Iterations are no shorter, so that a high rate means more launches, and no longer.
const ITERATION_NS: std::ops::RangeInclusive<i64> = 20 * MS..=1_000 * MS;
/// The process that shares the CPU of the slow rank.
const HOG_PID: i32 = 4_242;
/// Rows of one message at most.
const MESSAGE_ROWS: usize = 8_192;

/// The shape of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSpec {
    /// Time of an iteration in which nothing disturbs, nanoseconds.
    pub iteration_ns: i64,
    /// Kernels a rank launches in an iteration.
    pub launches: i64,
    /// The rank that shares its CPU with another process.
    pub slow_rank: Option<i32>,
}

impl JobSpec {
    /// A job of `ranks` ranks that makes about `events_per_second` events when no rank is slow.
    pub fn at_rate(ranks: i64, events_per_second: i64, slow_rank: Option<i32>) -> Self {
        let events_per_second = events_per_second.max(1);
        // First the length of an iteration with as few launches as possible; where that would be too short, more
        // launches make up the rate.
        let fewest = ranks * (MIN_LAUNCHES + OTHER_EVENTS);
        let iteration_ns = fewest.saturating_mul(1_000 * MS) / events_per_second;
        let iteration_ns = iteration_ns.clamp(*ITERATION_NS.start(), *ITERATION_NS.end());
        let events = events_per_second.saturating_mul(iteration_ns / US) / (1_000 * MS / US);
        let launches = (events / ranks.max(1) - OTHER_EVENTS).max(MIN_LAUNCHES);
        Self { iteration_ns, launches, slow_rank }
    }
}

/// A job that runs.
#[derive(Debug)]
pub struct TrainingJob {
    spec: JobSpec,
    nodes: Vec<Node>,
    ranks_per_node: i32,
    rng: StdRng,
    /// Boot time at which the next iteration of each rank begins.
    free_ns: Vec<i64>,
    iteration: i64,
    start_wall_ns: i64,
}

impl TrainingJob {
    /// The job of a fleet, about to begin at `fleet.start_wall_ns`.
    pub fn new(fleet: &FleetSpec, spec: JobSpec) -> Self {
        let ranks = fleet.nodes * usize::try_from(fleet.ranks_per_node).unwrap_or(0);
        Self {
            spec,
            nodes: fleet.build(),
            ranks_per_node: fleet.ranks_per_node,
            rng: StdRng::seed_from_u64(fleet.seed),
            free_ns: vec![BOOT_NS; ranks],
            iteration: 0,
            start_wall_ns: fleet.start_wall_ns,
        }
    }

    /// Runs all iterations that end by this wall time. Returns the messages of each node, by its name.
    ///
    /// # Errors
    /// Only when the codec refuses a batch.
    pub fn run_until(&mut self, wall_ns: i64) -> Result<Vec<(String, Bytes)>, FleetError> {
        let end_ns = BOOT_NS + (wall_ns - self.start_wall_ns);
        let mut messages = Vec::new();
        // Four iterations ahead, since a slow rank takes more than two: no event may lie behind the time asked for.
        while self.free_ns.iter().all(|free_ns| free_ns + 4 * self.spec.iteration_ns < end_ns) {
            self.iterate();
            messages.extend(self.sealed(MESSAGE_ROWS)?);
        }
        // What is left, however little: the next call may come much later.
        messages.extend(self.sealed(1)?);
        Ok(messages)
    }

    /// A message of each node that has at least so many rows.
    fn sealed(&mut self, rows: usize) -> Result<Vec<(String, Bytes)>, FleetError> {
        let full = self.nodes.iter_mut().filter(|node| node.rows.len() >= rows);
        full.map(|node| Ok((node.name.clone(), node.encode()?))).collect()
    }

    fn iterate(&mut self) {
        let ranks = i32::try_from(self.free_ns.len()).unwrap_or(i32::MAX);
        let arrivals: Vec<i64> = (0..ranks).map(|rank| self.compute(rank)).collect();
        // A barrier: the collective ends for all when the last rank has joined it.
        let released_ns = arrivals.iter().copied().max().unwrap_or(BOOT_NS) + 50 * US;
        for (rank, arrival_ns) in (0..ranks).zip(arrivals) {
            self.meet(rank, arrival_ns, released_ns);
        }
        self.iteration += 1;
    }

    /// A rank's own part of an iteration; returns when it is done.
    fn compute(&mut self, rank: i32) -> i64 {
        let mut now_ns = self.free(rank);
        let function = 0x7f00_0000_0000 + self.iteration % 50 * 64;
        // Launches take a tenth of the iteration at most.
        let gap_ns = (10 * US).min(self.spec.iteration_ns / 10 / self.spec.launches).max(1);
        for launch in 0..self.spec.launches {
            self.push(rank, now_ns, Op::CudaLaunchKernel, |event| Event {
                arg0: function + launch,
                arg1: 0x5500,
                ..event
            });
            now_ns += gap_ns;
        }
        let mut work_ns = whole_ns(self.spec.iteration_ns as f64 * self.rng.random_range(0.95..1.05));
        while work_ns > 0 {
            let slice_ns = work_ns.min(self.rng.random_range(2 * MS..5 * MS));
            (now_ns, work_ns) = (now_ns + slice_ns, work_ns - slice_ns);
            // Two processes on one CPU get equal shares of it (fair scheduling): the rank waits as long as it ran.
            let wait_ns = if self.spec.slow_rank == Some(rank) {
                whole_ns(slice_ns as f64 * self.rng.random_range(0.8..1.2))
            } else if self.rng.random_range(0.0..1.0) < 0.05 {
                self.rng.random_range(20 * US..200 * US)
            } else {
                continue;
            };
            self.wait_for_cpu(rank, now_ns, wait_ns);
            now_ns += wait_ns;
        }
        now_ns
    }

    fn wait_for_cpu(&mut self, rank: i32, from_ns: i64, duration_ns: i64) {
        let (peer_pid, peer_comm) =
            if self.spec.slow_rank == Some(rank) { (HOG_PID, "cpu-hog") } else { (77, "kworker/0:1") };
        self.push(rank, from_ns, Op::RunnableWait, |event| Event {
            duration: Some(MeasuredDuration::of_each(duration_ns)),
            arg0: i64::from(peer_pid),
            peer_pid: Some(peer_pid),
            peer_comm: Some(peer_comm),
            ..event
        });
    }

    /// The collective, and the call that waits until all ranks have joined it.
    fn meet(&mut self, rank: i32, arrival_ns: i64, released_ns: i64) {
        let iteration = self.iteration;
        self.push(rank, arrival_ns, Op::NcclAllReduce, |event| Event {
            duration: Some(MeasuredDuration::of_each(5 * US)),
            bytes: Some(1 << 24),
            comm_hash: Some(0x1234_5678_90ab),
            coll_seq: Some(iteration),
            ..event
        });
        // Not negative: the release lies 50 µs or more behind every arrival.
        let asleep_ns = released_ns - arrival_ns - 10 * US;
        self.push(rank, arrival_ns + 10 * US, Op::Blocked, |event| Event {
            duration: Some(MeasuredDuration::of_each(asleep_ns)),
            arg0: 1,
            ..event
        });
        let end_ns = released_ns + 20 * US;
        let sync_ns = end_ns - arrival_ns;
        self.push(rank, arrival_ns, Op::CudaStreamSync, |event| Event {
            duration: Some(MeasuredDuration::of_each(sync_ns)),
            ..event
        });
        if let Some(free_ns) = usize::try_from(rank).ok().and_then(|rank| self.free_ns.get_mut(rank)) {
            *free_ns = end_ns;
        }
    }

    fn free(&self, rank: i32) -> i64 {
        usize::try_from(rank).ok().and_then(|rank| self.free_ns.get(rank)).copied().unwrap_or(BOOT_NS)
    }

    /// Adds an event of the rank's main thread that begins at `boot_ns`.
    fn push(&mut self, rank: i32, boot_ns: i64, op: Op, filled: impl FnOnce(Event<'static>) -> Event<'static>) {
        let local_rank = rank % self.ranks_per_node;
        // Always there: ranks are numbered node by node.
        let Some(node) = usize::try_from(rank / self.ranks_per_node).ok().and_then(|node| self.nodes.get_mut(node))
        else {
            return;
        };
        let process = ProcessInfo {
            rank: Some(rank),
            local_rank: Some(local_rank),
            world_size: Some(node.world_size),
            job_id: Some("sim-job"),
            cgroup_id: 77,
            ..ProcessInfo::default()
        };
        let pid = 4_000 + local_rank;
        let comm = Some("python3");
        let gpu_id = Some(local_rank);
        let event = Event { boot_ns, pid, tid: pid, comm, process, gpu_id, sample_weight: 1.0, ..Event::default() };
        node.rows.push(&filled(event.with_op(op)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(slow_rank: Option<i32>) -> TrainingJob {
        let fleet = FleetSpec {
            nodes: 2,
            ranks_per_node: 2,
            seed: 7,
            rows: 0,
            gap_ns: 1,
            start_wall_ns: 1_800_000_000_000_000_000,
        };
        TrainingJob::new(&fleet, JobSpec { iteration_ns: 20 * MS, launches: 4, slow_rank })
    }

    fn iterations_in_a_second(slow_rank: Option<i32>) -> i64 {
        let mut job = job(slow_rank);
        job.run_until(1_800_000_001_000_000_000).unwrap();
        job.iteration
    }

    #[test]
    fn a_slow_rank_slows_every_rank_down() {
        let (healthy, slowed) = (iterations_in_a_second(None), iterations_in_a_second(Some(3)));
        assert!((40..=50).contains(&healthy), "{healthy}");
        assert!((20..=25).contains(&slowed), "{slowed}");
    }

    #[test]
    fn a_rate_is_met_by_longer_iterations_or_more_launches() {
        let slow = JobSpec::at_rate(32, 4_000, None);
        assert_eq!((slow.iteration_ns / MS, slow.launches), (64, 4));
        let fast = JobSpec::at_rate(32, 1_000_000, None);
        assert_eq!((fast.iteration_ns / MS, fast.launches), (20, 621));
    }

    #[test]
    fn every_node_sends_what_happened_until_then_and_no_more() {
        let mut job = job(Some(3));
        let messages = job.run_until(1_800_000_000_500_000_000).unwrap();
        let names: Vec<&str> = messages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["gpu-node-0000", "gpu-node-0001"]);
        let iterations = job.iteration;
        assert!(job.run_until(1_800_000_000_500_000_000).unwrap().is_empty());
        assert_eq!(job.iteration, iterations);
    }
}
