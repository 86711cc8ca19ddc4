//! The small files beside the segments: the partition's identity, and what its reader has landed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use event_schema::position::NextOffset;

use super::LogError;
use crate::source::LogIdentity;

const IDENTITY: &str = "identity";
const LANDED: &str = "landed";

/// Writes the partition's random id, once in its life.
pub(super) fn ensure_identity(dir: &Path) -> Result<(), LogError> {
    let path = dir.join(IDENTITY);
    if path.exists() {
        return Ok(());
    }
    let random = Path::new("/proc/sys/kernel/random/uuid");
    let id = fs::read_to_string(random).map_err(LogError::io("read", random))?;
    replace(&path, id.trim())
}

pub(super) fn read_identity(dir: &Path) -> Result<LogIdentity, LogError> {
    let path = dir.join(IDENTITY);
    let id = fs::read_to_string(&path).map_err(LogError::io("read", &path))?;
    Ok(LogIdentity(id.trim().to_owned()))
}

/// The next offset a reader has reported. A file that is missing or not a number says nothing: it is a hint to delete by.
pub(super) fn read_landed(dir: &Path) -> Result<Option<NextOffset>, LogError> {
    let path = dir.join(LANDED);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok().map(NextOffset)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("read", &path)(error)),
    }
}

pub(super) fn write_landed(dir: &Path, next: NextOffset) -> Result<(), LogError> {
    replace(&dir.join(LANDED), &next.to_string())
}

/// Puts a file in place as a whole: a reader sees the old content or the new.
fn replace(path: &Path, content: &str) -> Result<(), LogError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(LogError::io("write", &temporary))?;
    file.write_all(content.as_bytes()).map_err(LogError::io("write", &temporary))?;
    file.sync_data().map_err(LogError::io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(LogError::io("replace", path))
}
