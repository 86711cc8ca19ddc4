//! A recording as it stood at one moment. Nothing is written to the file, nor beside it.
//!
//! A file at rest is read in place, under the lock that keeps SQLite's writers from changing it. A file with a rollback
//! journal, a write-ahead log or a writer is copied to a private directory, with the journal or log that SQLite needs
//! to bring it to its last committed state. SQLite does so on the copy. The copy is made under the locks that a reader
//! of SQLite takes.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use service_kit::run::Drain;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

pub(crate) mod form;
mod locks;
mod private;
#[cfg(test)]
mod tests;

use form::{FormError, Header};
use locks::Locked;
use private::PrivateDir;
pub use private::remove_stale;

/// How often a snapshot of a file is attempted that changes while it is read, where no lock could prevent the change.
pub(crate) const ATTEMPTS: u32 = 3;

/// Bytes that are copied between two checks of the drain.
const COPIED_AT_ONCE: u64 = 8 << 20;
/// What a rollback journal begins with while its transaction can be rolled back. A writer that keeps its journal fills
/// this with zeros when the transaction ends.
const JOURNAL_MAGIC: [u8; 8] = *b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";

/// Why a file could not be read as it stood at one moment.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file, or one beside it, cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// The file is no SQLite database.
    #[error(transparent)]
    Form(#[from] FormError),
    /// A writer kept the lock for five seconds.
    #[error(
        "{} is locked by a program that is writing to it: wait until its transaction has ended, or stop the tracer, and import again",
        path.display()
    )]
    Busy {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// The drain ended the import.
    #[error("interrupted while {} was read", path.display())]
    Interrupted {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// A writer changed it under every attempt, where no lock could keep it from doing so.
    #[error("{} changed while it was read: stop the tracer, or copy the file where nothing writes to it", path.display())]
    Changing {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// The private copy cannot be made.
    #[error(
        "{} cannot be copied to {}: it needs {bytes} bytes there; name another directory with TMPDIR",
        path.display(),
        dir.display()
    )]
    Copy {
        /// The file, as it was named.
        path: PathBuf,
        /// The directory of the copy.
        dir: PathBuf,
        /// Bytes of the file; 0 when they are not known.
        bytes: u64,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The file itself: nothing writes to it.
    InPlace,
    /// A private copy of the file and its write-ahead log, if any.
    Copy,
    /// A private copy, in which SQLite took back the transaction that its writer did not finish.
    RolledBack,
}

/// A file that does not change while this value exists.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) reading: Reading,
    /// What SQLite opens.
    path: PathBuf,
    /// Keeps the lock of a file that is read in place.
    source: Option<LockedFile>,
    _dir: Option<PrivateDir>,
}

/// A file under a lock, and the path to it.
#[derive(Debug)]
struct LockedFile {
    file: File,
    path: PathBuf,
}

impl Snapshot {
    /// Takes a snapshot. Blocks while another program holds the file's lock, for some seconds at most, and while the
    /// file is copied; `drain` ends both.
    ///
    /// # Errors
    /// The file cannot be read, is not an SQLite database, stays locked, or cannot be copied.
    pub(crate) fn take(path: &Path, drain: &Drain) -> Result<Self, SnapshotError> {
        // SQLite expects journals beside the file that a link leads to.
        let real = path.canonicalize().map_err(|source| unreadable(path, source))?;
        let source = Source { shown: path, file: open_regular(path, &real)?, real, drain };
        // Before any lock: a file of another kind is refused at once, with its kind.
        form::read_header(path, &source.file)?;
        for _ in 0..ATTEMPTS {
            if let Some(snapshot) = source.try_take()? {
                return Ok(snapshot);
            }
        }
        Err(SnapshotError::Changing { path: path.to_owned() })
    }

    /// False when another file has the name of the one that is read in place. SQLite opens a path: asked after it has
    /// done so, this says whether it reads the file that is locked.
    pub(crate) fn is_in_its_place(&self) -> bool {
        let Some(LockedFile { file, path }) = &self.source else { return true };
        // Compared after the path was opened (time of check to time of use): a rename in between would leave the lock
        // on another file.
        inode(file.metadata()) == inode(std::fs::metadata(path))
    }

    /// How SQLite opens it. Only a copy is opened for writing: SQLite rolls back a journal and recovers a log there.
    pub(crate) fn options(&self) -> SqliteConnectOptions {
        let is_in_place = self.reading == Reading::InPlace;
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(is_in_place)
            // SQLite then takes no locks and looks for no journal (sqlite.org/uri.html), and needs no right to write
            // beside the file. Its writers are kept out by the lock of this snapshot.
            .immutable(is_in_place)
            .disable_statement_logging()
    }
}

/// The device and inode of a file; `None` when it is not there.
fn inode(metadata: io::Result<Metadata>) -> Option<(u64, u64)> {
    metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The file of a recording.
struct Source<'a> {
    /// The path as it was given, for messages.
    shown: &'a Path,
    real: PathBuf,
    file: File,
    drain: &'a Drain,
}

