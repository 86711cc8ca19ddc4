//! Makes files on a local file system survive a power cut. `object_store` writes a staging file and renames it, but
//! never calls `fsync`; a catalog that already points at a file whose bytes or whose name were still in memory would be
//! a broken table.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A directory tree whose new files and new directories are flushed to disk on request.
#[derive(Debug)]
pub(crate) struct DurableDir {
    root: PathBuf,
    /// Directories whose own names are known to be on disk.
    known: Mutex<HashSet<PathBuf>>,
}

impl DurableDir {
    /// Makes the directory, and those above it, when they are absent and records its canonical path.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let root = make(path, sync_dir)?;
        Ok(Self { known: Mutex::new(HashSet::from([root.clone()])), root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Flushes a file, the directory that names it, and every directory above it that was not flushed before.
    pub(crate) fn sync(&self, relative: &str) -> io::Result<()> {
        let file = self.root.join(relative);
        // The content first: otherwise a crash could leave a durable name on an empty file. A new descriptor will do,
        // because fsync(2) flushes the file and not what one descriptor wrote.
        File::open(&file)?.sync_all()?;
        let mut dir = file.parent();
        let mut flushed = Vec::new();
        while let Some(path) = dir {
            // The directory of the file has a new entry each time; those above it matter only until their names are on
            // disk.
            sync_dir(path)?;
            if self.is_known(path) {
                break;
            }
            flushed.push(path.to_owned());
            dir = path.parent();
        }
        // Recorded only when all have succeeded: after an error the next file flushes them again.
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(flushed);
        Ok(())
    }

    fn is_known(&self, path: &Path) -> bool {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(path)
    }
}

/// Makes a directory and those above it, and flushes them with `sync`. Returns the canonical path.
fn make(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let absent = path.ancestors().take_while(|level| !level.is_dir()).count();
    std::fs::create_dir_all(path)?;
    let root = path.canonicalize()?;
    // The name of a directory is an entry of its parent: syncing the directory does not make it durable (fsync(2)).
    for (height, level) in root.ancestors().enumerate() {
        match sync(level) {
            // A level that was there may have been made a moment ago, by another part of the program for example. Most
            // were not, and some cannot be synced: those of other users that may not be opened, or an automounter's.
            Err(error) if height > absent.max(1) => tracing::debug!(directory = %level.display(), %error, "not synced"),
            synced => synced?,
        }
    }
    Ok(root)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_all_new_levels_are_flushed_and_those_above_them_where_they_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().canonicalize().unwrap();
        let path = there.join("a/b/c");
        let mut synced = Vec::new();
        let root = make(&path, |level| {
            synced.push(level.to_owned());
            if level.starts_with(&there) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
        });
        assert_eq!(root.unwrap(), path);
        assert_eq!(synced, path.ancestors().collect::<Vec<_>>());
    }

    #[test]
    fn a_new_level_and_what_names_it_must_be_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().canonicalize().unwrap();
        // The last directory is there already: what names it must be flushed all the same.
        for (path, refused) in [("a/b/c", "a/b/c"), ("d/e/f", "d"), ("g/h/i", ""), ("g/h/i", "g/h")] {
            let refused = there.join(refused);
            let denied = io::ErrorKind::PermissionDenied;
            let made = make(&there.join(path), |level| (level != refused).then_some(()).ok_or(denied.into()));
            assert_eq!(made.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path} {refused:?}");
        }
    }
}
