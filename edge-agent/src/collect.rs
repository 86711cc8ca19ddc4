//! The probe thread: reads the rings, adds what is known of each process, and hands full batches on. While it traces, events
//! never wait for anybody but the kernel: when the spool does not keep up, they are shed and counted. Critical records wait,
//! and meanwhile the kernel's rings hold what comes and count what they cannot hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use bpf::{AttachError, ClassCounters, Counters, Library, PollError, Tracer};

use crate::batcher::{Limits, Missed};
use crate::clock::{self, ClockError};
use crate::discover::{Discovery, Findings};
use crate::facts::FactError;
use crate::metrics::Metrics;
use crate::spool::{Input, PATIENCE};

mod sink;

use sink::Sink;

/// How long a poll waits: it bounds what lies in the rings unseen.
const POLL: Duration = Duration::from_millis(50);
/// How often all processes are looked at: finds libraries that were loaded long after exec.
const SCAN_EVERY: Duration = Duration::from_secs(2);
/// When a process that was noticed is looked at: the loader maps libraries some time after exec, in milliseconds.
const LOOK_AFTER_MS: [u64; 4] = [0, 30, 150, 600];
/// Processes waiting to be looked at; more are left to the scan.
const FRESH_MAX: usize = 1024;

/// Why the probe thread ended.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    Poll(#[from] PollError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("a batch could not be built")]
    Batch(#[from] ArrowError),
    #[error(transparent)]
    Fact(#[from] FactError),
}

/// The probes and everything that follows a record up to the spool's door.
#[derive(Debug)]
pub(crate) struct Collector {
    tracer: Tracer,
    discovery: Discovery,
    scanned: Option<Instant>,
    fresh: Vec<Fresh>,
    sink: Sink,
    metrics: Metrics,
}

/// A process that the probes gave notice of.
#[derive(Debug)]
struct Fresh {
    pid: i32,
    noticed: Instant,
    looks: usize,
}

impl Collector {
    pub(crate) fn new(tracer: Tracer, limits: Limits, spool: SyncSender<Input>, metrics: Metrics) -> Self {
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Also the calls of our own process, should it have a probed library: the embedded mode has all services in one.
        if let Err(error) = tracer.untrace(own_pid) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the agent may trace itself");
        }
        let sink = Sink::new(limits, spool, metrics.clone());
        Self { tracer, discovery: Discovery::new(own_pid), scanned: None, fresh: Vec::new(), sink, metrics }
    }

    /// Probes library files before anybody has mapped them, so that not even the first calls are missed.
    ///
    /// # Errors
    /// A named file that cannot be probed is a wrong option.
    pub(crate) fn attach(&mut self, libraries: &[Library]) -> Result<(), AttachError> {
        for library in libraries {
            let attached = self.tracer.attach_library(library)?;
            tracing::info!(path = %library.path.display(), probes = attached.probes.len(), "library probed");
            self.metrics.libraries.inc();
        }
        Ok(())
    }

    /// Traces until `stop`, then detaches, drains the rings and tells the account of the epoch.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<Counters, CollectError> {
        while !stop.load(Ordering::Relaxed) {
            self.discover();
            self.poll(POLL)?;
            self.sink.cut_due()?;
        }
        self.tracer.detach();
        // Nothing is missed any more while somebody waits.
        self.sink.events_wait = PATIENCE;
        while self.poll(Duration::ZERO)? > 0 {}
        let counters = self.tracer.counters()?;
        self.sink.finish(&counters)?;
        Ok(counters)
    }

    fn poll(&mut self, timeout: Duration) -> Result<usize, CollectError> {
        self.sink.now_ns = clock::boot_ns()?;
        let Self { tracer, sink, .. } = self;
        let records = tracer.poll(timeout, &mut |record| sink.take(&record))?;
        let counters = self.tracer.counters()?;
        self.sink.missed = missed(&counters);
        self.observe(&counters);
        match self.sink.failed.take() {
            Some(error) => Err(error),
            None => Ok(records),
        }
    }

    fn observe(&self, counters: &Counters) {
        let (m, events) = (&self.metrics, counters.events());
        Metrics::raise(&m.attempts, events.attempts);
        Metrics::raise(&m.ring_drop, events.ring_drop);
        Metrics::raise(&m.sampled_out, events.sampled_out);
        Metrics::raise(&m.untracked, events.untracked);
        Metrics::raise(&m.drained, events.drained);
    }

    /// Follows notices at once and looks at every process now and then.
    fn discover(&mut self) {
        let fresh = |pid| Fresh { pid, noticed: Instant::now(), looks: 0 };
        self.fresh.extend(self.tracer.take_notices().iter().map(|notice| fresh(notice.pid)));
        self.fresh.truncate(FRESH_MAX);
        let mut due = Vec::new();
        self.fresh.retain_mut(|fresh| {
            let is_due = fresh.noticed.elapsed() >= Duration::from_millis(LOOK_AFTER_MS[fresh.looks]);
            if is_due {
                due.push(fresh.pid);
                fresh.looks += 1;
            }
            fresh.looks < LOOK_AFTER_MS.len()
        });
        let mut findings = self.discovery.look(&due);
        if self.scanned.is_none_or(|at| at.elapsed() >= SCAN_EVERY) {
            self.scanned = Some(Instant::now());
            let more = self.discovery.scan();
            findings.libraries.extend(more.libraries);
            findings.pids.extend(more.pids);
            self.sink.forget_exited();
            self.metrics.processes.set(i64::try_from(self.sink.processes()).unwrap_or(i64::MAX));
        }
        self.follow(findings);
    }

    fn follow(&mut self, findings: Findings) {
        for found in &findings.libraries {
            let library = Library { path: found.path.clone(), kind: found.kind };
            match self.tracer.attach_library(&library) {
                Ok(attached) => {
                    let (probes, slow) = (attached.probes.len(), attached.single_stepped().count());
                    let path = found.path.display();
                    tracing::info!(%path, probes, single_stepped = slow, already = attached.already, "library probed");
                    self.metrics.libraries.inc();
                }
                Err(error) => {
                    // The process may have ended just now: another one may lead to the file.
                    if matches!(error, AttachError::Open { .. }) {
                        self.discovery.forget(found);
                    }
                    tracing::warn!(error = &error as &dyn std::error::Error, "library not probed");
                }
            }
        }
        for pid in findings.pids {
            let mut traced = self.tracer.trace_process(pid);
            // It may have ended since its maps were read: whoever has its number next is another process.
            if traced.is_ok() && !self.discovery.is_still_there(pid) {
                traced = self.tracer.release(pid);
            }
            if let Err(error) = traced {
                tracing::warn!(error = &error as &dyn std::error::Error, "process not traced");
            }
        }
    }
}

fn missed(counters: &Counters) -> [Missed; 2] {
    let (call, sched, process) = (counters.call, counters.sched, counters.process);
    let of = |classes: &[ClassCounters]| {
        let sum = |count: fn(&ClassCounters) -> u64| classes.iter().map(count).sum();
        Missed { ring_drop: sum(|c| c.ring_drop), sampled_out: sum(|c| c.sampled_out), untracked: sum(|c| c.untracked) }
    };
    [of(&[call, sched]), of(&[process])]
}
