//! The probe thread: reads the rings, adds what is known of each process, and hands full batches to the spool thread.
//! While it traces, events wait for the spool for a moment only: when the spool does not keep up, they are shed and
//! counted. Critical records wait longer, and meanwhile the kernel's rings hold what comes and count what they cannot
//! hold. What is to be traced is found by another thread; here it only gets its probes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use bpf::priority::{self, Priority};
use bpf::{AttachError, Attached, Class, Counters, FileId, Library, NoticeKind, Plan, PollError, Tracer};
use event_schema::stream::EventStream;
use service_kit::run::in_a_line;

use crate::clock::{self, ClockError};
use crate::discover::{Contact, Found, FoundProcess, Scout};
use crate::facts::FactError;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::spool::Input;

mod known;
mod sink;

use sink::Sink;

/// Longest wait of a poll: it bounds how long a record may lie in a ring unread.
const POLL: Duration = Duration::from_millis(50);
/// Interval of the agent's liveness beacon on each event stream. The centre reports a node as missing after two
/// minutes.
const BEACON_EVERY: Duration = Duration::from_secs(30);

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

/// The probes and everything that a record passes before the spool.
#[derive(Debug)]
pub(crate) struct Collector {
    tracer: Tracer,
    scout: Contact,
    /// What the scout has found and was not acted on yet.
    found: Vec<Found>,
    sink: Sink,
    metrics: Metrics,
    priority: Priority,
}

