//! The processes whose records are read, and what is known of each: from the environment that the probes have kept,
//! from `/proc` when it is met, from what discovery has seen of it, and from its parent.

use std::collections::HashMap;

use bpf::{Environment, Environments, Record};

use crate::batcher::Cut;
use crate::cgroups::Cgroups;
use crate::discover::{Alive, Untraced};
use crate::facts::{FactError, Facts};
use crate::process::{Process, Ranks, Sighting, Statement};

/// What was known of a process is kept this long after its exit: its last calls may still lie in the data ring.
pub(super) const REMEMBER_NS: i64 = 10_000_000_000;
/// Processes kept at one time.
const PROCESSES_MAX: usize = 65_536;
/// Processes of which no record was read, kept at one time.
const SEEN_MAX: usize = 16_384;

/// A process seen in a record.
#[derive(Debug, Default)]
pub(super) struct Known {
    process: Process,
    /// Of the record by which it was met.
    cgroup_id: i64,
    /// It was read after this.
    read_ns: i64,
    /// Its program began then or before: what was read earlier is of the program before it.
    program_ns: i64,
    readings: Readings,
    /// Of the environment its program began with no more can be known: the probes have kept it whole, or the process
    /// has ended.
    is_kept: bool,
    /// It became another program since, by a notice: the record of it may be lost.
    execed_ns: Option<i64>,
    exited_ns: Option<i64>,
}

impl Known {
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// True when a record of this time must be another process's of the same number, or another program's of the same
    /// process.
    pub(super) fn was_gone_by(&self, boot_ns: i64) -> bool {
        [self.execed_ns, self.exited_ns].into_iter().flatten().any(|gone| gone < boot_ns)
    }

    fn program_ns(&self) -> i64 {
        self.program_ns.max(self.execed_ns.unwrap_or(i64::MIN))
    }
}

/// When what is known of an environment was read from the process, boot time; 0 where it was not.
#[derive(Debug, Clone, Copy, Default)]
struct Readings {
    at_exec_ns: i64,
    now_ns: i64,
}

impl Readings {
    /// Takes what a look at the process has shown, unless the look was at the program that it had before. True when
    /// that is something else than was known.
    fn take(&mut self, process: &mut Process, sighting: &Sighting, program_ns: i64) -> bool {
        let before = (process.at_exec.clone(), process.now.clone());
        if sighting.at_ns < program_ns {
            return false;
        }
        // The memory may have been overwritten, or be closed to us: then what the probes have kept is more.
        if let Some(at_exec) = sighting.at_exec.as_ref().filter(|at_exec| !at_exec.is_empty()) {
            (process.at_exec, self.at_exec_ns) = (at_exec.clone(), sighting.at_ns);
        }
        if let Some(now) = &sighting.now {
            (process.now, self.now_ns) = (now.clone(), sighting.at_ns);
        }
        before != (process.at_exec.clone(), process.now.clone())
    }

    /// Drops what was read of the program that a process had before this time.
    fn drop_before(self, process: &mut Process, program_ns: i64) {
        if self.at_exec_ns < program_ns {
            process.at_exec = Statement::default();
        }
        if self.now_ns < program_ns {
            process.now = Statement::default();
        }
    }
}

/// What was seen of a process that has no record yet.
#[derive(Debug)]
struct Seen {
    /// Without a start when it was only seen being forked: then it is what its parent was.
    process: Process,
    readings: Readings,
    at_ns: i64,
}

impl Seen {
    fn is_forked(&self) -> bool {
        self.process.start_ticks == 0
    }

    /// True when it belongs to the process with this start. A forked one counts as long as the probes have seen no exec
    /// since.
    fn is_of(&self, start_ticks: u64, environment: Option<&Environment>) -> bool {
        match self.is_forked() {
            true => environment.is_none_or(|environment| environment.parent.is_some()),
            false => self.process.start_ticks == start_ticks,
        }
    }

    /// True when a scan has seen it. Of a forked one the start is not known: any process of its number counts.
    fn is_alive(&self, pid: i32, alive: &Alive) -> bool {
        match self.is_forked() {
            true => alive.processes.contains_key(&pid),
            false => alive.has(pid, self.process.start_ticks),
        }
    }

