//! A simulated job: ranks that compute, meet at a barrier and go on, with faults put in on purpose. What its rows say follows
//! from what happened, as with the real probes: runtime calls around driver calls, waits inside calls, late wake-ups.

use event_schema::catalog::{Op, Source};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

mod rows;

pub(crate) use rows::{Row, batch, feed, findings};

const MS: i64 = 1_000_000;
const US: i64 = 1_000;
/// The wall time at which jobs begin: 2026-01-01.
pub(crate) const BEGIN_NS: i64 = 1_767_225_600_000_000_000;
pub(crate) const HOG_PID: i32 = 4_242;

/// What is wrong with the job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// A process outside the job shares the rank's CPU, in these iterations.
    Hog {
        rank: usize,
        from: usize,
        to: usize,
    },
    HogEverywhere,
    /// Every rank waits this long per iteration for processes outside the job.
    Toll {
        ns: i64,
    },
    /// The rank has this many times the work of the others.
    MoreWork {
        rank: usize,
        times: f64,
    },
    /// The rank sleeps this long per iteration; uninterruptibly when `io`.
    Sleep {
        rank: usize,
        ns: i64,
        io: bool,
    },
    /// The rank copies this many times the bytes.
    MoreBytes {
        rank: usize,
        times: i64,
    },
    /// The job's other ranks have the rank's CPU half of the time.
    Siblings {
        rank: usize,
    },
    /// A hog takes the CPU of another thread of the rank.
    HogOnHelper {
        rank: usize,
    },
    /// The rank sleeps this long in every so manieth iteration.
    Pause {
        rank: usize,
        every: usize,
        ns: i64,
    },
    /// A hog takes the CPU of the rank while it waits for others anyway.
    HogWhileWaiting {
        rank: usize,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) seed: u64,
    pub(crate) ranks: usize,
    pub(crate) iterations: usize,
    pub(crate) work_ns: i64,
    pub(crate) faults: Vec<Fault>,
    /// How long the GPU still works when the collective is done; every rank waits for that.
    pub(crate) gpu_ns: i64,
    /// How long a hog keeps the CPU relative to how long the rank had it.
    pub(crate) hog_strength: f64,
    /// Processes that the hog is, which take turns.
    pub(crate) hog_processes: i64,
    pub(crate) scheduler_rows: bool,
    /// All ranks but the last share a CPU: each waits up to this long per iteration for the others.
    pub(crate) crowd_ns: i64,
    /// Threads of each rank beside its own that synchronise never and wake every 5 ms, as those of a data loader.
    pub(crate) helper_threads: i32,
    /// Rank r runs on node r % nodes.
    pub(crate) nodes: usize,
    /// How far node n's wall clock is off: n times this.
    pub(crate) clock_offset_ns: i64,
    pub(crate) clock_error_ns: i64,
    /// Share of synchronising calls whose rows are lost.
    pub(crate) lost_syncs: f64,
    /// Whether waiting for the collective shows as a traced call; else only as sleep.
    pub(crate) collective_is_traced: bool,
    pub(crate) world_size: i32,
    pub(crate) job_id: Option<&'static str>,
    pub(crate) pid_base: i32,
    pub(crate) begin_ns: i64,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            seed: 1,
            ranks: 4,
            iterations: 200,
            work_ns: 6 * MS,
            faults: Vec::new(),
            gpu_ns: 0,
            hog_strength: 1.0,
            hog_processes: 1,
            scheduler_rows: true,
            crowd_ns: 0,
            helper_threads: 0,
            nodes: 1,
            clock_offset_ns: 0,
            clock_error_ns: 50 * US,
            lost_syncs: 0.0,
            collective_is_traced: true,
            world_size: 4,
            job_id: Some("train-1"),
            pid_base: 1_000,
            begin_ns: BEGIN_NS,
        }
    }
}

impl Job {
    pub(crate) fn with(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn hog(rank: usize) -> Self {
        Self::with([Fault::Hog { rank, from: 0, to: usize::MAX }])
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        Simulation { job: self, rng: StdRng::seed_from_u64(self.seed), rows: Vec::new(), seq: 0 }.run()
    }
}

struct Simulation<'a> {
    job: &'a Job,
    rng: StdRng,
    rows: Vec<Row>,
    seq: i64,
}

