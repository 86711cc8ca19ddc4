//! The locks of SQLite's Unix layer (`os_unix.c`, `wal.c`), taken as a reader takes them. They are locks of the open
//! file description: SQLite's own descriptors in this process neither share nor release them.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use service_kit::run::Drain;

/// How long to wait for a writer. The reference waits as long for its readers.
const WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A range of bytes that stands for a lock.
#[derive(Debug, Clone, Copy)]
struct Bytes {
    start: i64,
    count: i64,
}

/// Taken by a writer that waits for the readers to leave; a reader passes it.
const PENDING: Bytes = Bytes { start: 0x4000_0000, count: 1 };
/// Taken by the one writer that may be preparing a transaction.
const RESERVED: Bytes = Bytes { start: PENDING.start + 1, count: 1 };
/// Shared by readers, and taken whole by a writer that changes the file.
const SHARED: Bytes = Bytes { start: PENDING.start + 2, count: 510 };
/// In the index of a write-ahead log: taken by a checkpoint.
const CHECKPOINT: Bytes = Bytes { start: 121, count: 1 };
/// In the index: the last of the marks of readers. A writer begins the log again only when it can take all of them.
const READER: Bytes = Bytes { start: 127, count: 1 };

/// The result of a request for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    Held,
    /// Another program kept it all the time, or until the wait was ended.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

/// Shares the lock of a database with its readers, which keeps writers from changing the file.
///
/// # Errors
/// The lock failed for another reason than that it is held or that there are none.
pub(super) fn share_database(file: &File, drain: &Drain) -> io::Result<Locked> {
    let until = Instant::now() + WAIT;
    // As `unixLock` in `os_unix.c`: a reader takes PENDING before SHARED, so that a writer that holds PENDING meets no
    // new readers and does not starve.
    match share(file, PENDING, until, drain)? {
        Locked::Held => {}
        other => return Ok(other),
    }
    let shared = share(file, SHARED, until, drain);
    // Also where SHARED was not obtained: a PENDING that is kept would keep every writer from changing the file.
    release(file, PENDING);
    shared
}

/// Releases the lock of the database.
pub(super) fn release_database(file: &File) {
    release(file, SHARED);
}

/// Whether a running writer has begun a transaction.
pub(super) fn is_reserved(file: &File) -> bool {
    // A test only (`F_OFD_GETLK`): the lock is not taken, so that no writer meets it.
    let mut lock = lock_of(libc::F_WRLCK, RESERVED);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    // The kernel reports the lock that is in the way, or `F_UNLCK` where there is none (fcntl(2)).
    asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

/// Keeps a write-ahead log from being checkpointed or begun again. `index` is the file with the ending `-shm`.
///
/// # Errors
/// As [`share_database`].
pub(super) fn hold_log(index: &File, drain: &Drain) -> io::Result<Locked> {
    let until = Instant::now() + WAIT;
    match share(index, CHECKPOINT, until, drain)? {
        // A reader's mark keeps `walRestartLog` from writing over the frames from the beginning of the log.
        Locked::Held => share(index, READER, until, drain),
        other => Ok(other),
    }
}

fn share(file: &File, bytes: Bytes, until: Instant, drain: &Drain) -> io::Result<Locked> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock_of(libc::F_RDLCK, bytes))) {
            Ok(_) => return Ok(Locked::Held),
            // POSIX allows both for a lock that another holds. Polled, since `F_OFD_SETLKW` waits without a limit and
            // no drain ends it.
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() >= until || drain.is_cancelled() => {
                return Ok(Locked::Busy);
            }
            Err(Errno::EAGAIN | Errno::EACCES) => std::thread::sleep(LOOK_EVERY),
            // ENOLCK: a remote locking protocol failed, as over NFS (fcntl(2)). EINVAL: a kernel before 3.15, which has
            // no locks of open file descriptions.
            Err(Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL) => return Ok(Locked::Unsupported),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn release(file: &File, bytes: Bytes) {
    // Closing the file releases it too.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&lock_of(libc::F_UNLCK, bytes)));
}

fn lock_of(kind: i32, bytes: Bytes) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(i16::MAX),
        l_start: bytes.start,
        l_len: bytes.count,
        // Must be 0 for the commands of open file descriptions (fcntl(2)).
        l_pid: 0,
    }
}
