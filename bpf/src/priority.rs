//! Scheduling of the threads that must not wait for a busy job: while the reader of the rings gets no CPU, the rings
//! fill.
#![expect(unsafe_code, reason = "sched_setscheduler and setpriority are called directly")]

use std::io;
use std::thread;

/// How a thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Like any other.
    Usual,
    /// With the weight of [`NICE`].
    Raised,
    /// Before every thread that is not real-time: `SCHED_RR` at the lowest real-time priority.
    RealTime,
}

impl Priority {
    /// As in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usual => "nice 0",
            Self::Raised => "nice -10",
            Self::RealTime => "SCHED_RR",
        }
    }
}

/// The nice value of [`Priority::Raised`].
const NICE: libc::c_int = -10;

/// Raises the calling thread to `most`, or as far as is permitted, and returns the priority reached. Threads that it
/// starts do not inherit a real-time priority.
pub fn raise(most: Priority) -> Priority {
    // From the most to the least: without CAP_SYS_NICE, or without real-time budget of the cgroup, the thread still
    // runs.
    if most == Priority::RealTime && be_real_time().is_ok() {
        return Priority::RealTime;
    }
    if most > Priority::Usual && be_raised().is_ok() { Priority::Raised } else { Priority::Usual }
}

/// How far a thread of this process may be raised.
pub fn permitted() -> Priority {
    // On a thread of its own, which ends: the caller keeps its priority.
    let asked = thread::Builder::new().name("causeway-check".to_owned()).spawn(|| raise(Priority::RealTime));
    asked.ok().and_then(|asked| asked.join().ok()).unwrap_or(Priority::Usual)
}

fn be_real_time() -> io::Result<()> {
    // The lowest real-time priority: kernel threads and other real-time services run before the reader.
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and `lowest` outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &lowest) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn be_raised() -> io::Result<()> {
    // SAFETY: no pointers. On Linux 0 is the calling thread, not its process.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    //! What a thread is raised to holds of it alone.

    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: no pointers.
        unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
    }

    #[test]
    fn a_check_leaves_the_caller_as_it_was_and_a_raised_thread_is_what_it_says() {
        let before = policy();
        let most = permitted();
        assert_eq!(policy(), before);
        let raised = thread::spawn(|| (raise(Priority::RealTime), policy())).join().unwrap();
        let expected = if most == Priority::RealTime { libc::SCHED_RR } else { libc::SCHED_OTHER };
        assert_eq!(raised, (most, expected));
        assert_eq!(thread::spawn(|| (raise(Priority::Usual), policy())).join().unwrap(), (Priority::Usual, before));
    }
}
