//! The small files beside the segments: the identity of the partition, and what its reader has landed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use event_schema::position::NextOffset;

use super::LogError;
use crate::source::LogIdentity;

const IDENTITY: &str = "identity";
const LANDED: &str = "landed";
const LANDED_BYTES: usize = 12;

/// Writes the partition's random id, once in its life.
pub(super) fn ensure_identity(dir: &Path) -> Result<(), LogError> {
    if has_identity(dir) {
        return Ok(());
    }
    // A new random UUID with each reading (random(4)): no crate is needed.
    let random = Path::new("/proc/sys/kernel/random/uuid");
    let id = fs::read_to_string(random).map_err(LogError::io("read", random))?;
    replace(&dir.join(IDENTITY), id.trim())
}

/// Whether the partition's directory has been made as a whole.
pub(super) fn has_identity(dir: &Path) -> bool {
    dir.join(IDENTITY).exists()
}

pub(super) fn read_identity(dir: &Path) -> Result<LogIdentity, LogError> {
    let path = dir.join(IDENTITY);
    let id = fs::read_to_string(&path).map_err(LogError::io("read", &path))?;
    Ok(LogIdentity(id.trim().to_owned()))
}

/// Makes the file that [`write_landed`] overwrites: its room should be there before the disk is full. A log can be used
/// without.
pub(super) fn ensure_landed(dir: &Path) {
    let path = dir.join(LANDED);
    if !path.exists() {
        let _ = fs::write(&path, [0; LANDED_BYTES]);
    }
}

/// The next offset a reader has reported. `None` when the file is missing, damaged or being written: the writer then
/// deletes nothing, and a reader begins at the oldest record.
pub(super) fn read_landed(dir: &Path) -> Result<Option<NextOffset>, LogError> {
    let path = dir.join(LANDED);
    match fs::read(&path) {
        Ok(bytes) => Ok(decode_landed(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io("read", &path)(error)),
    }
}

/// Overwrites in place, which needs no room: the disk may be full of what this allows to be deleted. Not synced: after
/// a power failure an older report, or none, costs a repetition.
pub(super) fn write_landed(dir: &Path, next: NextOffset) -> Result<(), LogError> {
    let path = dir.join(LANDED);
    // Not truncated: between truncation and write a crash would leave an empty file, and a full disk no room.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let written = file.and_then(|file| file.write_all_at(&encode_landed(next), 0));
    written.map_err(LogError::io("write", &path))
}

fn encode_landed(next: NextOffset) -> [u8; LANDED_BYTES] {
    let mut bytes = [0; LANDED_BYTES];
    bytes[..8].copy_from_slice(&next.0.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_landed(bytes: &[u8]) -> Option<NextOffset> {
    let next = NextOffset(i64::from_le_bytes(*bytes.first_chunk()?));
    // The checksum shows a write that is under way in another process, or that a crash has torn.
    (bytes.first_chunk() == Some(&encode_landed(next))).then_some(next)
}

/// Puts a file in place as a whole: a reader sees the old content or the new.
fn replace(path: &Path, content: &str) -> Result<(), LogError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(LogError::io("write", &temporary))?;
    file.write_all(content.as_bytes()).map_err(LogError::io("write", &temporary))?;
    file.sync_data().map_err(LogError::io("sync", &temporary))?;
    // rename(2) replaces atomically. The content is synced first, or a power failure could leave an empty file under
    // the name.
    fs::rename(&temporary, path).map_err(LogError::io("replace", path))
}
