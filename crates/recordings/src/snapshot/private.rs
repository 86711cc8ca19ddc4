//! The private directories of copies. A process that is killed leaves its directory behind, with a whole database in
//! it. The next import removes the directories that no process holds.

use std::fs::{self, DirEntry, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::libc;
use tempfile::TempDir;

const PREFIX: &str = "causeway-import-";
/// A directory that changed within this time may have been made just now, by a process that has yet to take its lock.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// A directory for one copy, removed when dropped. Its lock is held while its process lives.
#[derive(Debug)]
pub(super) struct PrivateDir {
    _lock: File,
    dir: TempDir,
}

impl PrivateDir {
    pub(super) fn make() -> io::Result<Self> {
        // The recording may be readable by its owner alone, and by default the umask decides about a directory.
        let owner_only = Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix(PREFIX).permissions(owner_only).tempdir()?;
        // flock(2) on the directory itself: the kernel releases it when the process ends, so that a free lock means an
        // abandoned copy.
        let lock = open_dir(dir.path())?;
        match lock.try_lock() {
            // Where the file system has no locks, `remove_stale` gets none either, and removes nothing.
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => Ok(Self { _lock: lock, dir }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes directories whose process was killed. One that cannot be removed, as that of another user, stays.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    // The directory is shared with other users and programs: names are tested first, then age, then the lock.
    for entry in entries.flatten().filter(is_settled) {
        if let Ok(dir) = open_dir(&entry.path())
            // Held until the end of the block: a second import that removes as well passes over it.
            && dir.try_lock().is_ok()
        {
            // A copy that stays takes room, but stops no import.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_settled(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
        && entry.file_type().is_ok_and(|kind| kind.is_dir())
        && age(entry).is_some_and(|age| age > SETTLED_AFTER)
}

/// How long ago a directory changed.
fn age(entry: &DirEntry) -> Option<Duration> {
    entry.metadata().ok()?.modified().ok()?.elapsed().ok()
}

/// Opens a directory, and nothing that a name of one leads to.
fn open_dir(path: &Path) -> io::Result<File> {
    // Everyone may write to `/tmp`: a link of this name could lead the removal to another directory.
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}
