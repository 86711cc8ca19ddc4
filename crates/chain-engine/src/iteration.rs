//! Cuts one thread's time into iterations at its synchronising calls.
//!
//! An iteration ends where a synchronising call returns; once the thread has been seen to make collectives, only where
//! one returns that had a collective before it, so that copies synchronised one by one do not look like iterations. A
//! lost call makes one long iteration of two, which medians over many tolerate.

use std::collections::VecDeque;

use event_schema::catalog::Op;

use crate::features::{OffCpu, Partition, Span, Spans, partition};
use crate::observation::Kind;

/// One iteration of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Iteration {
    /// Counted over the thread's life, from 0.
    pub(crate) number: u64,
    /// On the node's boot clock.
    pub(crate) span: Span,
    /// Wall clock minus boot clock.
    pub(crate) offset_ns: i64,
    /// Bound of the error of wall time against the node's own wall clock.
    pub(crate) error_ns: i64,
    /// How its time was spent.
    pub(crate) parts: Partition,
    pub(crate) copy_ns: i64,
    pub(crate) copy_bytes: i64,
    /// The call that ended it.
    pub(crate) ended_by: Op,
}

/// What counts as waiting for the other ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitView {
    /// Time in synchronising calls and collectives.
    Calls,
    /// That and all sleep: for collectives that wait in code that is not traced.
    CallsAndSleep,
}

impl Iteration {
    pub(crate) fn wall_ns(&self) -> i64 {
        self.span.length_ns()
    }

    /// Start on the wall clock.
    pub(crate) fn start_ts_ns(&self) -> i64 {
        self.span.start_ns + self.offset_ns
    }

    /// End on the wall clock.
    pub(crate) fn end_ts_ns(&self) -> i64 {
        self.span.end_ns + self.offset_ns
    }

    pub(crate) fn waiting_ns(&self, view: WaitView) -> i64 {
        match view {
            WaitView::Calls => self.parts.wait_ns,
            WaitView::CallsAndSleep => self.parts.wait_ns + self.parts.sleep_ns,
        }
    }

    pub(crate) fn busy_ns(&self, view: WaitView) -> i64 {
        self.wall_ns() - self.waiting_ns(view)
    }
}

/// A call of the thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
    pub(crate) op: Op,
    pub(crate) offset_ns: i64,
    pub(crate) error_ns: i64,
}

#[derive(Debug, Clone, Copy)]
struct Copied {
    span: Span,
    bytes: i64,
}

/// Two synchronising calls closer than this with no work given to the GPU between them end the same iteration,
/// nanoseconds. A choice: longer than a call that finds nothing to wait for, shorter than an iteration. Raise it and
/// iterations without launches merge.
const SAME_SYNC_NS: i64 = 50_000;

/// The iterations of one thread. Calls and stretches off the CPU are to be given in the order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    iterations: VecDeque<Iteration>,
    cut: u64,
    boundary_ns: Option<i64>,
    makes_collectives: bool,
    collective_since_boundary: bool,
    /// A launch or collective; copies are synchronised one by one.
    work_since_boundary: bool,
    waits: Spans,
    copies: Vec<Copied>,
    off_cpu: Vec<OffCpu>,
    dropped_since_boundary: u64,
    dropped: u64,
}

impl Thread {
    /// Takes a call. What comes before the first boundary belongs to no iteration and is not kept: most threads never
    /// synchronise.
    pub(crate) fn call(&mut self, call: Call) {
        self.makes_collectives |= call.kind == Kind::Collective;
        // By its start: a call that began before the boundary belongs to the iteration that ended there.
        let is_since_boundary = self.boundary_ns.is_some_and(|boundary_ns| call.span.start_ns >= boundary_ns);
        self.work_since_boundary |= is_since_boundary && matches!(call.kind, Kind::Launch | Kind::Collective);
        match call.kind {
            Kind::Collective | Kind::Copy(_) if self.boundary_ns.is_none() => {}
            Kind::Sync => self.synchronised(call),
            Kind::Collective => {
                self.waits.push(call.span);
                self.collective_since_boundary = true;
            }
            Kind::Copy(bytes) => {
                // Calls come in order of their ends, the driver's call inside the runtime's first. The outer one
                // replaces it, since both move the same bytes.
                while self.copies.last().is_some_and(|last| last.span.start_ns >= call.span.start_ns) {
                    self.copies.pop();
                }
                self.copies.push(Copied { span: call.span, bytes });
            }
            // A launch is only a mark that there is work, taken above; stretches off the CPU come through `off_cpu`.
            Kind::Launch | Kind::Runnable(_) | Kind::Blocked(_) => {}
        }
    }

