//! The processes whose records are read, and what is known of each: from the environment that the probes have kept, from `/proc`
//! when it is met, from what discovery has seen of it, and from its parent.

use std::collections::HashMap;

use bpf::{Environment, Environments, Record};

use crate::cgroups::Cgroups;
use crate::discover::Alive;
use crate::facts::{FactError, Facts};
use crate::process::{Process, Ranks, Statement};

/// What was known of a process is kept this long after its exit: its last calls may still lie in the data ring.
pub(super) const REMEMBER_NS: i64 = 10_000_000_000;
/// Processes remembered at one time.
const PROCESSES_MAX: usize = 65_536;
/// Processes of which no record was read, remembered at one time.
const SEEN_MAX: usize = 16_384;

/// A process seen in a record.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) process: Process,
    /// Of the record by which it was met.
    pub(super) cgroup_id: i64,
    /// It was read after this.
    pub(super) read_ns: i64,
    /// It became another program since, by a notice: the record of it may be lost.
    pub(super) execed_ns: Option<i64>,
    pub(super) exited_ns: Option<i64>,
}

impl Known {
    /// True when a record of this time must be another process's of the same number, or another program's of the same process.
    pub(super) fn was_gone_by(&self, boot_ns: i64) -> bool {
        [self.execed_ns, self.exited_ns].into_iter().flatten().any(|gone| gone < boot_ns)
    }
}

/// What was seen of a process that has no record yet.
#[derive(Debug)]
struct Seen {
    process: Process,
    at_ns: i64,
}

/// All of them, and the facts that are to be reported.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) facts: Facts,
    environments: Option<Environments>,
    pub(super) known: HashMap<i32, Known>,
    seen: HashMap<i32, Seen>,
    cgroups: Cgroups,
}

