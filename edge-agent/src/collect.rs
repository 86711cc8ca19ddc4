//! The probe thread: reads the rings, adds what is known of each process, and hands full batches on. It never waits for anybody
//! but the kernel: when the spool does not keep up, batches are shed and counted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use arrow::error::ArrowError;
use bpf::{AttachError, Class, Counters, Library, PollError, Record, Tracer};
use event_schema::batch::Event;
use event_schema::catalog::{Source, op_number};
use event_schema::identity::{CRITICAL_STREAM, DATA_STREAM};

use crate::batcher::{Batcher, Cut, Limits, Missed};
use crate::clock::{self, ClockError};
use crate::discover::{Discovery, Findings};
use crate::facts::{self, FactError};
use crate::metrics::Metrics;
use crate::process::Process;
use crate::spool::Input;

/// How long a poll waits: it bounds what lies in the rings unseen.
const POLL: Duration = Duration::from_millis(50);
/// How often all processes are looked at: finds libraries that were loaded long after exec.
const SCAN_EVERY: Duration = Duration::from_secs(2);
/// When a process that was noticed is looked at: the loader maps libraries some time after exec, in milliseconds.
const LOOK_AFTER_MS: [u64; 4] = [0, 30, 150, 600];
/// Processes waiting to be looked at; more are left to the scan.
const FRESH_MAX: usize = 1024;
/// What was known of a process is kept this long after its exit: its last calls may still lie in the data ring.
const REMEMBER_NS: i64 = 10_000_000_000;
/// Processes remembered at one time.
const PROCESSES_MAX: usize = 65_536;

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

/// What takes records while the tracer is being polled.
#[derive(Debug)]
struct Sink {
    batcher: Batcher,
    processes: HashMap<i32, Known>,
    cgroups: HashSet<i64>,
    spool: SyncSender<Input>,
    metrics: Metrics,
    ops: Ops,
    now_ns: i64,
    /// Missed by the probes, per stream, as of the last look at the counters.
    missed: [Missed; 2],
    /// The first failure, raised after the poll.
    failed: Option<CollectError>,
}

/// A process seen in a record.
#[derive(Debug)]
struct Known {
    process: Process,
    exited_ns: Option<i64>,
}

/// Numbers of the operations that change what is known.
#[derive(Debug, Clone, Copy)]
struct Ops {
    exec: Option<i32>,
    exit: Option<i32>,
    runnable_wait: Option<i32>,
}

impl Collector {
    pub(crate) fn new(tracer: Tracer, limits: Limits, spool: SyncSender<Input>, metrics: Metrics) -> Self {
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Also the calls of our own process, should it have a probed library: the embedded mode has all services in one.
        if let Err(error) = tracer.untrace(own_pid) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the agent may trace itself");
        }
        let number = |name| op_number(name).filter(|(source, _)| *source == Source::Host).map(|(_, op)| op);
        let sink = Sink {
            batcher: Batcher::new(limits),
            processes: HashMap::new(),
            cgroups: HashSet::new(),
            spool,
            metrics: metrics.clone(),
            ops: Ops {
                exec: number("process_exec"),
                exit: number("process_exit"),
                runnable_wait: number("runnable_wait"),
            },
            now_ns: 0,
            missed: [Missed::default(); 2],
            failed: None,
        };
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
        while self.poll(Duration::ZERO)? > 0 {}
        let counters = self.tracer.counters()?;
        self.sink.tell_epoch_end(&counters);
        self.sink.cut(DATA_STREAM)?;
        let [missed, _] = self.sink.missed;
        self.sink.batcher.tell_for(CRITICAL_STREAM, DATA_STREAM, missed);
        self.sink.cut(CRITICAL_STREAM)?;
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
            self.metrics.processes.set(i64::try_from(self.sink.processes.len()).unwrap_or(i64::MAX));
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
            if let Err(error) = self.tracer.trace_process(pid) {
                tracing::warn!(error = &error as &dyn std::error::Error, "process not traced");
            }
        }
    }
}

impl Sink {
    fn take(&mut self, record: &Record) {
        if self.failed.is_none()
            && let Err(error) = self.try_take(record)
        {
            self.failed = Some(error);
        }
    }

