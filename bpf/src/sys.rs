//! The three system calls that have no safe wrapper among our dependencies.
#![expect(unsafe_code, reason = "epoll and membarrier are called directly")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Sleeps until a probe wakes the reader.
///
/// Edge-triggered on purpose: most records are submitted without a wake-up, and a level-triggered wait would return at
/// once whenever a ring is not empty, so that a busy ring would never be read in batches.
#[derive(Debug)]
pub(crate) struct Wakeups(OwnedFd);

impl Wakeups {
    pub(crate) fn on(rings: &[BorrowedFd<'_>]) -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        for ring in rings {
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
            // SAFETY: both descriptors are open and `event` outlives the call.
            let added =
                unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, ring.as_raw_fd(), &mut event) };
            if added < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self(epoll))
    }

    /// Returns after a wake-up, a signal, or `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        const EVENTS: usize = 4;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `events` has room for EVENTS entries and outlives the call.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, millis) };
        let error = io::Error::last_os_error();
        if ready < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
    }
}

/// Returns when every probe program that was running when this was called has ended: they run inside RCU read sections,
/// and a global membarrier is a grace period.
pub(crate) fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three integers and no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done < 0 {
        // Refused where CPUs run without a timer tick (nohz_full). A program runs for microseconds with preemption off.
        std::thread::sleep(Duration::from_millis(100));
    }
}
