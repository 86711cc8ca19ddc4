//! When the environment that a process has now is read: some programs set their rank themselves, after they began.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Alive, FoundProcess};
use crate::process::environ::Environs;
use crate::process::{Process, Statement};

/// Pauses between readings while no rank is known, seconds.
const PAUSES_S: [u64; 7] = [0, 2, 4, 8, 16, 32, 64];

/// What was read of the processes that map a probed library.
#[derive(Debug, Default)]
pub(super) struct Learner {
    environs: Environs,
    processes: HashMap<i32, Learned>,
}

#[derive(Debug)]
struct Learned {
    start_ticks: u64,
    readings: usize,
    next: Instant,
    statement: Statement,
}

impl Learner {
    /// Reads the environment of a process if it is time to, or at once when something was noticed of it. Gives the process when
    /// its environment says something that it did not say at the last reading.
    pub(super) fn learn(&mut self, found: FoundProcess, is_noticed: bool, now: Instant) -> Option<Process> {
        let known = self.processes.get(&found.pid).filter(|known| known.start_ticks == found.start_ticks);
        let has_rank = known.is_some_and(|known| known.statement.ranks.is_some());
        let is_due = known.is_none_or(|known| known.next <= now && !has_rank);
        if !is_due && !is_noticed {
            return None;
        }
        let readings = known.map_or(0, |known| known.readings);
        let before = known.map(|known| known.statement.clone()).unwrap_or_default();
        let next = now + Duration::from_secs(PAUSES_S[readings.min(PAUSES_S.len() - 1)]);
        let statement = self.environs.read(found.pid).unwrap_or_else(|| before.clone());
        let is_new = statement != before;
        let learned =
            Learned { start_ticks: found.start_ticks, readings: readings + 1, next, statement: statement.clone() };
        self.processes.insert(found.pid, learned);
        if !is_new {
            return None;
        }
        let process = Process::glance(found.pid).filter(|process| process.start_ticks == found.start_ticks)?;
        Some(Process { now: statement, ..process })
    }

    /// Forgets the processes that a scan has not seen.
    pub(super) fn forget_ended(&mut self, alive: &Alive) {
        self.processes.retain(|pid, _| alive.processes.contains_key(pid));
    }
}
