//! Arithmetic of spans of time, and how one iteration's time was spent: waiting for other ranks, waiting for a CPU,
//! sleeping, running.

use std::cmp::Ordering;
use std::sync::Arc;

/// A half-open stretch of a node's boot clock, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
}

impl Span {
    pub(crate) fn length_ns(self) -> i64 {
        (self.end_ns - self.start_ns).max(0)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start_ns < other.end_ns && other.start_ns < self.end_ns
    }

    fn common(self, other: Self) -> Self {
        Self { start_ns: self.start_ns.max(other.start_ns), end_ns: self.end_ns.min(other.end_ns) }
    }
}

/// Sorted spans that do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// Adds a span that ends no earlier than those before it. Spans that lie inside it are absorbed: a runtime call and
    /// the driver call it makes are one wait.
    pub(crate) fn push(&mut self, mut span: Span) {
        // Spans come by their ends: one before that began later, or at the same time, lies inside this one.
        while self.0.last().is_some_and(|last| last.start_ns >= span.start_ns) {
            self.0.pop();
        }
        if let Some(last) = self.0.last() {
            // A partial overlap counts once, with the earlier span.
            span.start_ns = span.start_ns.max(last.end_ns);
        }
        if span.end_ns > span.start_ns {
            self.0.push(span);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn forget_older_half(&mut self) {
        self.0.drain(..self.0.len() / 2);
    }

    pub(crate) fn length_ns(&self) -> i64 {
        self.0.iter().map(|span| span.length_ns()).sum()
    }

    /// What of `whole` is not covered.
    pub(crate) fn gaps(&self, whole: Span) -> Self {
        let mut gaps = Self::default();
        let mut from_ns = whole.start_ns;
        for span in &self.0 {
            gaps.push(Span { start_ns: from_ns, end_ns: span.start_ns.min(whole.end_ns) });
            from_ns = from_ns.max(span.end_ns);
        }
        gaps.push(Span { start_ns: from_ns, end_ns: whole.end_ns });
        gaps
    }

    /// How much of `span` is covered, nanoseconds.
    pub(crate) fn overlap_ns(&self, span: Span) -> i64 {
        // Binary search: spans are sorted and disjoint, so that their ends rise with their starts.
        let first = self.0.partition_point(|own| own.end_ns <= span.start_ns);
        let touching = self.0[first..].iter().take_while(|own| own.start_ns < span.end_ns);
        touching.map(|own| own.common(span).length_ns()).sum()
    }
}

/// A process that used a CPU while a thread of the job waited for it, by its number on the node; where the agent had no
/// record of the process, the number of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
}

/// What used the CPU that a thread waited for, as far as is known when the wait is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Outsider(Peer),
    OwnJob,
    /// None (an idle CPU), or it is not known.
    Unknown,
}

/// A stretch in which a thread was not running.
#[derive(Debug, Clone)]
pub(crate) struct OffCpu {
    pub(crate) span: Span,
    pub(crate) why: OffCpuReason,
}

#[derive(Debug, Clone)]
pub(crate) enum OffCpuReason {
    /// It was runnable and had no CPU, since it was woken or since it lost the CPU. `id` is the row's event id.
    Runnable { woken: bool, holder: Holder, id: Arc<str> },
    /// It waited for something; `uninterruptible` for I/O and kernel locks.
    Blocked { uninterruptible: bool },
}

/// Waits for a CPU within one iteration, added up: those that made it longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuWaits {
    pub(crate) count: u64,
    /// Nanoseconds outside calls that wait for other ranks: these make the iteration longer.
    pub(crate) busy_ns: i64,
    /// Nanoseconds of the same waits in all.
    pub(crate) whole_ns: i64,
}

impl CpuWaits {
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.busy_ns = self.busy_ns.saturating_add(other.busy_ns);
        self.whole_ns = self.whole_ns.saturating_add(other.whole_ns);
    }

    /// Without what is part of it.
    pub(crate) fn less(self, part: Self) -> Self {
        Self {
            count: self.count.saturating_sub(part.count),
            busy_ns: self.busy_ns.saturating_sub(part.busy_ns),
            whole_ns: self.whole_ns.saturating_sub(part.whole_ns),
        }
    }
}

/// The waits for one process outside the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerWait {
    pub(crate) peer: Peer,
    pub(crate) waits: CpuWaits,
    pub(crate) weightiest: Evidence,
}

/// The wait, of several, that made the iteration longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Of it, nanoseconds outside calls that wait for other ranks.
    pub(crate) busy_ns: i64,
    pub(crate) duration_ns: i64,
    pub(crate) start_ns: i64,
    pub(crate) event_id: Arc<str>,
}

impl Evidence {
    /// The weightiest first; of equals the one with the smaller id, so that arrival plays no part.
    pub(crate) fn by_weight(&self, other: &Self) -> Ordering {
        other.weight_ns().cmp(&self.weight_ns()).then_with(|| self.event_id.cmp(&other.event_id))
    }

    /// What it cost; of equals the longer wait weighs more.
    fn weight_ns(&self) -> (i64, i64) {
        (self.busy_ns, self.duration_ns)
    }
}

/// Processes outside the job that an iteration records one by one. A choice: it bounds memory; the sums hold the others
/// too.
const PEERS_PER_ITERATION: usize = 4;
/// A call that waits returns this soon after its thread got the CPU back, nanoseconds. A choice: well above the
/// microseconds that a return from the kernel takes, well below an iteration. Raise it and waits before the call's end
/// are taken for late wake-ups.
const LATE_WAKE_NS: i64 = 100_000;

