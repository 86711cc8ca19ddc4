//! One process: rows held back until the watermark, and its threads' iterations.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use event_schema::catalog::Op;

use crate::features::{Holder, OffCpu, OffCpuReason, Peer, Span};
use crate::iteration::{Call, Thread};
use crate::observation::{Kind, Observation};
use crate::rules::Limits;

/// What folding needs from outside the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) limits: &'a Limits,
    /// Processes and threads of the job with their nodes, and the node of this one.
    pub(crate) own: Option<&'a HashSet<(usize, i32)>>,
    pub(crate) node: usize,
}

impl Bounds<'_> {
    fn holder(self, peer: Peer) -> Holder {
        match peer.pid {
            // 0 stands for an idle CPU and for a peer that was not recorded; no process has it.
            ..=0 => Holder::Unknown,
            pid if self.own.is_some_and(|own| own.contains(&(self.node, pid))) => Holder::OwnJob,
            _ => Holder::Outsider(peer),
        }
    }
}

/// A row held back.
#[derive(Debug)]
struct Row {
    span: Span,
    tid: i32,
    kind: Kind,
    op: Op,
    offset_ns: i64,
    error_ns: i64,
    /// Of waits for a CPU only: who had it, and the row's id, for they are evidence.
    wait: Option<(Peer, Arc<str>)>,
}

impl Row {
    fn end_ts_ns(&self) -> i64 {
        self.span.end_ns + self.offset_ns
    }

    /// The order of folding: by end, ties by what the row says and never by arrival.
    fn key(&self) -> impl Ord + '_ {
        let Span { start_ns, end_ns } = self.span;
        let event_id = self.wait.as_ref().map(|wait| &wait.1);
        (end_ns, Reverse(start_ns), self.tid, self.op, self.kind, event_id)
    }
}

/// What is known of a process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    /// Job, of any row that named one.
    pub(crate) job: Option<Arc<str>>,
    rank: Option<Stated>,
    world_size: Option<Stated>,
    pub(crate) threads: BTreeMap<i32, Thread>,
    /// From the first to the last row with a plausible time, unix nanoseconds.
    pub(crate) life: Option<Span>,
    /// Rows of any kind.
    pub(crate) rows: u64,
    /// Rows that say when a thread was off the CPU.
    pub(crate) scheduler_rows: u64,
    /// Rows that came after their time was folded, that have impossible times or no duration, or that are of threads
    /// beyond the bound.
    left_out: u64,
    /// Iterations discarded at the bound.
    pub(crate) iterations_forgotten: u64,
    /// Whether iterations were added since the last report.
    pub(crate) has_news: bool,
    pending: Vec<Row>,
    tids: BTreeSet<i32>,
    folded_until_ts_ns: Option<i64>,
}

impl Process {
    /// Takes a row; returns whether it is held back now.
    pub(crate) fn observe(&mut self, row: &Observation<'_>, limits: &Limits) -> bool {
        self.rows += 1;
        // Before any row is left out: a late row, or one of no use to the engine, states job and rank as well.
        self.identify(row);
        self.live(row);
        // An operation of a newer agent, or one that the engine has no use for. Nothing is missing, so it is not
        // counted as left out.
        let Some(op) = row.operation() else { return false };
        let Some(kind) = row.kind_of(op) else { return false };
        // Its time was folded. Taking it now would make the answer depend on the order of arrival.
        let is_late = self.folded_until_ts_ns.is_some_and(|until| row.ts_ns.saturating_add(row.length_ns()) <= until);
        let is_known = self.tids.contains(&row.tid) || self.tids.len() < limits.threads_per_process;
        // Of a launch only its beginning counts; any other call or wait is known by its length.
        let is_timed = row.duration_ns.is_some() || kind == Kind::Launch;
        if is_late || !is_known || !is_timed || !row.is_plausible() {
            self.left_out += 1;
            return false;
        }
        self.tids.insert(row.tid);
        // Only these rows become evidence. An id takes more memory than the rest of its row (`Limits::pending_rows`).
        let wait = matches!(kind, Kind::Runnable(_)).then(|| (Peer { pid: row.peer() }, Arc::from(row.event_id)));
        self.pending.push(Row {
            // Cannot overflow: `is_plausible` bounds both.
            span: Span { start_ns: row.boot_ns, end_ns: row.boot_ns + row.length_ns() },
            tid: row.tid,
            kind,
            op,
            offset_ns: row.ts_ns - row.boot_ns,
            error_ns: row.clock_error_ns.max(0),
            wait,
        });
        true
    }

    fn live(&mut self, row: &Observation<'_>) {
        if row.is_plausible() {
            let life = self.life.get_or_insert(Span { start_ns: row.ts_ns, end_ns: row.ts_ns });
            life.start_ns = life.start_ns.min(row.ts_ns);
            life.end_ns = life.end_ns.max(row.ts_ns + row.length_ns());
        }
    }

