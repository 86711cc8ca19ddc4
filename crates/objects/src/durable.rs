//! Makes files on a local file system survive a power cut. `object_store` writes a staging file and renames it, but
//! never calls `fsync`; a catalog that already points at a file whose bytes or whose name were still in memory would be
//! a broken table.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use service_kit::durable::{make_dir, sync_dir};

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
        let root = make_dir(path)?;
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