    pub(crate) fn off_cpu(&mut self, off: OffCpu) {
        if self.boundary_ns.is_some() {
            self.off_cpu.push(off);
        }
    }

    fn synchronised(&mut self, call: Call) {
        self.waits.push(call.span);
        // The first synchronisation only opens an iteration: when the work before it began is not known.
        let Some(boundary_ns) = self.boundary_ns else {
            return self.begin(call.span.end_ns);
        };
        // The driver's call (`cuStreamSynchronize`) returned first and ended the iteration; this is the runtime's
        // around it.
        let encloses = call.span.start_ns < boundary_ns;
        // A second synchronisation after which nothing was left to wait for, as of the stream and then of the device.
        let follows_at_once = call.span.start_ns < boundary_ns + SAME_SYNC_NS && !self.work_since_boundary;
        if encloses || follows_at_once {
            self.prolong(boundary_ns, call);
        } else if self.collective_since_boundary || !self.makes_collectives {
            self.end(Span { start_ns: boundary_ns, end_ns: call.span.end_ns }, call);
        }
    }

    /// The call encloses the one that ended the last iteration (runtime around driver) or follows it at once.
    fn prolong(&mut self, boundary_ns: i64, call: Call) {
        // It returned no later than the boundary: there is nothing to add.
        if call.span.end_ns <= boundary_ns {
            return;
        }
        if let Some(last) = self.iterations.back_mut() {
            last.span.end_ns = call.span.end_ns;
            // Only what lies behind the boundary: the rest of the call is in the iteration already.
            last.parts.wait_ns += call.span.end_ns - call.span.start_ns.max(boundary_ns);
            last.ended_by = call.op;
        }
        self.begin(call.span.end_ns);
    }

    fn end(&mut self, span: Span, call: Call) {
        self.iterations.push_back(Iteration {
            number: self.cut,
            span,
            offset_ns: call.offset_ns,
            error_ns: call.error_ns,
            parts: partition(span, &self.waits, &self.off_cpu),
            copy_ns: self.copies.iter().map(|copied| copied.span.length_ns()).fold(0, i64::saturating_add),
            copy_bytes: self.copies.iter().map(|copied| copied.bytes).fold(0, i64::saturating_add),
            ended_by: call.op,
        });
        self.cut += 1;
        // Counted here and not at the bound: what a thread drops that completes no iteration is missing from none.
        self.dropped += self.dropped_since_boundary;
        self.begin(span.end_ns);
    }

    fn begin(&mut self, boundary_ns: i64) {
        self.boundary_ns = Some(boundary_ns);
        self.collective_since_boundary = false;
        self.work_since_boundary = false;
        self.dropped_since_boundary = 0;
        self.waits.clear();
        self.copies.clear();
        // A wait that ends behind the boundary reaches into the next iteration.
        self.off_cpu.retain(|off| off.span.end_ns > boundary_ns);
    }

    pub(crate) fn iterations(&self) -> &VecDeque<Iteration> {
        &self.iterations
    }

    /// Iterations seen in its life, kept or not.
    pub(crate) fn iterations_seen(&self) -> u64 {
        self.cut
    }

    /// Discards the oldest iterations beyond `most`; returns how many.
    pub(crate) fn keep_latest(&mut self, most: usize) -> u64 {
        let excess = self.iterations.len().saturating_sub(most);
        self.iterations.drain(..excess);
        excess as u64
    }

    /// Discards the older half of the calls and waits since the last boundary where there are more than `most`.
    pub(crate) fn bound_intervals(&mut self, most: usize) {
        let before = self.off_cpu.len() + self.copies.len() + self.waits.len();
        if before <= most {
            return;
        }
        // Half at once: removing from the front of a vector moves the rest, which is then paid once for many calls.
        self.off_cpu.drain(..self.off_cpu.len() / 2);
        self.copies.drain(..self.copies.len() / 2);
        self.waits.forget_older_half();
        self.dropped_since_boundary += (before - self.off_cpu.len() - self.copies.len() - self.waits.len()) as u64;
    }

    /// Calls and waits that iterations lack because they were discarded at the bound.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