    /// Takes over what was known before, or of the parent, where nothing was read of the process itself.
    fn complete(&mut self, before: Self) {
        let Self { process, readings, .. } = before;
        if self.readings.at_exec_ns == 0 {
            (self.process.at_exec, self.readings.at_exec_ns) = (process.at_exec.clone(), readings.at_exec_ns);
        }
        if self.readings.now_ns == 0 {
            (self.process.now, self.readings.now_ns) = (process.now.clone(), readings.now_ns);
        }
        self.process.take_place(&process);
    }
}

/// Why the calls of a process are not recorded.
#[derive(Debug)]
struct Reason {
    start_ticks: u64,
    text: String,
}

/// All of them, and the facts that are to be reported.
#[derive(Debug)]
pub(super) struct Processes {
    facts: Facts,
    environments: Option<Environments>,
    known: HashMap<i32, Known>,
    seen: HashMap<i32, Seen>,
    untraced: HashMap<i32, Reason>,
    cgroups: Cgroups,
}

impl Processes {
    pub(super) fn new(environments: Option<Environments>) -> Self {
        Self {
            facts: Facts::default(),
            environments,
            known: HashMap::new(),
            seen: HashMap::new(),
            untraced: HashMap::new(),
            cgroups: Cgroups::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, pid: i32) -> Option<&Known> {
        self.known.get(&pid)
    }

    /// Facts that are to be reported.
    pub(super) fn waiting_facts(&self) -> usize {
        self.facts.len()
    }

    /// Takes out the facts that are to be reported.
    pub(super) fn cut_facts(&mut self) -> Result<Vec<Cut>, FactError> {
        self.facts.cut()
    }

    /// Reads what is to be known of a process at its first record, or again when it has replaced its image. The poll
    /// that brought the record began at `now_ns`. True when the environment its program began with is not known:
    /// reading it may block with the process, which the thread that reads the rings must not do.
    pub(super) fn meet(&mut self, record: &Record, is_exec: bool, now_ns: i64) -> Result<bool, FactError> {
        if self.known.len() >= PROCESSES_MAX {
            // Cleared as a whole: each process is read again with its next record.
            self.known.clear();
        }
        let mut known = self.identify(record, is_exec);
        let is_to_be_read = !known.is_kept;
        known.cgroup_id = record.cgroup_id;
        // The poll began before the process was read, and its record is older still, unless it was made meanwhile.
        known.read_ns = now_ns.max(record.boot_ns);
        self.known.insert(record.pid, known);
        self.place(record.pid, record.boot_ns)?;
        self.report(record.pid, record.boot_ns)?;
        Ok(is_to_be_read)
    }

    /// Records what a process shows of its cgroup, and completes the process by what others of the same cgroup have
    /// shown.
    fn place(&mut self, pid: i32, boot_ns: i64) -> Result<(), FactError> {
        let Some(Known { process, cgroup_id, .. }) = self.known.get(&pid) else { return Ok(()) };
        let process = process.clone();
        let cgroup_id = *cgroup_id;
        if let Some(cgroup) = self.cgroups.meet(cgroup_id, &process) {
            self.facts.add_cgroup(&cgroup, boot_ns)?;
            self.complete(cgroup_id, &process);
        }
        let of_container = self.cgroups.of_container(cgroup_id, &process);
        if let Some(known) = self.known.get_mut(&pid) {
            known.process.of_container = of_container;
        }
        Ok(())
    }

    /// Reports what is known of a process.
    fn report(&mut self, pid: i32, boot_ns: i64) -> Result<(), FactError> {
        let Some(Known { process, cgroup_id, .. }) = self.known.get(&pid) else { return Ok(()) };
        let untraced = self.untraced.get(&pid).filter(|reason| reason.start_ticks == process.start_ticks);
        self.facts.add_process(process, Some(*cgroup_id), boot_ns, untraced.map(|reason| reason.text.as_str()))
    }

    /// What can be found out about the process of a record, which may have ended.
    fn identify(&self, record: &Record, is_exec: bool) -> Known {
        let environment = self.environments.as_ref().and_then(|kept| kept.of(record.pid, record.boot_ns));
        let Some(process) = Process::glance(record.pid) else {
            // It ended and was reaped before its first record was read. No more can be learnt: `is_kept` prevents
            // further readings.
            return Known { process: self.ended(record, environment), is_kept: true, ..Known::default() };
        };
        // Looked up by the process number alone: the start excludes an earlier process of that number.
        let environment = environment.filter(|environment| environment.start_ticks == process.start_ticks);
        let start_ticks = process.start_ticks;
        let before = self.known.get(&record.pid).filter(|known| known.process.start_ticks == start_ticks);
        let seen = self.seen.get(&record.pid).filter(|seen| seen.is_of(start_ticks, environment.as_ref()));
        // 0 is no bound: boot time is never negative.
        let exec_ns = if is_exec { record.boot_ns } else { 0 };
        let program_ns = began_ns(environment.as_ref()).max(exec_ns).max(before.map_or(0, Known::program_ns));
        let is_kept = environment.as_ref().is_some_and(|environment| !environment.is_cut);
        let mut known = Known { process, program_ns, is_kept, ..Known::default() };
        if let Some(Seen { process: seen, readings, .. }) = seen {
            known.readings = *readings;
            (known.process.at_exec, known.process.now) = (seen.at_exec.clone(), seen.now.clone());
            known.process.take_place(seen);
        }
        // A record behind the exit is of the next process of that number: what was read before the exit is not its own.
        let exited_ns = before.and_then(|before| before.exited_ns).filter(|exited| *exited < record.boot_ns);
        let read_ns = known.readings.now_ns.max(exited_ns.unwrap_or(i64::MIN));
        if let Some(before) = before.filter(|before| before.readings.now_ns > read_ns) {
            (known.process.now, known.readings.now_ns) = (before.process.now.clone(), before.readings.now_ns);
        }
        known.readings.drop_before(&mut known.process, program_ns);
        take_kept(&mut known.process, environment);
        known
    }

    /// What is known of a process that has ended before it was met.
    fn ended(&self, record: &Record, environment: Option<Environment>) -> Process {
        // What was taken over from its parent has no start: where the probes have kept an environment, that names the
        // parent.
        let start_ticks = environment.as_ref().map(|environment| environment.start_ticks);
        let seen = self.seen.get(&record.pid);
        let seen = seen.filter(|seen| start_ticks.is_none_or(|ticks| ticks == seen.process.start_ticks)).map(|seen| {
            let mut process = seen.process.clone();
            let since_ns = environment.as_ref().map_or(i64::MIN, |environment| environment.since_ns);
            seen.readings.drop_before(&mut process, began_ns(environment.as_ref()));
            // It was seen before its last exec: the name is that of the program before.
            if seen.at_ns < since_ns {
                process.name.clear();
            }
            process
        });
        let known = seen.or_else(|| self.of_parent(record.pid, environment.as_ref()?));
        let mut process = known.unwrap_or_default();
        process.pid = record.pid;
        // A look at it while it lived may be taken in later.
        process.start_ticks = start_ticks.unwrap_or(process.start_ticks);
        if process.name.is_empty() {
            process.name = record.comm.as_str().to_owned();
        }
        take_kept(&mut process, environment);
        process
    }

    /// A process that was forked and has ended is, as far as is known, what its parent is.
    fn of_parent(&self, pid: i32, environment: &Environment) -> Option<Process> {
        let parent = environment.parent?;
        let known = self.known.get(&parent).map(|known| &known.process);
        let parent = known.or_else(|| self.seen.get(&parent).map(|seen| &seen.process))?;
        Some(Process { name: String::new(), nccl: None, ..parent.forked(pid) })
    }

    /// Completes the processes of a cgroup by what has just become known of it.
    fn complete(&mut self, cgroup_id: i64, met: &Process) {
        let Self { known, cgroups, .. } = self;
        for known in known.values_mut() {
            // With cgroup v1 many cgroups have the same id.
            if known.cgroup_id == cgroup_id && known.process.cgroup_path == met.cgroup_path {
                known.process.of_container = cgroups.of_container(cgroup_id, &known.process);
            }
        }
    }

    /// Takes what was seen of a process beside its records.
    pub(super) fn see(&mut self, sighting: Sighting, now_ns: i64) -> Result<(), FactError> {
        let Process { pid, start_ticks, .. } = sighting.process;
        if let Some(known) = self.known.get_mut(&pid)
            && known.process.start_ticks == start_ticks
        {
            let program_ns = known.program_ns();
            let at_exec = sighting.at_exec.filter(|_| !known.is_kept);
            let sighting = Sighting { at_exec, ..sighting };
            let is_new = known.readings.take(&mut known.process, &sighting, program_ns);
            // It had ended when it was met.
            let is_placed = known.process.take_place(&sighting.process);
            if is_placed {
                self.place(pid, now_ns)?;
            }
            return if is_new || is_placed { self.report(pid, now_ns) } else { Ok(()) };
        }
        let before = self.seen.remove(&pid).filter(|before| before.is_of(start_ticks, None));
        let mut seen = Seen { process: sighting.process.clone(), readings: Readings::default(), at_ns: sighting.at_ns };
        seen.readings.take(&mut seen.process, &sighting, i64::MIN);
        if let Some(before) = before {
            seen.complete(before);
        }
        self.remember(seen);
        Ok(())
    }

    /// When there are too many, those are evicted first of which nothing was read that is not read again.
    fn remember(&mut self, seen: Seen) {
        if self.seen.len() >= SEEN_MAX {
            self.seen.retain(|_, seen| !seen.process.now.is_empty());
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(seen.process.pid, seen);
    }

    /// Notes that a process is not traced, or is again.
    pub(super) fn note_untraced(&mut self, untraced: &Untraced, now_ns: i64) -> Result<(), FactError> {
        let Untraced { process, reason } = untraced;
        let Process { pid, start_ticks, .. } = *process;
        match reason {
            Some(text) => self.untraced.insert(pid, Reason { start_ticks, text: text.clone() }),
            None => self.untraced.remove(&pid),
        };
        if self.known.get(&pid).is_some_and(|known| known.process.start_ticks == start_ticks) {
            return self.report(pid, now_ns);
        }
        let seen = self.seen.get(&pid).map(|seen| &seen.process).filter(|seen| seen.start_ticks == start_ticks);
        let mut process = seen.unwrap_or(process).clone();
        // That of the latest process of this number; the next line compares the start.
        let kept = self.environments.as_ref().and_then(|kept| kept.of(pid, i64::MAX));
        take_kept(&mut process, kept.filter(|kept| kept.start_ticks == start_ticks));
        self.facts.add_process(&process, None, now_ns, reason.as_deref())
    }

    /// Takes the rank that a process has given to NCCL; of several that in the largest communicator, and of equal ones
    /// the last. True when its environment gives it another or none.
    pub(super) fn take_nccl_ranks(&mut self, pid: i32, ranks: Ranks, boot_ns: i64) -> Result<bool, FactError> {
        let Some(Known { process, .. }) = self.known.get_mut(&pid) else { return Ok(false) };
        if process.nccl.is_some_and(|before| before == ranks || before.world_size > ranks.world_size) {
            return Ok(false);
        }
        let before = process.ranks();
        process.nccl = Some(ranks);
        let is_other = process.stated_ranks().is_none_or(|stated| stated.rank != ranks.rank);
        if process.ranks() != before {
            self.report(pid, boot_ns)?;
        }
        Ok(is_other)
    }

    /// Takes notice of an exec. What is known of the process is read again with its next record, unless it was since.
    pub(super) fn note_exec(&mut self, pid: i32, boot_ns: i64) {
        if let Some(known) = self.known.get_mut(&pid).filter(|known| known.read_ns < boot_ns) {
            known.execed_ns = Some(boot_ns);
        }
        // What its program before had, or inherited, is gone.
        if let Some(Seen { process, readings, .. }) = self.seen.get_mut(&pid) {
            readings.drop_before(process, boot_ns);
        }
    }

    /// Takes the exit of a process. The next process of that number must not take over what was seen of this one.
    pub(super) fn note_exit(&mut self, pid: i32, boot_ns: i64) {
        if let Some(known) = self.known.get_mut(&pid) {
            // Not removed yet: its last calls may still lie in the data ring (`REMEMBER_NS`).
            known.exited_ns = Some(boot_ns);
        }
        if self.seen.get(&pid).is_some_and(|seen| seen.at_ns <= boot_ns) {
            self.seen.remove(&pid);
        }
    }

    /// Takes a fork. The process that had the child's number before is gone, even without a record of its exit.
    pub(super) fn note_fork(&mut self, parent: i32, child: i32, boot_ns: i64) {
        self.known.remove(&child);
        // A look after the fork was at the child.
        let seen = self.seen.remove(&child).filter(|seen| seen.at_ns > boot_ns);
        let forked = self.known.get(&parent).map(|known| Seen {
            process: Process { nccl: None, ..known.process.forked(child) },
            readings: known.readings,
            at_ns: boot_ns,
        });
        let seen = match (seen, forked) {
            (Some(mut seen), Some(forked)) => {
                seen.complete(forked);
                Some(seen)
            }
            (seen, forked) => seen.or(forked),
        };
        if let Some(seen) = seen {
            self.remember(seen);
        }
    }

    /// Drops the processes that have been gone for a while, also without a record of the exit, and those whose number
    /// belongs to another process now.
    pub(super) fn forget_exited(&mut self, alive: &Alive, now_ns: i64) {
        let before = now_ns - REMEMBER_NS;
        self.known.retain(|pid, known| match (known.exited_ns, alive.processes.get(pid)) {
            // The exit was recorded: it is retained for its last calls.
            (Some(exited), _) => exited > before,
            // Met after the scan began, which does not cover it.
            (None, _) if known.read_ns >= alive.since_ns => true,
            // The number is in use: by this process, or by a later one, and then this one is gone.
            (None, Some(start_ticks)) => *start_ticks == known.process.start_ticks,
            // Gone without a record of its exit, which a full ring may have dropped: its retention begins now.
            (None, None) => {
                known.exited_ns = Some(now_ns);
                true
            }
        });
        self.seen.retain(|pid, seen| seen.at_ns > before || seen.is_alive(*pid, alive));
        self.untraced.retain(|pid, reason| alive.has(*pid, reason.start_ticks));
        if let Some(kept) = &self.environments {
            kept.forget_ended(before);
        }
    }
}

/// When the program of a process began, as far as is known. A process that was forked goes on with its parent's: what
/// was read of the parent before the fork holds.
fn began_ns(environment: Option<&Environment>) -> i64 {
    environment.filter(|environment| environment.parent.is_none()).map_or(0, |environment| environment.since_ns)
}

/// Takes the environment that the probes have kept. Where that is a part only, what was read of the memory it was in is
/// more.
fn take_kept(process: &mut Process, kept: Option<Environment>) {
    if let Some(Environment { text, .. }) = kept.filter(|kept| !kept.is_cut || process.at_exec.is_empty()) {
        process.at_exec = Statement::of_environment(&text);
    }
}

#[cfg(test)]
impl Known {
    /// A process of cgroup 1 that was read long ago.
    pub(super) fn of(process: Process) -> Self {
        Self { process, cgroup_id: 1, ..Self::default() }
    }

    pub(super) fn exited(self, exited_ns: Option<i64>) -> Self {
        Self { exited_ns, ..self }
    }

    pub(super) fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    pub(super) fn exited_ns(&self) -> Option<i64> {
        self.exited_ns
    }

    pub(super) fn execed_ns(&self) -> Option<i64> {
        self.execed_ns
    }

    pub(super) fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
impl Processes {
    pub(super) fn known(&mut self) -> &mut HashMap<i32, Known> {
        &mut self.known
    }
}
