//! Processes that map a probed library and are not traced: which are to be reported, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Discovery, FoundProcess};
use crate::process::Process;

/// Interval of the reports of a process that stays untraced. An older report is no longer valid.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is to be reported of a process.
#[derive(Debug)]
pub(crate) struct Untraced {
    pub(crate) process: Process,
    /// Why its calls are not recorded; absent when they are now.
    pub(crate) reason: Option<String>,
}

/// What was reported.
#[derive(Debug, Default)]
pub(super) struct Reported {
    processes: HashMap<i32, Report>,
}

#[derive(Debug)]
struct Report {
    start_ticks: u64,
    reason: String,
    at: Instant,
}

impl Reported {
    /// What has changed since the last scan, or is due to be reported again.
    pub(super) fn news(&mut self, discovery: &Discovery, now: Instant) -> Vec<Untraced> {
        let mut news = Vec::new();
        let mut before = std::mem::take(&mut self.processes);
        for (FoundProcess { pid, start_ticks }, reason) in discovery.untraced() {
            let known = before.remove(&pid).filter(|known| known.start_ticks == start_ticks && known.reason == reason);
            let is_fresh = known.as_ref().is_some_and(|known| now.saturating_duration_since(known.at) < AGAIN_AFTER);
            let at = known.filter(|_| is_fresh).map_or(now, |known| known.at);
            self.processes.insert(pid, Report { start_ticks, reason: reason.to_owned(), at });
            if !is_fresh && let Some(process) = glance(pid, start_ticks) {
                news.push(Untraced { process, reason: Some(reason.to_owned()) });
            }
        }
        // What is left was reported before and is not untraced any more. It is traced now or has ended; `glance` finds
        // only the living.
        let traced_now = before.into_iter().filter_map(|(pid, known)| glance(pid, known.start_ticks));
        news.extend(traced_now.map(|process| Untraced { process, reason: None }));
        news
    }

    /// Processes that are not traced.
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }
}

fn glance(pid: i32, start_ticks: u64) -> Option<Process> {
    Process::glance(pid).filter(|process| process.start_ticks == start_ticks)
}