    fn try_take(&mut self, record: &Record) -> Result<(), CollectError> {
        let of_process = record.class == Class::Process;
        let exec = of_process && Some(record.op) == self.ops.exec;
        if exec || !self.processes.contains_key(&record.pid) {
            self.meet(record)?;
        }
        let stream = if of_process { CRITICAL_STREAM } else { DATA_STREAM };
        let Self { processes, batcher, ops, now_ns, .. } = self;
        let Some(known) = processes.get_mut(&record.pid) else { return Ok(()) };
        if of_process && Some(record.op) == ops.exit {
            known.exited_ns = Some(record.boot_ns);
        }
        if batcher.push(stream, &to_event(record, &known.process, *ops), *now_ns) {
            self.cut(stream)?;
        }
        Ok(())
    }

    /// Learns a process from the first record of it, or again when it has replaced its image.
    fn meet(&mut self, record: &Record) -> Result<(), CollectError> {
        if self.processes.len() >= PROCESSES_MAX {
            self.processes.clear();
        }
        let comm = || Process { pid: record.pid, name: record.comm.as_str().to_owned(), ..Process::default() };
        let process = Process::read(record.pid).unwrap_or_else(comm);
        self.pass_on(facts::process(&process, record.cgroup_id, record.boot_ns)?);
        if self.cgroups.insert(record.cgroup_id) {
            self.pass_on(facts::cgroup(&process, record.cgroup_id, record.boot_ns)?);
        }
        self.processes.insert(record.pid, Known { process, exited_ns: None });
        Ok(())
    }

    fn forget_exited(&mut self) {
        let before = self.now_ns - REMEMBER_NS;
        self.processes.retain(|_, known| known.exited_ns.is_none_or(|exited| exited > before));
    }

    fn cut_due(&mut self) -> Result<(), CollectError> {
        for stream in [DATA_STREAM, CRITICAL_STREAM] {
            if self.batcher.is_due(stream, self.now_ns) {
                self.cut(stream)?;
            }
        }
        Ok(())
    }

    fn cut(&mut self, stream: i32) -> Result<(), CollectError> {
        let missed = self.missed[usize::from(stream == CRITICAL_STREAM)];
        if let Some(cut) = self.batcher.cut(stream, missed)? {
            self.pass_on(cut);
        }
        Ok(())
    }

    /// Hands a batch to the spool, or counts it.
    fn pass_on(&mut self, cut: Cut) {
        let (TrySendError::Full(Input::Cut(cut)) | TrySendError::Disconnected(Input::Cut(cut))) =
            (match self.spool.try_send(Input::Cut(cut)) {
                Ok(()) => return,
                Err(refused) => refused,
            })
        else {
            return;
        };
        self.metrics.shed.inc_by(cut.batch.num_rows() as u64);
        self.batcher.shed(&cut);
    }

    /// The account of the epoch, from the probes' own counters: what the centre holds the sum of all batches to.
    fn tell_epoch_end(&mut self, counters: &Counters) {
        let events = counters.events();
        let Some((source, op)) = op_number("epoch_end") else { return };
        let long = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let event = Event {
            boot_ns: self.now_ns,
            source: source.number(),
            op,
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            tid: i32::try_from(std::process::id()).unwrap_or_default(),
            comm: Some("causeway-agent"),
            arg0: long(events.attempts),
            arg1: long(events.ring_drop),
            bytes: Some(long(events.drained)),
            sample_weight: 1.0,
            ..Event::default()
        };
        self.batcher.push(CRITICAL_STREAM, &event, self.now_ns);
    }
}

fn missed(counters: &Counters) -> [Missed; 2] {
    let (call, sched, process) = (counters.call, counters.sched, counters.process);
    let data =
        Missed { ring_drop: call.ring_drop + sched.ring_drop, sampled_out: call.sampled_out + sched.sampled_out };
    [data, Missed { ring_drop: process.ring_drop, sampled_out: process.sampled_out }]
}

fn to_event<'a>(record: &'a Record, process: &'a Process, ops: Ops) -> Event<'a> {
    let is_wait = record.class == Class::Sched && Some(record.op) == ops.runnable_wait;
    let peer = record.peer.as_ref().filter(|peer| is_wait && peer.tid != 0);
    Event {
        boot_ns: record.boot_ns,
        source: record.source,
        op: record.op,
        duration_ns: record.duration_ns,
        pid: record.pid,
        tid: record.tid,
        comm: Some(record.comm.as_str()),
        process: process.info(record.cgroup_id),
        arg0: record.arg0,
        arg1: record.arg1,
        bytes: record.bytes,
        ret_code: record.ret_code,
        sample_weight: 1.0,
        peer_comm: peer.map(|peer| peer.comm.as_str()),
        peer_pid: peer.map(|peer| peer.pid),
        ..Event::default()
    }
}