impl Collector {
    /// Probes library files before a process has mapped them, so that not even the first calls are missed. Others are
    /// found by the scout, which runs on a thread of its own until the collector is gone.
    ///
    /// # Errors
    /// A named file that cannot be probed is a wrong option.
    pub(crate) fn open(
        mut tracer: Tracer,
        options: &Options,
        spool: SyncSender<Input>,
        metrics: Metrics,
    ) -> Result<(Self, Scout), AttachError> {
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Also the calls of our own process, should it have a probed library: the embedded mode has all services in
        // one.
        if let Err(error) = tracer.untrace(own_pid) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the agent may trace itself");
        }
        let named = attach_named(&mut tracer, &options.libraries)?;
        let (scout, contact) = Scout::new(own_pid, named, options.keep_probes, tracer.waker(), metrics.clone());
        let environments = tracer.environments().inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "environments are read from /proc alone");
        });
        let sink = Sink::new(options.batch, environments.ok(), spool, metrics.clone());
        let collector = Self { tracer, scout: contact, found: Vec::new(), sink, metrics, priority: options.priority };
        collector.count_libraries();
        Ok((collector, scout))
    }

    /// Traces until `stop`, then detaches, drains the rings and reports the account of the epoch.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<Counters, CollectError> {
        let priority = priority::raise(self.priority);
        if priority < self.priority {
            tracing::warn!(
                priority = priority.name(),
                wanted = self.priority.name(),
                "the thread that reads the rings may not be raised: under load events may be lost; grant CAP_SYS_NICE"
            );
        }
        let mut beaconed: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            self.poll(POLL)?;
            self.follow()?;
            self.beacon(&mut beaconed)?;
            self.sink.cut_due()?;
        }
        // Before the last drain: while probes are attached, the rings refill and the counters are not exact.
        self.tracer.detach();
        // No probe writes to a ring any more: nothing is lost while events wait for the spool.
        self.sink.shed_no_more();
        // More than once, because a single poll ends at a limit of records.
        while self.poll(Duration::ZERO)? > 0 {}
        // Now `attempts = drained + ring_drop` holds for every class. The audit compares these counters with the ledger
        // (law `accounts`).
        let counters = self.tracer.counters()?;
        self.sink.finish(&counters)?;
        Ok(counters)
    }

    /// Sends a beacon on every stream when it is time, and between on those that have fallen idle.
    fn beacon(&mut self, sent: &mut Option<Instant>) -> Result<(), CollectError> {
        let is_time = sent.is_none_or(|at| at.elapsed() >= BEACON_EVERY);
        let streams = if is_time { EventStream::ALL.to_vec() } else { self.sink.fallen_idle() };
        // A beacon states that everything before it has been read. What a poll has left in the rings may be older than
        // the poll: the beacon is postponed to the next poll.
        if streams.is_empty() || self.tracer.is_behind() {
            return Ok(());
        }
        if is_time {
            *sent = Some(Instant::now());
        }
        self.sink.report_beacon(&clock::beacon()?, &streams);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<usize, CollectError> {
        // Read before the rings are: what was made before this instant is among the records of this poll, as the beacon
        // states.
        self.sink.begin_poll(clock::boot_ns()?);
        self.tracer.wait(timeout)?;
        // Records may be read after the end of their process: what was seen of it while it lived comes first.
        self.take_sightings()?;
        let Self { tracer, sink, .. } = self;
        let records = tracer.poll(Duration::ZERO, &mut |record| sink.take(&record))?;
        let counters = self.tracer.counters()?;
        self.sink.count_missed(&counters);
        self.observe(&counters);
        self.heed_notices()?;
        // The callback of the tracer returns nothing: a failure in it is raised here.
        self.sink.check()?;
        Ok(records)
    }

    /// A process that is new, or a new program now, may use a library that has no probes yet.
    fn heed_notices(&mut self) -> Result<(), CollectError> {
        for notice in self.tracer.take_notices() {
            self.scout.notice(notice.pid);
            match notice.kind {
                NoticeKind::Exec => self.sink.note_exec(notice.pid, notice.boot_ns),
                // The probes have already made it a target (`adopt_callers`): it is read here while it still lives.
                NoticeKind::FirstCall => self.sink.note_first_call(notice.pid)?,
            }
        }
        for pid in self.sink.take_to_read() {
            self.scout.read(pid);
        }
        Ok(())
    }

    fn observe(&self, counters: &Counters) {
        let m = &self.metrics;
        let events = counters.events();
        Metrics::raise(&m.attempts, events.attempts);
        Metrics::raise(&m.ring_drop, events.ring_drop);
        Metrics::raise(&m.sampled_out, events.sampled_out);
        Metrics::raise(&m.untracked, events.untracked);
        Metrics::raise(&m.environs_drop, events.environs_drop);
        Metrics::raise(&m.drained, events.drained);
        Metrics::raise(&m.notice_ring_drop, counters.of(Class::Notice).ring_drop);
    }

    /// Takes what the scout has seen of processes; what it has found besides waits.
    fn take_sightings(&mut self) -> Result<(), CollectError> {
        while let Some(mut found) = self.scout.take() {
            for sighting in std::mem::take(&mut found.seen) {
                self.sink.see(sighting)?;
            }
            self.found.push(found);
        }
        Ok(())
    }

    /// Attaches, traces and releases what the scout has found.
    fn follow(&mut self) -> Result<(), CollectError> {
        self.take_sightings()?;
        for Found { plans, processes, unused, alive, seen: _, untraced } in std::mem::take(&mut self.found) {
            // In this order: a file may be used again as soon as it was unused.
            for file in unused {
                self.tracer.release_library(file);
            }
            plans.iter().for_each(|plan| self.attach(plan));
            processes.into_iter().for_each(|process| self.trace(process));
            untraced.iter().try_for_each(|untraced| self.sink.note_untraced(untraced))?;
            self.count_libraries();
            if let Some(alive) = alive {
                self.sink.forget_exited(&alive);
                self.metrics.processes.set(i64::try_from(self.sink.processes()).unwrap_or(i64::MAX));
            }
        }
        Ok(())
    }

    fn attach(&mut self, plan: &Plan) {
        match self.tracer.attach(plan) {
            Ok(attached) => {
                let probes = attached.probes.len();
                let slow = attached.single_stepped().count();
                let path = attached.library.path.display();
                tracing::info!(%path, probes, single_stepped = slow, already = attached.already, "library probed");
                log_warnings(&attached);
                self.scout.answer(plan.id(), Ok(()));
            }
            // The scout logs it, once for all attempts.
            Err(error) => self.scout.answer(plan.id(), Err(in_a_line(&error))),
        }
    }

    fn trace(&self, process: FoundProcess) {
        let mut traced = self.tracer.trace_process(process.pid);
        // It may have ended since its maps were read, and its number may be another process's by now. The check comes
        // after the entry: before it, the number could be reused in between (time of check to time of use).
        if traced.is_ok() && !process.is_still_there() {
            traced = self.tracer.release(process.pid);
        }
        if let Err(error) = traced {
            tracing::warn!(error = &error as &dyn std::error::Error, "process not traced");
        }
    }

    fn count_libraries(&self) {
        self.metrics.libraries.set(i64::try_from(self.tracer.libraries()).unwrap_or(i64::MAX));
    }
}

/// Probes the libraries that the options name.
fn attach_named(tracer: &mut Tracer, libraries: &[Library]) -> Result<Vec<FileId>, AttachError> {
    let mut named = Vec::new();
    for library in libraries {
        let attached = tracer.attach_library(library)?;
        tracing::info!(path = %library.path.display(), probes = attached.probes.len(), "library probed");
        named.push(attached.id);
    }
    Ok(named)
}

fn log_warnings(attached: &Attached) {
    if !attached.warnings.is_empty() {
        let path = attached.library.path.display();
        tracing::warn!(%path, warnings = attached.warnings, "libbpf warned while a library was probed");
    }
}
