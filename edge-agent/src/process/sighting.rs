//! What was seen of a process beside its records, and when.

use super::{Process, Statement};
use crate::clock;

/// One look at a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Name, start and cgroup.
    pub(crate) process: Process,
    /// The environment its program began with, if that was read.
    pub(crate) at_exec: Option<Statement>,
    /// The environment its program has now, if that was read.
    pub(crate) now: Option<Statement>,
    /// Boot time before the look: what was read may be of the program that the process had then.
    pub(crate) at_ns: i64,
}

impl Sighting {
    /// Sees its name and cgroup alone.
    pub(crate) fn glance(pid: i32) -> Option<Self> {
        let at_ns = now_ns();
        Some(Self { process: Process::glance(pid)?, at_exec: None, now: None, at_ns })
    }

    /// Reads the environment that its program began with, too. May hang with a process whose memory is locked.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let at_ns = now_ns();
        let mut process = Process::read(pid)?;
        let at_exec = std::mem::take(&mut process.at_exec);
        Some(Self { process, at_exec: Some(at_exec), now: None, at_ns })
    }
}

/// Without a clock what was read may be of any program before.
pub(crate) fn now_ns() -> i64 {
    clock::boot_ns().unwrap_or(i64::MIN)
}
