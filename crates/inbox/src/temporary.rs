//! Files for objects that cannot be read as a stream. Removed when dropped; those of a process that was killed are
//! removed by the next one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::source::{Origin, Source, SourceError};

/// Followed by the process id and a hyphen.
const PREFIX: &str = "causeway-bulk-";

/// Why an object was not copied into a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemporaryError {
    #[error("it has {bytes} bytes, at most {limit} are allowed")]
    TooLarge { bytes: u64, limit: u64 },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("a file cannot be written in {}", dir.display())]
    Write {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A directory for such files.
#[derive(Debug, Clone)]
pub struct Temporary {
    dir: PathBuf,
    limit_bytes: u64,
}

impl Temporary {
    /// Files of at most `limit_bytes` in a directory; the system's when `None`.
    pub fn new(dir: Option<&Path>, limit_bytes: u64) -> Self {
        Self { dir: dir.map_or_else(std::env::temp_dir, Path::to_owned), limit_bytes }
    }

    /// Removes what processes left behind that were killed.
    pub fn remove_stale(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
            let Some(owner) = owner.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
            // A container gives every process the same id: a file of this one's id was there before it.
            if owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists() {
                // A file that stays takes room, and stops nothing.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Copies an object into a file.
    ///
    /// # Errors
    /// It is larger than the limit, cannot be read, or there is no room.
    pub(crate) async fn fetch(&self, origin: Origin) -> Result<NamedTempFile, TemporaryError> {
        let bytes = origin.object.size_bytes;
        if bytes > self.limit_bytes {
            return Err(TemporaryError::TooLarge { bytes, limit: self.limit_bytes });
        }
        // The recording may be readable by its owner alone: `tempfile` makes files of mode 0600.
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let made = tempfile::Builder::new().prefix(&prefix).tempfile_in(&self.dir);
        let mut file = made.map_err(|source| self.failed(source))?;
        let mut source = Source::new(origin);
        loop {
            let bytes = source.next().await?;
            if bytes.is_empty() {
                return Ok(file);
            }
            // No buffer lies between: what was written is in the file.
            tokio::task::block_in_place(|| file.write_all(&bytes)).map_err(|source| self.failed(source))?;
        }
    }

    fn failed(&self, source: io::Error) -> TemporaryError {
        TemporaryError::Write { dir: self.dir.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_processes_that_are_gone_are_removed_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            // Ids are below 2^22 (proc(5), `pid_max`).
            ("causeway-bulk-4294967295-a".to_owned(), false),
            (format!("causeway-bulk-{}-a", std::process::id()), false),
            ("causeway-bulk-1-a".to_owned(), true),
            ("causeway-bulk-x-a".to_owned(), true),
            ("else".to_owned(), true),
        ];
        for (name, _) in &names {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        Temporary::new(Some(dir.path()), 1).remove_stale();
        for (name, stays) in names {
            assert_eq!(dir.path().join(&name).exists(), stays, "{name}");
        }
    }
}