    /// Takes the job and rank that a row states. Of several jobs the least is kept, and of several ranks the one stated
    /// last: at first a process may have that of the launcher it was forked from (ADR 27). The order of arrival plays
    /// no part.
    fn identify(&mut self, row: &Observation<'_>) {
        // The least name: a rule that does not depend on the order of arrival.
        if let Some(job) = row.job_id.filter(|job| !NO_NAMES.contains(job))
            && self.job.as_deref().is_none_or(|known| job < known)
        {
            self.job = Some(Arc::from(job));
        }
        // A row with an impossible time states a value too, which gives way to that of any other row.
        let ts_ns = if row.is_plausible() { row.ts_ns } else { i64::MIN };
        self.rank = latest(self.rank, row.rank, ts_ns);
        self.world_size = latest(self.world_size, row.world_size, ts_ns);
    }

    pub(crate) fn rank(&self) -> Option<i32> {
        self.rank.map(|rank| rank.value)
    }

    pub(crate) fn world_size(&self) -> Option<i32> {
        self.world_size.map(|size| size.value)
    }

    pub(crate) fn pending_rows(&self) -> usize {
        self.pending.len()
    }

    /// Folds what ended at or before the watermark; returns how many rows that was.
    pub(crate) fn fold_until(&mut self, watermark_ts_ns: i64, bounds: Bounds<'_>) -> usize {
        let before = self.pending.len();
        // By wall time: one watermark serves all nodes, and their boot clocks have no common origin.
        let (ready, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|row| row.end_ts_ns() <= watermark_ts_ns);
        self.pending = later;
        // Never backwards: an early fold may be ahead of the watermark. `None` orders before every `Some`.
        self.folded_until_ts_ns = self.folded_until_ts_ns.max(Some(watermark_ts_ns));
        self.fold(ready, bounds);
        before - self.pending.len()
    }

    /// Folds the older half of what is held back; returns how many rows that was.
    pub(crate) fn fold_older_half(&mut self, bounds: Bounds<'_>) -> usize {
        let mut ends: Vec<i64> = self.pending.iter().map(Row::end_ts_ns).collect();
        let middle = ends.len() / 2;
        if ends.is_empty() {
            return 0;
        }
        // Quickselect finds the median in linear time, where sorting would order rows that stay held back.
        let (_, &mut until_ts_ns, _) = ends.select_nth_unstable(middle);
        self.fold_until(until_ts_ns, bounds)
    }

    fn fold(&mut self, mut rows: Vec<Row>, bounds: Bounds<'_>) {
        // By end, since an iteration ends where a call returns. A call inside another one comes before it.
        rows.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        for row in rows {
            self.fold_row(row, bounds);
        }
    }

    fn fold_row(&mut self, row: Row, bounds: Bounds<'_>) {
        let thread = self.threads.entry(row.tid).or_default();
        let cut_before = thread.iterations_seen();
        match row.kind {
            Kind::Runnable(woken) => {
                self.scheduler_rows += 1;
                // Always there: `observe` sets it for every wait for a CPU.
                let Some((peer, id)) = row.wait else { return };
                let holder = bounds.holder(peer);
                thread.off_cpu(OffCpu { span: row.span, why: OffCpuReason::Runnable { woken, holder, id } });
            }
            Kind::Blocked(uninterruptible) => {
                self.scheduler_rows += 1;
                thread.off_cpu(OffCpu { span: row.span, why: OffCpuReason::Blocked { uninterruptible } });
            }
            Kind::Sync | Kind::Collective | Kind::Copy(_) | Kind::Launch => thread.call(Call {
                span: row.span,
                kind: row.kind,
                op: row.op,
                offset_ns: row.offset_ns,
                error_ns: row.error_ns,
            }),
        }
        self.has_news |= thread.iterations_seen() > cut_before;
        thread.bound_intervals(bounds.limits.intervals_per_thread);
    }

    /// The thread that drives the GPU: the one with the most iterations.
    pub(crate) fn driver(&self) -> Option<(i32, &Thread)> {
        // Of equals the thread with the smaller id.
        let busiest = self.threads.iter().max_by_key(|(tid, thread)| (thread.iterations_seen(), Reverse(**tid)))?;
        (busiest.1.iterations_seen() > 0).then_some((*busiest.0, busiest.1))
    }

    /// Rows not used. Of what was dropped at the bound of intervals only that of the driver counts: no other thread is
    /// looked at.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out + self.driver().map_or(0, |(_, thread)| thread.dropped())
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

/// What launchers call a job without a name (torchrun: `none`).
const NO_NAMES: [&str; 2] = ["", "none"];

/// A value that a row states. The least is that of the latest row, and of rows of one time that of the least value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stated {
    ts_ns: Reverse<i64>,
    value: i32,
}

/// What is known after a row of this time that states a value, or none.
fn latest(known: Option<Stated>, value: Option<i32>, ts_ns: i64) -> Option<Stated> {
    let stated = value.map(|value| Stated { ts_ns: Reverse(ts_ns), value });
    known.into_iter().chain(stated).min()
}
