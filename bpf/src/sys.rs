//! The system calls that have no safe wrapper among our dependencies.
#![expect(unsafe_code, reason = "epoll, eventfd and membarrier are called directly")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Sleeps until a probe, or another thread, wakes the reader.
///
/// Edge-triggered on purpose: most records are submitted without a wake-up, and a level-triggered wait would return at
/// once whenever a ring is not empty, so that a busy ring would never be read in batches.
#[derive(Debug)]
pub(crate) struct Wakeups {
    epoll: OwnedFd,
    waker: Waker,
}

/// Wakes a thread that waits in [`Tracer::poll`](crate::Tracer::poll). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<File>);

impl Waker {
    /// One that wakes no thread yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a descriptor without another owner.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(Arc::new(File::from(event))))
    }

    /// Ends the wait that is under way, or the next one.
    pub fn wake(&self) {
        // It is not read back: each write is an edge of its own, and the counter has room for 2^64 of them.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}

impl Wakeups {
    pub(crate) fn on(rings: &[BorrowedFd<'_>]) -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a descriptor without another owner.
        let epoll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let waker = Waker::new()?;
        for source in rings.iter().copied().chain([waker.0.as_fd()]) {
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
            // SAFETY: both descriptors are open and `event` outlives the call.
            let added =
                unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, source.as_raw_fd(), &mut event) };
            if added < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { epoll, waker })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns after a wake-up, a signal, or `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        const EVENTS: usize = 4;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `events` has room for EVENTS entries and outlives the call.
        let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, millis) };
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
        // membarrier(2): MEMBARRIER_CMD_GLOBAL is refused where CPUs run without a timer tick (nohz_full). A probe program runs
        // for microseconds with preemption off, so that none outlasts this wait.
        std::thread::sleep(Duration::from_millis(100));
    }
}
