//! The discovery thread: looks at processes, and finds in their libraries where the probes go. Reading `/proc` may take
//! a second on a busy node, and may hang with a process; the thread that reads the rings is not held up by it.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use bpf::{AttachError, FileId, Plan, Waker};
use service_kit::run::in_a_line;

use super::learn::Learner;
use super::reach::open;
use super::untraced::Reported;
use super::{Discovery, Fault, FileKey, Findings, FoundLibrary, FoundProcess, Occasion, Scanned, Untraced};
use crate::metrics::Metrics;
use crate::process::{Sighting, sighting};

/// How often all processes are looked at: finds libraries that were loaded long after exec.
const SCAN_EVERY: Duration = Duration::from_secs(2);
/// Processes that a scan looks at before notices are handled again.
const SCAN_STEP: usize = 16;
/// When a process that was noticed is looked at: the loader maps libraries some time after exec, in milliseconds.
const LOOK_AFTER_MS: [u64; 4] = [0, 30, 150, 600];
/// Processes waiting to be looked at; more are left to the scan.
const FRESH_MAX: usize = 1024;
/// Library files with probes at one time. Each takes at least two descriptors, and the kernel holds it and its mount.
const FILES_MAX: usize = 256;

/// What the thread that has the probes is sent.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Libraries to probe.
    pub(crate) plans: Vec<Plan>,
    /// Processes to trace.
    pub(crate) processes: Vec<FoundProcess>,
    /// Libraries that no process maps any more.
    pub(crate) unused: Vec<FileId>,
    /// At the end of a scan: the processes there were.
    pub(crate) alive: Option<Alive>,
    /// What was seen of processes that have just begun a program, or whose environment has changed.
    pub(crate) seen: Vec<Sighting>,
    /// Processes that map a probed library and are not traced, or are again.
    pub(crate) untraced: Vec<Untraced>,
}

impl Found {
    /// Nothing that the thread with the probes has to act on at once.
    fn can_wait(&self) -> bool {
        let Self { plans, processes, unused, alive, seen: _, untraced: _ } = self;
        plans.is_empty() && processes.is_empty() && unused.is_empty() && alive.is_none()
    }

    fn is_empty(&self) -> bool {
        self.can_wait() && self.seen.is_empty() && self.untraced.is_empty()
    }
}

/// The processes there were, with their start times.
#[derive(Debug)]
pub(crate) struct Alive {
    /// Boot time at which the scan began. It does not cover processes that were born later.
    pub(crate) since_ns: i64,
    pub(crate) processes: HashMap<i32, u64>,
}

impl Alive {
    /// True when the process of this number and start was there.
    pub(crate) fn has(&self, pid: i32, start_ticks: u64) -> bool {
        self.processes.get(&pid) == Some(&start_ticks)
    }
}

/// How the thread that has the probes reaches the scout, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Contact {
    notices: SyncSender<Noticed>,
    outcomes: Sender<(FileId, Outcome)>,
    found: Receiver<Found>,
}

/// How the attachment of a file's probes ended: with the reason, if the kernel refused it.
type Outcome = Result<(), String>;

/// A process that may be worth a look.
#[derive(Debug, Clone, Copy)]
struct Noticed {
    pid: i32,
    /// The environment that its program began with is not known otherwise.
    is_to_be_read: bool,
}

impl Noticed {
    /// What is to be seen of the process now, unless it has ended.
    fn sighting(self) -> Option<Sighting> {
        if self.is_to_be_read { Sighting::read(self.pid) } else { Sighting::glance(self.pid) }
    }
}

impl Contact {
    /// Reports a process that may be worth a look. When too many wait, it is left to the scan.
    pub(crate) fn notice(&self, pid: i32) {
        let _ = self.notices.try_send(Noticed { pid, is_to_be_read: false });
    }

    /// Requests a reading of the environment that a process began with.
    pub(crate) fn read(&self, pid: i32) {
        let _ = self.notices.try_send(Noticed { pid, is_to_be_read: true });
    }

    /// Reports that a file has probes now, or why the kernel refused them.
    pub(crate) fn answer(&self, file: FileId, outcome: Outcome) {
        let _ = self.outcomes.send((file, outcome));
    }

    /// What was found and not taken yet.
    pub(crate) fn take(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }
}

/// The body of the discovery thread.
#[derive(Debug)]
pub(crate) struct Scout {
    discovery: Discovery,
    notices: Receiver<Noticed>,
    outcomes: Receiver<(FileId, Outcome)>,
    found: Sender<Found>,
    waker: Waker,
    metrics: Metrics,
    files: HashMap<FileId, Probed>,
    /// Too many files to probe them all, and it was logged.
    is_full: bool,
    fresh: Vec<Fresh>,
    scan: Option<Scan>,
    next_scan: Instant,
    learner: Learner,
    reported: Reported,
}

