//! Waiting for probes, and the system call that has no safe wrapper among our dependencies.
#![expect(unsafe_code, reason = "membarrier is called directly")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Sleeps until a probe, or another thread, wakes the reader.
///
/// Edge-triggered on purpose: most records are submitted without a wake-up, and a level-triggered wait would return at
/// once whenever a ring is not empty, so that a busy ring would never be read in batches.
#[derive(Debug)]
pub(crate) struct Wakeups {
    epoll: Epoll,
    waker: Waker,
}

/// Wakes a thread that waits in [`Tracer::poll`](crate::Tracer::poll). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// One that wakes no thread yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(event)))
    }

    /// Ends the wait that is under way, or the next one.
    pub fn wake(&self) {
        // It is not read back: each write is an edge of its own, and the counter has room for 2^64 of them.
        let _ = self.0.write(1);
    }
}

impl Wakeups {
    pub(crate) fn on(rings: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let waker = Waker::new()?;
        // EPOLLET, see above: an edge is each wake-up that a probe asks for.
        for source in rings.iter().copied().chain([waker.0.as_fd()]) {
            epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        }
        Ok(Self { epoll, waker })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns after a wake-up, a signal, or `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 4];
        // epoll_wait(2) takes milliseconds in an `int`; a longer wait is shortened.
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::MAX);
        match self.epoll.wait(&mut events, timeout) {
            // Which descriptor is ready does not matter: the reader drains all rings.
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns when every probe program that was running when this was called has ended: they run inside RCU read sections,
/// and a global membarrier is a grace period.
pub(crate) fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three integers and no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done < 0 {
        // membarrier(2): MEMBARRIER_CMD_GLOBAL is refused where CPUs run without a timer tick (nohz_full). A probe
        // program runs for microseconds with preemption off, so that none outlasts this wait.
        std::thread::sleep(Duration::from_millis(100));
    }
}