/// Files that SQLite keeps beside a database.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Journal,
    Log,
    LogIndex,
}

impl Beside {
    fn ending(self) -> &'static str {
        match self {
            Self::Journal => "-journal",
            Self::Log => "-wal",
            Self::LogIndex => "-shm",
        }
    }
}

impl Source<'_> {
    /// A snapshot; `None` when the file changed under an attempt that no lock could guard.
    fn try_take(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let locked = locks::share_database(&self.file, self.drain).map_err(|source| unreadable(self.shown, source))?;
        if locked == Locked::Busy {
            return Err(self.busy());
        }
        // Read again under the lock: until then a writer may have changed it.
        let header = form::read_header(self.shown, &self.file)?;
        let is_reserved = locks::is_reserved(&self.file);
        let has_log = self.beside(Beside::Log)?.is_some_and(|log| log.len() > 0);
        // As `hasHotJournal` of SQLite's `pager.c`: the journal of a writer that holds RESERVED is not hot. That writer
        // has changed no page of the file yet, since this lock excludes it.
        let has_hot_journal = !is_reserved && self.has_journal()?;
        // In write-ahead mode a checkpoint writes to the file under a shared lock (`wal.c`), which this one does not
        // exclude: such a file is copied even without a log.
        let is_at_rest = locked == Locked::Held && !is_reserved && !has_hot_journal && !has_log && !header.is_wal();
        if is_at_rest {
            // Without the lock, header and length could be of two moments, and a file that grows would pass for
            // truncated.
            self.check_length(header)?;
            return self.in_place().map(Some);
        }
        let copied = self.copy(header, has_hot_journal, has_log);
        // As soon as the copy is made, also where it failed: the writer waits for it.
        locks::release_database(&self.file);
        copied
    }

    fn check_length(&self, header: Header) -> Result<(), SnapshotError> {
        let found = self.metadata()?.len();
        Ok(header.check_length(self.shown, found)?)
    }

    fn in_place(&self) -> Result<Snapshot, SnapshotError> {
        // The lock belongs to the open file description, which the clone shares.
        let file = self.file.try_clone().map_err(|source| unreadable(self.shown, source))?;
        // A name that is not UTF-8 is opened through the descriptor, whose name is.
        let path = match self.real.to_str() {
            Some(_) => self.real.clone(),
            None => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
        };
        let source = LockedFile { file, path: self.real.clone() };
        Ok(Snapshot { reading: Reading::InPlace, path, source: Some(source), _dir: None })
    }

    fn copy(&self, header: Header, has_journal: bool, has_log: bool) -> Result<Option<Snapshot>, SnapshotError> {
        let (index, is_log_held) = self.hold_log()?;
        // The stamps enclose the copies (optimistic check): equal ones on both sides show that no writer came between.
        let before = self.stamps()?;
        let bytes = before.main.bytes;
        let dir = PrivateDir::make().map_err(|source| self.not_copied(&std::env::temp_dir(), bytes, source))?;
        let path = dir.path().join("recording.db");
        // The database before its log: while the log is held no checkpoint changes the database and the log only grows,
        // so that the later copy of it completes the earlier one of the database.
        self.copy_file(&self.file, &path)?;
        let seen = [(Beside::Journal, has_journal), (Beside::Log, has_log)];
        for (beside, _) in seen.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            // Deleted since it was seen, where no lock kept a writer from it: what was seen holds no more.
            let Some(from) = self.open_beside(beside)? else { return Ok(None) };
            self.copy_file(&from, &with_ending(&path, beside))?;
        }
        // Before the index is closed, which releases the lock of the log.
        let after = self.stamps()?;
        drop(index);
        if !before.is_as(&after, is_log_held) {
            return Ok(None);
        }
        // A log may hold pages that the file does not have yet, and a journal restores the former length.
        if !has_log && !has_journal {
            let copied = std::fs::metadata(&path).map_err(|source| self.not_copied(dir.path(), bytes, source))?;
            header.check_length(self.shown, copied.len())?;
        }
        let reading = if has_journal { Reading::RolledBack } else { Reading::Copy };
        Ok(Some(Snapshot { reading, path, source: None, _dir: Some(dir) }))
    }

    /// Keeps the log from being checkpointed or begun again, where a program may do so.
    fn hold_log(&self) -> Result<(Option<File>, bool), SnapshotError> {
        // Without an index no program has the log open: SQLite makes it with the first connection in write-ahead mode,
        // apart from one with `locking_mode=EXCLUSIVE`, whose lock on the file shows it.
        let Some(index) = self.open_beside(Beside::LogIndex)? else { return Ok((None, false)) };
        match locks::hold_log(&index, self.drain).map_err(|source| unreadable(self.shown, source))? {
            Locked::Held => Ok((Some(index), true)),
            Locked::Unsupported => Ok((Some(index), false)),
            Locked::Busy => Err(self.busy()),
        }
    }

    fn busy(&self) -> SnapshotError {
        let path = self.shown.to_owned();
        if self.drain.is_cancelled() { SnapshotError::Interrupted { path } } else { SnapshotError::Busy { path } }
    }

    fn copy_file(&self, from: &File, to: &Path) -> Result<(), SnapshotError> {
        let bytes = from.metadata().map_or(0, |metadata| metadata.len());
        match copy_contents(from, to, self.drain) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SnapshotError::Interrupted { path: self.shown.to_owned() }),
            Err(source) => Err(self.not_copied(to.parent().unwrap_or(to), bytes, source)),
        }
    }

    fn not_copied(&self, dir: &Path, bytes: u64, source: io::Error) -> SnapshotError {
        SnapshotError::Copy { path: self.shown.to_owned(), dir: dir.to_owned(), bytes, source }
    }

    fn metadata(&self) -> Result<Metadata, SnapshotError> {
        self.file.metadata().map_err(|source| unreadable(self.shown, source))
    }

    fn path_beside(&self, beside: Beside) -> PathBuf {
        with_ending(&self.real, beside)
    }

    /// Whether there is a journal of which something can be rolled back.
    fn has_journal(&self) -> Result<bool, SnapshotError> {
        if self.beside(Beside::Journal)?.is_none_or(|journal| journal.len() == 0) {
            return Ok(false);
        }
        let Some(journal) = self.open_beside(Beside::Journal)? else { return Ok(false) };
        // `TRUNCATE` leaves an empty journal after a commit, `PERSIST` one whose header is zeros (PRAGMA journal_mode).
        let mut begin = [0; JOURNAL_MAGIC.len()];
        match journal.read_exact_at(&mut begin, 0) {
            Ok(()) => Ok(begin == JOURNAL_MAGIC),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(unreadable(&self.path_beside(Beside::Journal), source)),
        }
    }

    /// The metadata of a file beside the recording; `None` when there is none.
    fn beside(&self, beside: Beside) -> Result<Option<Metadata>, SnapshotError> {
        match std::fs::metadata(self.path_beside(beside)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(unreadable(&self.path_beside(beside), source)),
        }
    }

    /// Opens a file beside the recording; `None` when there is none.
    fn open_beside(&self, beside: Beside) -> Result<Option<File>, SnapshotError> {
        match open_regular(self.shown, &self.path_beside(beside)) {
            Err(SnapshotError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn stamps(&self) -> Result<Stamps, SnapshotError> {
        Ok(Stamps {
            main: Stamp::of(&self.metadata()?),
            log: self.beside(Beside::Log)?.as_ref().map(Stamp::of),
            has_index: self.beside(Beside::LogIndex)?.is_some(),
        })
    }
}

/// The state of the files at one moment.
struct Stamps {
    main: Stamp,
    log: Option<Stamp>,
    has_index: bool,
}

impl Stamps {
    /// Whether what was copied between these two is of one moment. A log that is held may grow: of a transaction that
    /// is added meanwhile, the copy has the commit frame and with it every frame before, or SQLite ignores its frames.
    fn is_as(&self, later: &Self, is_log_held: bool) -> bool {
        // An index that appears means that a writer has opened the database meanwhile, whose checkpoint no lock held
        // back.
        self.main == later.main && (is_log_held || (self.log == later.log && self.has_index == later.has_index))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    /// Set by the kernel alone, while a program can set `modified` back (utimensat(2)).
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Copies a file to a new one. False when the drain ended it.
fn copy_contents(mut from: &File, to: &Path, drain: &Drain) -> io::Result<bool> {
    let mut to = OpenOptions::new().write(true).create_new(true).open(to)?;
    // A second attempt reads the same descriptor from its beginning.
    from.seek(SeekFrom::Start(0))?;
    while !drain.is_cancelled() {
        // Nothing copied is the end of the file.
        if io::copy(&mut from.take(COPIED_AT_ONCE), &mut to)? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Unreadable { path: path.to_owned(), source }
}

fn with_ending(path: &Path, beside: Beside) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(beside.ending());
    name.into()
}

/// Opens a file to read it. Anything else than a regular file is refused before an open could wait for it.
fn open_regular(shown: &Path, real: &Path) -> Result<File, SnapshotError> {
    let metadata = std::fs::metadata(real).map_err(|source| unreadable(shown, source))?;
    form::check_type(shown, metadata.file_type())?;
    // `O_NONBLOCK`: a pipe that has taken the name would else wait for its writer (fifo(7)). It changes nothing for a
    // file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(real);
    let file = file.map_err(|source| unreadable(shown, source))?;
    // Checked again on the descriptor: another file may have taken the name since.
    let metadata = file.metadata().map_err(|source| unreadable(shown, source))?;
    form::check_type(shown, metadata.file_type())?;
    Ok(file)
}