impl Simulation<'_> {
    fn run(mut self) -> Vec<Row> {
        let job = self.job;
        let habits: Vec<f64> = (0..job.ranks).map(|_| self.rng.random_range(0.97..1.03)).collect();
        let mut free_ns = vec![job.begin_ns; job.ranks];
        for iteration in 0..job.iterations {
            let arrivals: Vec<i64> =
                (0..job.ranks).map(|rank| self.compute(rank, iteration, free_ns[rank], habits[rank])).collect();
            let released_ns = arrivals.iter().copied().max().unwrap_or(0) + job.gpu_ns + 50 * US;
            for rank in 0..job.ranks {
                self.help(rank, free_ns[rank], released_ns);
                free_ns[rank] = self.meet(rank, iteration, arrivals[rank], released_ns);
            }
        }
        self.rows
    }

    /// One rank's own part of an iteration; says when it is done.
    fn compute(&mut self, rank: usize, iteration: usize, start_ns: i64, habit: f64) -> i64 {
        let mut now_ns = self.copy(rank, start_ns);
        let cold = if iteration == 0 { 20.0 } else { 1.0 };
        let mut times = habit * cold * self.rng.random_range(0.95..1.05);
        for fault in &self.job.faults {
            match *fault {
                Fault::MoreWork { rank: slow, times: more } if slow == rank => times *= more,
                Fault::Sleep { rank: slow, ns, io } if slow == rank => {
                    self.push(rank, Op::Blocked, (now_ns, ns), |row| row.arg0 = 1 + i64::from(io));
                    now_ns += ns;
                }
                Fault::Pause { rank: slow, every, ns } if slow == rank && iteration.is_multiple_of(every) => {
                    self.push(rank, Op::Blocked, (now_ns, ns), |row| row.arg0 = 1);
                    now_ns += ns;
                }
                Fault::HogOnHelper { rank: slow } if slow == rank => {
                    let ns = self.job.work_ns;
                    self.push(rank, Op::RunnableWait, (now_ns, ns), wait_of_helper);
                }
                Fault::Toll { ns } => {
                    self.wait(rank, now_ns, ns, (88, "backup"));
                    now_ns += ns;
                }
                _ => {}
            }
        }
        if self.job.crowd_ns > 0 && rank + 1 < self.job.ranks {
            let wait_ns = self.rng.random_range(0..self.job.crowd_ns);
            self.wait(rank, now_ns, wait_ns, (self.pid((rank + 1) % (self.job.ranks - 1)), "python"));
            now_ns += wait_ns;
        }
        let mut work_ns = (self.job.work_ns as f64 * times) as i64;
        while work_ns > 0 {
            let slice_ns = work_ns.min(self.rng.random_range(800 * US..2_500 * US));
            now_ns += slice_ns;
            work_ns -= slice_ns;
            now_ns = self.interrupt(rank, iteration, now_ns, slice_ns);
        }
        now_ns
    }

    fn help(&mut self, rank: usize, from_ns: i64, to_ns: i64) {
        for helper in 1..=self.job.helper_threads {
            for start_ns in (from_ns..to_ns).step_by(5 * MS as usize) {
                self.push(rank, Op::Blocked, (start_ns, 4 * MS), |row| (row.tid, row.arg0) = (row.tid + helper, 1));
            }
        }
    }

    fn copy(&mut self, rank: usize, start_ns: i64) -> i64 {
        let more = self.job.faults.iter().find_map(|fault| match *fault {
            Fault::MoreBytes { rank: slow, times } if slow == rank => Some(times),
            _ => None,
        });
        let times = more.unwrap_or(1);
        let bytes = 1 << 20;
        let took_ns = 100 * US * times;
        self.push(rank, Op::CudaMemcpyAsync, (start_ns, took_ns), |row| row.bytes = Some(bytes * times));
        self.push(rank, Op::CuMemcpyAsync, (start_ns + 2 * US, took_ns - 4 * US), |row| {
            row.bytes = Some(bytes * times)
        });
        start_ns + took_ns
    }

    /// After a slice of work the rank may lose its CPU; says when it has it back.
    fn interrupt(&mut self, rank: usize, iteration: usize, now_ns: i64, slice_ns: i64) -> i64 {
        let hogged = self.is_hogged(rank, iteration);
        let crowded = self.job.faults.contains(&Fault::Siblings { rank });
        let (wait_ns, peer) = match self.rng.random_range(0.0..1.0) {
            _ if hogged => (
                (slice_ns as f64 * self.job.hog_strength * self.rng.random_range(0.8..1.2)) as i64,
                (self.hog_pid(), "cpu-hog"),
            ),
            _ if crowded => (slice_ns, (self.pid((rank + 1) % self.job.ranks), "python")),
            dice if dice < 0.3 => {
                (self.rng.random_range(20 * US..300 * US), (self.pid((rank + 1) % self.job.ranks), "python"))
            }
            dice if dice < 0.34 => (self.rng.random_range(50 * US..2_000 * US), (77, "kworker/0:1")),
            _ => return now_ns,
        };
        self.wait(rank, now_ns, wait_ns, peer);
        now_ns + wait_ns
    }

    fn is_hogged(&self, rank: usize, iteration: usize) -> bool {
        self.job.faults.iter().any(|fault| match *fault {
            Fault::Hog { rank: slow, from, to } => slow == rank && (from..to).contains(&iteration),
            Fault::HogEverywhere => true,
            _ => false,
        })
    }

    /// The collective and the call that waits for it; says when the rank goes on.
    fn meet(&mut self, rank: usize, iteration: usize, arrival_ns: i64, released_ns: i64) -> i64 {
        let asleep_ns = released_ns - arrival_ns - 10 * US;
        self.push(rank, Op::Blocked, (arrival_ns + 10 * US, asleep_ns), |row| row.arg0 = 1);
        if self.job.faults.contains(&Fault::HogWhileWaiting { rank }) && asleep_ns > 2 * MS {
            self.wait(rank, arrival_ns + MS / 2, asleep_ns - MS, (HOG_PID, "cpu-hog"));
        }
        let late_ns = self.wake(rank, iteration, released_ns);
        let end_ns = released_ns + late_ns + 20 * US;
        let call_from_ns = if self.job.collective_is_traced { arrival_ns } else { released_ns + late_ns };
        if self.job.collective_is_traced {
            self.push(rank, Op::NcclAllReduce, (arrival_ns, 5 * US), |row| row.bytes = Some(1 << 24));
        }
        if self.rng.random_range(0.0..1.0) >= self.job.lost_syncs {
            self.push(rank, Op::CuStreamSynchronize, (call_from_ns + 2 * US, end_ns - call_from_ns - 4 * US), |_| {});
            self.push(rank, Op::CudaStreamSync, (call_from_ns, end_ns - call_from_ns), |_| {});
        }
        end_ns
    }

    fn wake(&mut self, rank: usize, iteration: usize, released_ns: i64) -> i64 {
        let hogged = self.is_hogged(rank, iteration);
        let (late_ns, peer) = match self.rng.random_range(0.0..1.0) {
            dice if hogged && dice < 0.5 => (self.rng.random_range(200 * US..2_000 * US), (self.hog_pid(), "cpu-hog")),
            dice if dice < 0.3 => {
                (self.rng.random_range(20 * US..200 * US), (self.pid((rank + 1) % self.job.ranks), "python"))
            }
            _ => return 0,
        };
        self.wait_for_cpu(rank, (released_ns, late_ns), true, peer);
        late_ns
    }

    fn wait(&mut self, rank: usize, start_ns: i64, ns: i64, peer: (i32, &str)) {
        self.wait_for_cpu(rank, (start_ns, ns), false, peer);
    }

    fn wait_for_cpu(&mut self, rank: usize, (start_ns, ns): (i64, i64), woken: bool, (pid, comm): (i32, &str)) {
        self.push(rank, Op::RunnableWait, (start_ns, ns), |row| {
            (row.arg0, row.arg1) = (i64::from(pid), i64::from(woken));
            row.peer = Some((pid, comm.to_owned()));
        });
    }

    fn hog_pid(&self) -> i32 {
        HOG_PID + (self.seq % self.job.hog_processes) as i32
    }

    fn pid(&self, rank: usize) -> i32 {
        self.job.pid_base + 10 * rank as i32
    }

    /// Adds a row with its start and duration.
    fn push(&mut self, rank: usize, op: Op, (start_ns, duration_ns): (i64, i64), more: impl FnOnce(&mut Row)) {
        if op.source() == Source::Host && !self.job.scheduler_rows {
            return;
        }
        let node = rank % self.job.nodes;
        let offset_ns = self.job.clock_offset_ns * node as i64;
        let booted_ns = BEGIN_NS - 3_600_000 * MS * (node as i64 + 1);
        self.seq += 1;
        let node_name = format!("gpu-node-{:02}", node + 1);
        let mut row = Row {
            event_id: format!("{node_name}:0f1e2d3c:{}", self.seq),
            node: node_name,
            ts_ns: start_ns + offset_ns,
            boot_ns: start_ns - booted_ns,
            clock_error_ns: self.job.clock_error_ns,
            op,
            duration_ns: duration_ns.max(0),
            pid: self.pid(rank),
            tid: self.pid(rank),
            rank: Some(rank as i32),
            world_size: self.job.world_size,
            job_id: self.job.job_id,
            arg0: 0,
            arg1: 0,
            bytes: None,
            peer: None,
        };
        more(&mut row);
        self.rows.push(row);
    }
}

/// A wait of a rank's helper thread for the processor that the hog holds.
fn wait_of_helper(row: &mut Row) {
    row.tid += 1;
    row.peer = Some((HOG_PID, "cpu-hog".to_owned()));
}