/// A file that has probes, or is about to.
#[derive(Debug, Clone, Default)]
struct Probed {
    /// How maps name it: by one key per mount, on overlayfs.
    keys: Vec<FileKey>,
    /// The kernel has attached its probes.
    is_attached: bool,
    /// By the configuration: stays, whether a process maps it or not.
    is_named: bool,
}

/// A process that the probes gave notice of.
#[derive(Debug)]
struct Fresh {
    process: Noticed,
    noticed: Instant,
    looks: usize,
}

impl Fresh {
    fn new(process: Noticed) -> Self {
        Self { process, noticed: Instant::now(), looks: 0 }
    }

    fn due(&self) -> Option<Instant> {
        LOOK_AFTER_MS.get(self.looks).map(|after| self.noticed + Duration::from_millis(*after))
    }
}

/// A look at every process that is under way.
#[derive(Debug)]
struct Scan {
    began: Instant,
    since_ns: i64,
    left: VecDeque<i32>,
}

impl Scout {
    /// `named` files have probes already, and keep them.
    pub(crate) fn new(
        own_pid: i32,
        named: Vec<FileId>,
        keep_probes: Duration,
        waker: Waker,
        metrics: Metrics,
    ) -> (Self, Contact) {
        // The reader of the rings never blocks: it offers notices with `try_send`, and the other channels have no
        // bound.
        let (notices, to_look_at) = sync_channel(FRESH_MAX);
        let (outcomes, answers) = channel();
        let (found, findings) = channel();
        let probed = Probed { keys: Vec::new(), is_attached: true, is_named: true };
        let scout = Self {
            discovery: Discovery::new(own_pid, keep_probes),
            notices: to_look_at,
            outcomes: answers,
            found,
            waker,
            metrics,
            files: named.into_iter().map(|id| (id, probed.clone())).collect(),
            is_full: false,
            fresh: Vec::new(),
            scan: None,
            next_scan: Instant::now(),
            learner: Learner::default(),
            reported: Reported::default(),
        };
        (scout, Contact { notices, outcomes, found: findings })
    }

