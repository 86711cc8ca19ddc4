//! One process: rows held back until the watermark, and its threads' iterations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::features::{OTHER_PEERS, OffCpu, OffCpuReason, Span};
use crate::iteration::{Call, Thread};
use crate::observation::{Kind, Observation};
use crate::rules::Limits;

/// A process that had a CPU while a thread of ours wanted it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Peer {
    /// Process id; where the agent did not know it, the thread's id.
    pub(crate) pid: i32,
    pub(crate) comm: Option<Arc<str>>,
}

/// Peers by number, so that an iteration can hold a number.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    known: Vec<Peer>,
    numbers: HashMap<Peer, u32>,
}

impl Peers {
    fn number(&mut self, peer: Peer, most: usize) -> u32 {
        if let Some(&number) = self.numbers.get(&peer) {
            return number;
        }
        let number = u32::try_from(self.known.len()).ok().filter(|_| self.known.len() < most);
        let Some(number) = number else { return OTHER_PEERS };
        self.known.push(peer.clone());
        self.numbers.insert(peer, number);
        number
    }

    /// `None` for "others".
    pub(crate) fn get(&self, number: u32) -> Option<&Peer> {
        self.known.get(usize::try_from(number).ok()?)
    }
}

/// A row held back.
#[derive(Debug)]
struct Row {
    span: Span,
    tid: i32,
    kind: Kind,
    source: i32,
    op: i32,
    offset_ns: i64,
    error_ns: i64,
    peer: u32,
    /// Of waits for a CPU only: they are evidence.
    event_id: Option<Arc<str>>,
}

impl Row {
    fn end_ts_ns(&self) -> i64 {
        self.span.end_ns + self.offset_ns
    }

    /// The order of folding: by end, ties by what the row says and never by arrival.
    fn key(&self) -> impl Ord + use<> {
        let Span { start_ns, end_ns } = self.span;
        (end_ns, std::cmp::Reverse(start_ns), self.tid, self.source, self.op, self.kind, self.event_id.clone())
    }
}

/// What is known of a process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    /// Job, of any row that named one.
    pub(crate) job: Option<Arc<str>>,
    pub(crate) rank: Option<i32>,
    pub(crate) world_size: Option<i32>,
    pub(crate) threads: BTreeMap<i32, Thread>,
    pub(crate) peers: Peers,
    /// Rows of any kind.
    pub(crate) rows: u64,
    /// Rows that say when a thread was off the CPU.
    pub(crate) scheduler_rows: u64,
    /// Rows that came after their time was folded, or with times beyond belief, or beyond a bound.
    pub(crate) left_out: u64,
    /// Iterations forgotten at the bound.
    pub(crate) iterations_forgotten: u64,
    /// Whether iterations were added since the last report.
    pub(crate) has_news: bool,
    pending: Vec<Row>,
    tids: BTreeSet<i32>,
    folded_until_ts_ns: Option<i64>,
}

impl Process {
    /// Takes a row; says whether it is held back now.
    pub(crate) fn observe(&mut self, row: &Observation<'_>, limits: &Limits) -> bool {
        self.rows += 1;
        self.identify(row);
        let Some(kind) = row.kind() else { return false };
        let is_late = self.folded_until_ts_ns.is_some_and(|until| row.ts_ns.saturating_add(row.duration_ns) <= until);
        let is_known = self.tids.contains(&row.tid) || self.tids.len() < limits.threads_per_process;
        if is_late || !is_known || !row.is_plausible() {
            self.left_out += 1;
            return false;
        }
        self.tids.insert(row.tid);
        let waits_for_cpu = kind == Kind::Runnable;
        self.pending.push(Row {
            span: Span { start_ns: row.boot_ns, end_ns: row.boot_ns + row.duration_ns },
            tid: row.tid,
            kind,
            source: row.source,
            op: row.op,
            offset_ns: row.ts_ns - row.boot_ns,
            error_ns: row.clock_error_ns.max(0),
            peer: if waits_for_cpu { self.peers.number(peer_of(row), limits.peers_per_process) } else { OTHER_PEERS },
            event_id: waits_for_cpu.then(|| Arc::from(row.event_id)),
        });
        true
    }

