//! Decides when the present environment of a process is read: some programs set their rank themselves, after they
//! began.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Alive, FoundProcess};
use crate::process::environ::Environs;
use crate::process::{Process, Sighting, Statement, sighting};

/// Pauses between readings, seconds. They go on when a rank is known: it may be the launcher's, which the process has
/// inherited.
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
    /// Reads the environment of a process when its pause is over, or at once when something was noticed of it. Returns
    /// the process when its environment has changed since the last reading.
    pub(super) fn learn(&mut self, found: FoundProcess, is_noticed: bool, now: Instant) -> Option<Sighting> {
        let known = self.processes.get(&found.pid).filter(|known| known.start_ticks == found.start_ticks);
        let is_due = known.is_none_or(|known| known.next <= now);
        if !is_due && !is_noticed {
            return None;
        }
        let readings = known.map_or(0, |known| known.readings);
        let before = known.map(|known| known.statement.clone()).unwrap_or_default();
        // Exponential backoff.
        let next = now + Duration::from_secs(PAUSES_S[readings.min(PAUSES_S.len() - 1)]);
        // Before the reading: if an exec follows this instant, the reading may be of the former program, and is
        // dropped.
        let at_ns = sighting::now_ns();
        // An environment that cannot be read now counts as unchanged.
        let statement = self.environs.read(found.pid).unwrap_or_else(|| before.clone());
        let is_new = statement != before;
        let learned =
            Learned { start_ticks: found.start_ticks, readings: readings + 1, next, statement: statement.clone() };
        self.processes.insert(found.pid, learned);
        if !is_new {
            return None;
        }
        // The number may have become another process's while the memory was read.
        let process = Process::glance(found.pid).filter(|process| process.start_ticks == found.start_ticks)?;
        Some(Sighting { process, at_exec: None, now: Some(statement), at_ns })
    }

    /// Drops what was read of a process that may have become another program: what that one states is new, even if it
    /// is the same.
    pub(super) fn forget(&mut self, pid: i32) {
        self.processes.remove(&pid);
    }

    /// Drops the processes that a scan has not seen.
    pub(super) fn forget_ended(&mut self, alive: &Alive) {
        self.processes.retain(|pid, _| alive.processes.contains_key(pid));
    }
}

#[cfg(test)]
mod tests {
    //! A rank that a program has set itself is learned, also when it had inherited one.

    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_rank_that_takes_the_place_of_an_inherited_one_is_learned() {
        let python =
            "import os, sys, time; print(flush=True); sys.stdin.read(1); os.environ['RANK'] = '5'; time.sleep(60)";
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", python]).env("RANK", "0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Python changes its environment while it starts.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = FoundProcess { pid, start_ticks: Process::living_start_of(pid).unwrap() };
        let mut learner = Learner::default();
        let mut now = Instant::now();
        let mut until = |learner: &mut Learner, rank| {
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut seen = None;
            while seen != Some(rank) && Instant::now() <= deadline {
                now += Duration::from_secs(64);
                seen = learner.learn(found, false, now).and_then(|seen| Some(seen.now?.ranks?.rank));
            }
            seen
        };
        let inherited = until(&mut learner, 0);
        learner.forget(pid);
        let again = learner.learn(found, false, Instant::now()).and_then(|seen| seen.now?.ranks);
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        let set = until(&mut learner, 5);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((inherited, again.map(|ranks| ranks.rank), set), (Some(0), Some(0), Some(5)));
    }
}
