//! The spool log: partitions and offsets as in Kafka, in a directory of one machine.
//!
//! # Constraints
//! One writer and any number of readers per partition, in different processes, of which any may be killed at any
//! instruction, as may the machine. A reader must never see a record that a crash can take away (its offset may already
//! be in a table), and nothing that was synced may be lost silently.
//!
//! # Layout
//! `ROOT/<topic>/<partition>/`
//!
//! | file | content |
//! |---|---|
//! | `%020d.log` | a segment, named by the offset of its first record |
//! | `high-watermark` | how far the log is synced: segment, byte position, next offset, CRC32C (28 bytes) |
//! | `identity` | a random id made with the partition |
//! | `landed` | the next offset a reader has reported as landed, CRC32C (12 bytes); made with the partition |
//! | `lock` | held (flock) by the writer |
//!
//! A segment is a 16-byte header (`CWLOG`, two zero bytes, version 1, base offset) and records. All integers are
//! little-endian:
//!
//! ```text
//! length u32 | crc32c u32 | offset i64 | timestamp_ms i64 | key length u32 | key | headers | payload
//!            '- of all that follows       (length counts from here) 0xffffffff: neither key nor headers
//! headers (only where bit 30 of the key length is set; its lower bits are all ones without a key)
//! length u32 of what follows | name length u32 | name | value length u32 | value | …
//! ```
//!
//! Only what is written into the log again has headers (`causeway dlq replay`).
//!
//! # Operations
//! *Append* writes one whole record and does not move the high watermark. *Sync* makes the segment durable and then
//! writes the high watermark in place, so that it never covers more than is durable; it may cover less after a power
//! failure. A full segment is synced before the next is made: every segment but the newest is whole. *Read* returns
//! records below the high watermark only, each checked. *Delete* removes whole segments, oldest first, never the
//! newest.
//!
//! # Recovery
//! Opening a writer scans the newest segment from its start. Whole records are kept, also those above the high
//! watermark; these are written over themselves before they are synced, since a sync of them may have failed and the
//! kernel then marks its pages as clean. The first record that is incomplete or fails its CRC ends the log there if it
//! lies at or above the high watermark: it was never synced and never read. Below the high watermark, synced bytes are
//! damaged or missing, and that is [`LogError::Corrupt`].
//!
//! A reader that passes damage goes on behind one record that fails its checksum if the next is whole, else at the next
//! segment.
//!
//! # Not handled
//! Compression (payloads come compressed); two machines sharing one directory (flock on network file
//! systems); readers do not see records above the high watermark until a writer has opened the partition again.

mod carried;
mod reader;
mod segment;
mod sidecar;
mod source;
mod watermark;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use event_schema::position::{NextOffset, TopicPartition};

pub use carried::{CarriedError, CarriedRecord, CarriedSegment, is_segment};
pub use reader::{LogReader, state};
pub use segment::{Damage, Record};
pub use source::LogSource;
pub use writer::{Appended, FullBy, LogWriter, Recovery, claim_partition, recover_partitions};

/// How a log writer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment that has reached this size is closed and the next begun.
    pub segment_bytes: u64,
    /// The log does not grow beyond this size: see [`Appended::Full`].
    pub max_bytes: u64,
    /// When appends are synced to the disk.
    pub fsync: Fsync,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, max_bytes: 4 << 30, fsync: Fsync::Interval(Duration::from_millis(100)) }
    }
}

/// When an append is made durable, and with that visible to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// With every append.
    Always,
    /// With the first append after this time; the owner calls [`LogWriter::sync`] when it goes quiet.
    Interval(Duration),
    /// Only by [`LogWriter::sync`].
    Manual,
}

/// Why the spool log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is held by another writer: stop it, or give this one another partition", path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} is damaged at byte {position}: {damage}; restore the file, or move the partition's directory away to begin a \
         new log",
        path.display()
    )]
    Corrupt { path: PathBuf, position: u64, damage: Damage },
    #[error(
        "segment {} is missing though its records were synced; restore it, or move the partition's directory away to begin \
         a new log",
        path.display()
    )]
    MissingSegment { path: PathBuf },
    #[error("a record of {bytes} bytes is over the limit of {limit}: cut smaller batches")]
    TooLarge { bytes: usize, limit: usize },
    #[error("offset {next} of {partition} is below the low watermark {low}: its segment was deleted")]
    BelowLowWatermark { partition: TopicPartition, next: NextOffset, low: NextOffset },
    #[error(
        "offset {next} of {partition} is above the end of the log ({high}): the directory was truncated or made anew"
    )]
    AboveEnd { partition: TopicPartition, next: NextOffset, high: NextOffset },
    #[error("an earlier sync of {} failed, so that what it holds is not known: open the log again", path.display())]
    Poisoned { path: PathBuf },
}

impl LogError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The directory of one partition.
fn partition_dir(root: &Path, at: &TopicPartition) -> PathBuf {
    root.join(&*at.topic).join(at.partition.to_string())
}

#[cfg(test)]
mod tests;