    /// Of several values the least is taken, so that the order of arrival plays no part.
    fn identify(&mut self, row: &Observation<'_>) {
        if let Some(job) = row.job_id.filter(|job| !NO_NAMES.contains(job))
            && self.job.as_deref().is_none_or(|known| job < known)
        {
            self.job = Some(Arc::from(job));
        }
        self.rank = least(self.rank, row.rank);
        self.world_size = least(self.world_size, row.world_size);
    }

    pub(crate) fn pending_rows(&self) -> usize {
        self.pending.len()
    }

    /// Folds what ended at or before the watermark; says how many rows that was.
    pub(crate) fn fold_until(&mut self, watermark_ts_ns: i64, limits: &Limits) -> usize {
        let before = self.pending.len();
        let (ready, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|row| row.end_ts_ns() <= watermark_ts_ns);
        self.pending = later;
        self.folded_until_ts_ns = self.folded_until_ts_ns.max(Some(watermark_ts_ns));
        self.fold(ready, limits);
        before - self.pending.len()
    }

    /// Folds the older half of what is held back; says how many rows that was.
    pub(crate) fn fold_older_half(&mut self, limits: &Limits) -> usize {
        let mut ends: Vec<i64> = self.pending.iter().map(Row::end_ts_ns).collect();
        let middle = ends.len() / 2;
        if ends.is_empty() {
            return 0;
        }
        let (_, &mut until_ts_ns, _) = ends.select_nth_unstable(middle);
        self.fold_until(until_ts_ns, limits)
    }

    fn fold(&mut self, mut rows: Vec<Row>, limits: &Limits) {
        rows.sort_by_cached_key(Row::key);
        for row in rows {
            let thread = self.threads.entry(row.tid).or_default();
            let cut_before = thread.iterations_seen();
            match row.kind {
                Kind::Runnable => {
                    self.scheduler_rows += 1;
                    let id = row.event_id.unwrap_or_else(|| Arc::from(""));
                    thread.off_cpu(OffCpu { span: row.span, why: OffCpuReason::Runnable { peer: row.peer, id } });
                }
                Kind::Blocked(uninterruptible) => {
                    self.scheduler_rows += 1;
                    thread.off_cpu(OffCpu { span: row.span, why: OffCpuReason::Blocked { uninterruptible } });
                }
                Kind::Sync | Kind::Collective | Kind::Copy(_) => thread.call(Call {
                    span: row.span,
                    kind: row.kind,
                    source: row.source,
                    op: row.op,
                    offset_ns: row.offset_ns,
                    error_ns: row.error_ns,
                }),
            }
            self.has_news |= thread.iterations_seen() > cut_before;
            self.left_out += thread.bound_intervals(limits.intervals_per_thread);
        }
    }

    /// The thread that drives the GPU: the one with the most iterations.
    pub(crate) fn driver(&self) -> Option<(i32, &Thread)> {
        let busiest =
            self.threads.iter().max_by_key(|(tid, thread)| (thread.iterations_seen(), std::cmp::Reverse(**tid)))?;
        (busiest.1.iterations_seen() > 0).then_some((*busiest.0, busiest.1))
    }

    pub(crate) fn tids(&self) -> impl Iterator<Item = i32> {
        self.tids.iter().copied()
    }

    pub(crate) fn keep_latest_iterations(&mut self, most_per_thread: usize) {
        for thread in self.threads.values_mut() {
            self.iterations_forgotten += thread.keep_latest(most_per_thread);
        }
    }
}

/// What launchers call a job that nobody named (torchrun: `none`).
const NO_NAMES: [&str; 2] = ["", "none"];

/// `arg0` of a wait is the thread that took the CPU.
fn peer_of(row: &Observation<'_>) -> Peer {
    let pid = row.peer_pid.unwrap_or_else(|| i32::try_from(row.arg0).unwrap_or(0));
    Peer { pid, comm: row.peer_comm.map(Arc::from) }
}

fn least(known: Option<i32>, seen: Option<i32>) -> Option<i32> {
    match (known, seen) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