/// How the time of one iteration was spent, nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partition {
    /// In calls that wait for the GPU or the other ranks.
    pub(crate) wait_ns: i64,
    /// Of the rest: blocked by its own choice,
    pub(crate) sleep_ns: i64,
    /// blocked uninterruptibly,
    pub(crate) uninterruptible_ns: i64,
    /// and runnable but not running, while processes outside the job ran,
    pub(crate) outsiders: CpuWaits,
    /// processes of the job,
    pub(crate) own_job_ns: i64,
    /// or it is not known which.
    pub(crate) unknown_ns: i64,
    /// The outsiders that took most, the largest first. The sums above hold the others too.
    pub(crate) peers: Vec<PeerWait>,
}

/// Splits the time of `whole` given its waiting calls and its stretches off the CPU (sorted by end).
pub(crate) fn partition(whole: Span, calls: &Spans, off_cpu: &[OffCpu]) -> Partition {
    // Busy time is what the waiting calls leave of the iteration, so that the two add up to its length.
    let waits = without_late_wake(calls, off_cpu);
    let busy = waits.gaps(whole);
    let mut parts = Partition { wait_ns: whole.length_ns() - busy.length_ns(), ..Partition::default() };
    for off in off_cpu {
        // A thread that lost its CPU while it waited for other ranks anyway cost the job nothing: only the part outside
        // counts.
        let inside_ns = busy.overlap_ns(off.span);
        match &off.why {
            OffCpuReason::Blocked { uninterruptible: false } => parts.sleep_ns += inside_ns,
            OffCpuReason::Blocked { uninterruptible: true } => parts.uninterruptible_ns += inside_ns,
            OffCpuReason::Runnable { holder: Holder::OwnJob, .. } => parts.own_job_ns += inside_ns,
            OffCpuReason::Runnable { holder: Holder::Unknown, .. } => parts.unknown_ns += inside_ns,
            // No evidence, since it made the iteration no longer. This arm is reached for outsiders only.
            OffCpuReason::Runnable { .. } if inside_ns == 0 => {}
            OffCpuReason::Runnable { holder: Holder::Outsider(peer), id, .. } => {
                let waits = CpuWaits { count: 1, busy_ns: inside_ns, whole_ns: off.span.common(whole).length_ns() };
                let weightiest = Evidence {
                    busy_ns: inside_ns,
                    duration_ns: off.span.length_ns(),
                    start_ns: off.span.start_ns,
                    event_id: Arc::clone(id),
                };
                // The sum first: it also holds the processes that are cut from the list below.
                parts.outsiders.add(waits);
                merge(&mut parts.peers, PeerWait { peer: *peer, waits, weightiest });
            }
        }
    }
    keep_largest(&mut parts.peers);
    parts
}

/// A call's end is late when its thread had to wait for a CPU before it could return: that time is the rank's own
/// delay, not waiting for others.
fn without_late_wake(calls: &Spans, off_cpu: &[OffCpu]) -> Spans {
    let mut waits = Spans::default();
    for call in &calls.0 {
        let end_ns = released_ns(*call, off_cpu).clamp(call.start_ns, call.end_ns);
        waits.push(Span { start_ns: call.start_ns, end_ns });
    }
    waits
}

/// When what the call waited for had come, as far as its thread shows: it was woken then, and was running or runnable
/// since. A thread that spun and lost the CPU shows no such time: what it waited for may have come at any time before
/// it ran again, so the call counts as waiting to its end.
fn released_ns(call: Span, off_cpu: &[OffCpu]) -> i64 {
    // Sorted by end. The wait for a CPU that delayed the return ends with the call, give or take the return from the
    // kernel.
    let before = off_cpu.partition_point(|off| off.span.end_ns <= call.end_ns + LATE_WAKE_NS);
    let mut awake_ns = call.end_ns;
    for off in off_cpu[..before].iter().rev() {
        // The thread ran in between, so it was spinning: nothing shows when the call was released.
        if off.span.end_ns < awake_ns - LATE_WAKE_NS {
            break;
        }
        let woken_ns = match off.why {
            // The wait for a CPU began with the wake-up: what the call waited for had come then.
            OffCpuReason::Runnable { woken: true, .. } => off.span.start_ns,
            // The thread lost the CPU, perhaps after a wake-up: the stretch before this one decides.
            OffCpuReason::Runnable { woken: false, .. } => {
                awake_ns = off.span.start_ns;
                continue;
            }
            // It slept, was woken, ran at once and lost the CPU later: the end of the sleep is the release.
            OffCpuReason::Blocked { .. } if awake_ns < call.end_ns => off.span.end_ns,
            // It slept to the end of the call, which is the release.
            OffCpuReason::Blocked { .. } => break,
        };
        // A wake-up before the call is none from what the call waits for.
        return if woken_ns >= call.start_ns { woken_ns } else { call.end_ns };
    }
    call.end_ns
}

fn merge(peers: &mut Vec<PeerWait>, wait: PeerWait) {
    let Some(known) = peers.iter_mut().find(|known| known.peer == wait.peer) else {
        return peers.push(wait);
    };
    known.waits.add(wait.waits);
    // `by_weight` sorts the weightiest first, so that less means weightier.
    if wait.weightiest.by_weight(&known.weightiest).is_lt() {
        known.weightiest = wait.weightiest;
    }
}

fn keep_largest(peers: &mut Vec<PeerWait>) {
    // Top k after all waits are summed: dropping one earlier would lose a process whose waits are many and short.
    peers.sort_unstable_by(|a, b| {
        b.waits.busy_ns.cmp(&a.waits.busy_ns).then_with(|| a.weightiest.by_weight(&b.weightiest))
    });
    peers.truncate(PEERS_PER_ITERATION);
    // Kept with every iteration, of which there are up to `Limits::iterations`: spare capacity would be as well.
    peers.shrink_to_fit();
}

#[cfg(test)]
mod tests;
