//! Names of processes by their numbers. The scheduler's rows name the thread that took a CPU; the name of a process is
//! that of its first thread, whose id is the process's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use event_schema::catalog::Source;

use crate::observation::{Kind, Observation};

/// Processes whose names are kept. Those met later are shown by their number.
const PROCESSES_MAX: usize = 1 << 16;
/// Names kept per process.
const NAMES_MAX: usize = 16;
/// Threads named for a process whose own name is not known.
const THREADS_SHOWN: usize = 3;
/// What the programs of Causeway are called; the kernel cuts names at 15 bytes.
const OWN_NAME: &str = "causeway";

/// Processes of all nodes by the node's number and theirs.
#[derive(Debug, Default)]
pub(crate) struct Names {
    of: HashMap<(usize, i32), Known>,
}

/// What is known of one process.
#[derive(Debug, Default)]
struct Known {
    /// Names of the first thread, with the time for which it was seen under each, nanoseconds: it may have changed by
    /// an exec.
    leader: Weights,
    /// Names of its other threads, likewise.
    threads: Weights,
    /// As another table has it.
    reported: Option<Arc<str>>,
    /// The agent itself made rows under this number.
    is_agent: bool,
}

#[derive(Debug, Default)]
struct Weights(BTreeMap<Arc<str>, i64>);

impl Weights {
    fn add(&mut self, name: &str, ns: i64) {
        if let Some(sum) = self.0.get_mut(name) {
            *sum = sum.saturating_add(ns);
            return;
        }
        self.0.insert(Arc::from(name), ns);
        if self.0.len() > NAMES_MAX {
            // The last in alphabetical order: a rule that keeps the same names whatever the order of arrival.
            self.0.pop_last();
        }
    }

    fn heaviest(&self) -> Option<&str> {
        self.0.iter().max_by_key(|(name, ns)| (**ns, std::cmp::Reverse(*name))).map(|(name, _)| &**name)
    }
}

impl Names {
    /// Takes what a row says of a process other than the one that made it, or of the agent.
    pub(crate) fn observe(&mut self, node: usize, row: &Observation<'_>) {
        if Source::from_number(row.source).is_some_and(Source::is_of_agent) {
            if let Some(known) = self.entry(node, row.pid) {
                known.is_agent = true;
            }
            return;
        }
        let (Some(Kind::Runnable(_)), Some(name)) = (row.kind(), row.peer_comm) else { return };
        let pid = row.peer();
        // The first thread of a process has the process id as its thread id (gettid(2)).
        let is_leader = row.arg0 == i64::from(pid);
        let ns = row.duration_ns.unwrap_or(0).max(0);
        if let Some(known) = self.entry(node, pid).filter(|_| pid > 0) {
            let names = if is_leader { &mut known.leader } else { &mut known.threads };
            names.add(name, ns);
        }
    }

    /// Takes the name of a process from elsewhere. It serves where the scheduler's rows do not have it.
    pub(crate) fn add_reported(&mut self, node: usize, pid: i32, name: &str) {
        if let Some(known) = self.entry(node, pid)
            && known.reported.as_deref().is_none_or(|reported| name < reported)
        {
            known.reported = Some(Arc::from(name));
        }
    }

    fn entry(&mut self, node: usize, pid: i32) -> Option<&mut Known> {
        if self.of.len() >= PROCESSES_MAX && !self.of.contains_key(&(node, pid)) {
            return None;
        }
        Some(self.of.entry((node, pid)).or_default())
    }

    /// The name of a process; `None` where only names of threads are known, or nothing.
    pub(crate) fn process(&self, node: usize, pid: i32) -> Option<&str> {
        let known = self.of.get(&(node, pid))?;
        let own = known.is_agent.then_some(OWN_NAME);
        // Measured names first: numbers are used again, and a reported name may be that of an earlier process.
        known.leader.heaviest().or(known.reported.as_deref()).or(own)
    }

    /// Whether the process is a program of Causeway.
    pub(crate) fn is_causeway(&self, node: usize, pid: i32) -> bool {
        let is_agent = self.of.get(&(node, pid)).is_some_and(|known| known.is_agent);
        // By prefix, which covers all programs of Causeway.
        is_agent || self.process(node, pid).is_some_and(|name| name.starts_with(OWN_NAME))
    }

    /// A process in words: `backup (pid 88)`.
    pub(crate) fn shown(&self, node: usize, pid: i32) -> String {
        let own = if self.is_causeway(node, pid) { " (this is Causeway)" } else { "" };
        if let Some(name) = self.process(node, pid) {
            return format!("{name} (pid {pid}){own}");
        }
        let threads = self.of.get(&(node, pid)).map(|known| &known.threads.0);
        let named: Vec<&str> = threads.into_iter().flat_map(BTreeMap::keys).map(|name| &**name).collect();
        match named.len() {
            0 => format!("an unnamed process (pid {pid}){own}"),
            1 => format!("the process of thread {} (pid {pid}){own}", named[0]),
            _ => {
                let more = if named.len() > THREADS_SHOWN { ", ..." } else { "" };
                let shown = named.into_iter().take(THREADS_SHOWN).collect::<Vec<_>>().join(", ");
                format!("the process of threads {shown}{more} (pid {pid}){own}")
            }
        }
    }
}