    /// Looks until no receiver is left.
    pub(crate) fn run(mut self) {
        loop {
            match self.notices.recv_timeout(self.pause()) {
                Ok(noticed) => {
                    self.fresh.push(Fresh::new(noticed));
                    self.fresh.extend(self.notices.try_iter().map(Fresh::new));
                    // The newest are left to the scan, which comes within seconds.
                    self.fresh.truncate(FRESH_MAX);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn(Instant::now());
        }
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        if self.scan.is_some() {
            return Duration::ZERO;
        }
        let next = self.fresh.iter().filter_map(Fresh::due).fold(self.next_scan, Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    fn turn(&mut self, now: Instant) {
        let mut found = Found::default();
        let mut findings = Findings::default();
        // Answers first: a file that was refused can then be planned again in this turn.
        self.heed_answers(now);
        let due = self.due(now, &mut found);
        self.discovery.look(due, Occasion::Notice, now, &mut findings);
        // Noticed processes are read at once, those of the scan when their pause is over.
        self.learn(&mut findings, true, now, &mut found);
        self.scan(now, &mut findings, &mut found);
        self.learn(&mut findings, false, now, &mut found);
        for library in &findings.libraries {
            found.plans.extend(self.plan(library, now));
        }
        found.processes = findings.processes;
        if found.is_empty() {
            return;
        }
        let is_urgent = !found.can_wait();
        // A look takes time; the thread that has the probes is woken when it has something to do.
        if self.found.send(found).is_ok() && is_urgent {
            self.waker.wake();
        }
    }

    /// Takes what became of the probes that were planned.
    fn heed_answers(&mut self, now: Instant) {
        while let Ok((id, outcome)) = self.outcomes.try_recv() {
            match outcome {
                Ok(()) => self.note_attached(id),
                Err(reason) => self.note_refused(id, &reason, now),
            }
        }
    }

    fn note_attached(&mut self, id: FileId) {
        let Some(probed) = self.files.get_mut(&id) else { return };
        probed.is_attached = true;
        probed.keys.iter().for_each(|key| self.discovery.probed(key));
    }

    fn note_refused(&mut self, id: FileId, reason: &str, now: Instant) {
        // Removed, so that the file is planned again once its backoff has passed.
        let keys = self.files.remove(&id).unwrap_or_default().keys;
        let logged = keys.iter().filter(|key| self.count_failure(key, Fault::Passing, reason, now)).count();
        match logged {
            0 => log_refused_again(reason),
            _ => tracing::warn!(reason, "library not probed"),
        }
    }

    /// Reads the environments that the processes looked at have now.
    fn learn(&mut self, findings: &mut Findings, is_noticed: bool, now: Instant, found: &mut Found) {
        let users = findings.users.drain(..);
        found.seen.extend(users.filter_map(|user| self.learner.learn(user, is_noticed, now)));
    }

    /// The noticed processes whose time has come. What is wanted of one that is new is read at once: it may end before
    /// anything else is seen of it.
    fn due(&mut self, now: Instant, found: &mut Found) -> Vec<i32> {
        let mut due = Vec::new();
        for fresh in self.fresh.iter_mut().filter(|fresh| fresh.due().is_some_and(|at| at <= now)) {
            let pid = fresh.process.pid;
            if fresh.looks == 0 {
                self.learner.forget(pid);
                found.seen.extend(fresh.process.sighting());
            }
            due.push(pid);
            fresh.looks += 1;
        }
        self.fresh.retain(|fresh| fresh.looks < LOOK_AFTER_MS.len());
        due
    }

    /// A step of the scan, if it is time for one.
    fn scan(&mut self, now: Instant, findings: &mut Findings, found: &mut Found) {
        if self.scan.is_none() && now >= self.next_scan {
            // Without a clock no process is reported as gone.
            let since_ns = sighting::now_ns();
            self.scan = Some(Scan { began: now, since_ns, left: self.discovery.begin_scan() });
        }
        let Some(Scan { began, since_ns, left }) = &mut self.scan else { return };
        // By steps: a notice that arrives meanwhile waits for a few processes, not for all of the host.
        let step = left.len().min(SCAN_STEP);
        self.discovery.look(left.drain(..step), Occasion::Scan, now, findings);
        if !left.is_empty() {
            return;
        }
        let Scanned { alive, gone } = self.discovery.end_scan(Instant::now());
        found.alive = alive.map(|processes| Alive { since_ns: *since_ns, processes });
        if let Some(alive) = &found.alive {
            self.learner.forget_ended(alive);
        }
        found.untraced = self.reported.news(&self.discovery, now);
        self.metrics.untraced_processes.set(i64::try_from(self.reported.len()).unwrap_or(i64::MAX));
        // A pause as long as the scan: however many processes there are, scanning takes half of one CPU at most.
        self.next_scan = (*began + SCAN_EVERY).max(Instant::now() + began.elapsed());
        self.scan = None;
        for key in gone {
            found.unused.extend(self.forget(&key));
        }
    }

    /// Where the probes of a library go, unless it has them.
    fn plan(&mut self, found: &FoundLibrary, now: Instant) -> Option<Plan> {
        match self.try_plan(found, now) {
            Ok(plan) => plan,
            Err(error) => {
                let fault = if error.is_final() { Fault::File } else { Fault::Passing };
                let is_new = self.count_failure(&found.key, fault, &in_a_line(&error), now);
                if is_new {
                    warn_of(&error, found.is_deleted);
                } else {
                    tracing::debug!(error = &error as &dyn Error, "library not probed, again");
                }
                None
            }
        }
    }

    fn try_plan(&mut self, found: &FoundLibrary, now: Instant) -> Result<Option<Plan>, AttachError> {
        let file = open(found)?;
        let id = file.id();
        if let Some(probed) = self.files.get_mut(&id) {
            // The same file behind another mount: a second attachment would record each call twice (`FileId`).
            probed.keys.push(found.key.clone());
            if probed.is_attached {
                self.discovery.probed(&found.key);
            }
            return Ok(None);
        }
        let was_full = std::mem::replace(&mut self.is_full, self.files.len() >= FILES_MAX);
        if self.is_full {
            let reason = format!("{FILES_MAX} library files have probes: no more are probed");
            self.count_failure(&found.key, Fault::NoRoom, &reason, now);
            if !was_full {
                tracing::warn!(paths = ?found.paths, reason, "library not probed");
            }
            return Ok(None);
        }
        let plan = file.plan()?;
        // Before the kernel has answered: the file must not be planned twice when it is found again meanwhile.
        self.files.insert(id, Probed { keys: vec![found.key.clone()], ..Probed::default() });
        Ok(Some(plan))
    }

    /// True when the failure of this file is to be logged.
    fn count_failure(&mut self, key: &FileKey, fault: Fault, reason: &str, now: Instant) -> bool {
        let is_new = self.discovery.failed(key, fault, reason, now);
        self.metrics.libraries_failed.inc_by(u64::from(is_new));
        is_new
    }

    /// Drops a key that no process maps any more. With the last key of a file its probes go.
    fn forget(&mut self, key: &FileKey) -> Option<FileId> {
        let (&id, probed) = self.files.iter_mut().find(|(_, probed)| probed.keys.contains(key))?;
        probed.keys.retain(|known| known != key);
        if probed.is_named || !probed.keys.is_empty() {
            return None;
        }
        self.files.remove(&id);
        Some(id)
    }
}

/// Logs why a library has no probes.
fn warn_of(error: &AttachError, is_deleted: bool) {
    let error = error as &dyn Error;
    let message = if is_deleted {
        "a deleted library that is still in use is not probed; CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN reaches it"
    } else {
        "library not probed"
    };
    tracing::warn!(error, "{message}");
}

/// Logs a refusal for a reason that was logged before.
fn log_refused_again(reason: &str) {
    tracing::debug!(reason, "library not probed");
}

#[cfg(test)]
mod tests;
