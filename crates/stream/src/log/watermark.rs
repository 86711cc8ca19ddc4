//! The high watermark file: how far a log is synced. It is written after the sync, so that it never covers more than is
//! durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::LogError;
use super::segment::HEADER_BYTES;

const FILE: &str = "high-watermark";
const BYTES: usize = 28;

/// Everything before `position` in the segment `base`, and every segment before it, is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HighWatermark {
    /// The segment that is written, by the offset of its first record.
    pub base: i64,
    /// Byte position in that segment behind the last synced record.
    pub position: u64,
    /// Offset of the record that will be written there.
    pub next: i64,
}

impl HighWatermark {
    /// The watermark of a segment that holds no synced record.
    pub(super) fn at_start_of(base: i64) -> Self {
        Self { base, position: HEADER_BYTES, next: base }
    }

    fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.base.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.next.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let mark = Self {
            base: i64::from_le_bytes(field(bytes, 0)),
            position: u64::from_le_bytes(field(bytes, 8)),
            next: i64::from_le_bytes(field(bytes, 16)),
        };
        // A reader in another process may see half of a write: the checksum distinguishes it from a whole one.
        (mark.encode() == *bytes).then_some(mark)
    }
}

fn field(bytes: &[u8; BYTES], from: usize) -> [u8; 8] {
    bytes[from..].first_chunk::<8>().copied().unwrap_or_default()
}

/// The open watermark file of a partition.
#[derive(Debug)]
pub(super) struct WatermarkFile(File);

impl WatermarkFile {
    /// Opens it for writing, making it when it is missing.
    pub(super) fn create(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        file.map(Self).map_err(LogError::io("open", &path))
    }

    /// Opens it for reading; `None` when no writer has made it yet.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(FILE);
        match File::open(&path) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("open", &path)(error)),
        }
    }

    /// The watermark, or `None` when the file is empty, torn, or being written at this moment: the caller keeps what it
    /// knew.
    pub(super) fn read(&self, dir: &Path) -> Result<Option<HighWatermark>, LogError> {
        let mut bytes = [0; BYTES];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(HighWatermark::decode(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(LogError::io("read", &dir.join(FILE))(error)),
        }
    }

    pub(super) fn write(&self, dir: &Path, mark: HighWatermark) -> Result<(), LogError> {
        // In place and not synced: the scan of the next opening corrects a watermark that a power failure has set back.
        // A file that is replaced would need room on a full disk.
        self.0.write_all_at(&mark.encode(), 0).map_err(LogError::io("write", &dir.join(FILE)))
    }
}