impl Processes {
    pub(super) fn new(environments: Option<Environments>) -> Self {
        let (known, seen) = (HashMap::new(), HashMap::new());
        Self { facts: Facts::default(), environments, known, seen, cgroups: Cgroups::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, pid: i32) -> Option<&Known> {
        self.known.get(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: i32) -> Option<&mut Known> {
        self.known.get_mut(&pid)
    }

    /// Learns a process from the first record of it, or again when it has replaced its image. The poll that brought the record
    /// began at `now_ns`.
    pub(super) fn meet(&mut self, record: &Record, now_ns: i64) -> Result<(), FactError> {
        if self.known.len() >= PROCESSES_MAX {
            self.known.clear();
        }
        let mut process = self.identify(record);
        let cgroup_id = record.cgroup_id;
        if let Some(cgroup) = self.cgroups.meet(cgroup_id, &process) {
            self.facts.add_cgroup(&cgroup, record.boot_ns)?;
            self.complete(cgroup_id, &process);
        }
        process.of_container = self.cgroups.of_container(cgroup_id, &process);
        self.facts.add_process(&process, Some(cgroup_id), record.boot_ns, None)?;
        // The poll began before the process was read, and its record is older still, unless it was made meanwhile.
        let read_ns = now_ns.max(record.boot_ns);
        let known = Known { process, cgroup_id, read_ns, execed_ns: None, exited_ns: None };
        self.known.insert(record.pid, known);
        Ok(())
    }

    /// What can be found out about the process of a record, which may have ended.
    fn identify(&self, record: &Record) -> Process {
        let environment = self.environments.as_ref().and_then(|kept| kept.of(record.pid, record.boot_ns));
        let seen = self.seen.get(&record.pid);
        let kept = environment.as_ref().map(|environment| environment.text.as_slice());
        if let Some(mut process) = Process::read(record.pid, kept) {
            let same = seen.filter(|seen| seen.process.start_ticks == process.start_ticks);
            if let Some(Seen { process: seen, .. }) = same {
                process.now = seen.now.clone();
                process.container_id = process.container_id.or_else(|| seen.container_id.clone());
                process.cgroup_path = process.cgroup_path.or_else(|| seen.cgroup_path.clone());
            }
            return process;
        }
        let had_begun = |seen: &&Seen| environment.as_ref().is_none_or(|e| e.since_ns <= seen.at_ns);
        let of_parent = || self.of_parent(record.pid, environment.as_ref()?);
        let seen = seen.filter(had_begun).map(|seen| seen.process.clone()).or_else(of_parent);
        let mut process = seen.unwrap_or_default();
        process.pid = record.pid;
        if process.name.is_empty() {
            process.name = record.comm.as_str().to_owned();
        }
        if let Some(kept) = kept {
            process.at_exec = Statement::of_environment(kept);
        }
        process
    }

    /// A process that was forked and has ended is, as far as is known, what its parent is.
    fn of_parent(&self, pid: i32, environment: &Environment) -> Option<Process> {
        let parent = environment.parent?;
        let known = self.known.get(&parent).map(|known| &known.process);
        let parent = known.or_else(|| self.seen.get(&parent).map(|seen| &seen.process))?;
        Some(Process { name: String::new(), nccl: None, ..parent.forked(pid) })
    }

    /// Gives the processes of a cgroup what has just become known of it.
    fn complete(&mut self, cgroup_id: i64, met: &Process) {
        let Self { known, cgroups, .. } = self;
        let is_there =
            |known: &&mut Known| known.cgroup_id == cgroup_id && known.process.cgroup_path == met.cgroup_path;
        for known in known.values_mut().filter(is_there) {
            known.process.of_container = cgroups.of_container(cgroup_id, &known.process);
        }
    }

    /// Takes what was seen of a process beside its records.
    pub(super) fn see(&mut self, seen: Process, now_ns: i64) -> Result<(), FactError> {
        if let Some(known) = self.known.get_mut(&seen.pid)
            && known.process.start_ticks == seen.start_ticks
        {
            if seen.now.is_empty() || known.process.now == seen.now {
                return Ok(());
            }
            known.process.now = seen.now;
            return self.facts.add_process(&known.process, Some(known.cgroup_id), now_ns, None);
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        let mut seen = seen;
        let before = self.seen.remove(&seen.pid).filter(|before| before.process.start_ticks == seen.start_ticks);
        if let Some(Seen { process: before, .. }) = before {
            if seen.now.is_empty() {
                seen.now = before.now;
            }
            seen.container_id = seen.container_id.or(before.container_id);
            seen.cgroup_path = seen.cgroup_path.or(before.cgroup_path);
        }
        self.seen.insert(seen.pid, Seen { process: seen, at_ns: now_ns });
        Ok(())
    }

    /// Takes the rank that a process has given to NCCL; of several that in the largest communicator. True when its environment
    /// gives it none.
    pub(super) fn take_nccl_ranks(&mut self, pid: i32, ranks: Ranks, boot_ns: i64) -> Result<bool, FactError> {
        let Some(known) = self.known.get_mut(&pid) else { return Ok(false) };
        let process = &mut known.process;
        if process.nccl.is_some_and(|before| before.world_size >= ranks.world_size) {
            return Ok(false);
        }
        process.nccl = Some(ranks);
        let is_without = process.now.ranks.or(process.at_exec.ranks).is_none();
        if is_without {
            self.facts.add_process(process, Some(known.cgroup_id), boot_ns, None)?;
        }
        Ok(is_without)
    }

    /// Takes notice of an exec. What is known of the process is read again with its next record, unless it was since.
    pub(super) fn note_exec(&mut self, pid: i32, boot_ns: i64) {
        if let Some(known) = self.known.get_mut(&pid).filter(|known| known.read_ns < boot_ns) {
            known.execed_ns = Some(boot_ns);
        }
        // What its program before had set is gone.
        if let Some(seen) = self.seen.get_mut(&pid).filter(|seen| seen.at_ns < boot_ns) {
            seen.process.now = Statement::default();
        }
    }

    /// The process that had the child's number before is gone, even if no record says so.
    pub(super) fn note_fork(&mut self, parent: i32, child: i32) {
        self.known.remove(&child);
        self.seen.remove(&child);
        let Some(known) = self.known.get(&parent) else { return };
        let process = Process { nccl: None, ..known.process.forked(child) };
        let at_ns = known.read_ns;
        self.seen.insert(child, Seen { process, at_ns });
    }

    /// Forgets the processes that have been gone for a while, also without a record of the exit, and those whose number is another
    /// process's now.
    pub(super) fn forget_exited(&mut self, alive: &Alive, now_ns: i64) {
        let before = now_ns - REMEMBER_NS;
        self.known.retain(|pid, known| match (known.exited_ns, alive.processes.get(pid)) {
            (Some(exited), _) => exited > before,
            (None, _) if known.read_ns >= alive.since_ns => true,
            (None, Some(start_ticks)) => *start_ticks == known.process.start_ticks,
            (None, None) => {
                known.exited_ns = Some(now_ns);
                true
            }
        });
        self.seen.retain(|pid, seen| seen.at_ns > before || alive.processes.contains_key(pid));
    }
}
