//! The bytes of a segment: file names, record encoding, parsing, scanning. What damage means is decided by the callers.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};

use super::LogError;

/// Length of the segment header: magic, version, base offset.
pub(super) const HEADER_LENGTH: usize = 16;
/// The same, as a position: that of the first record.
pub(super) const HEADER_BYTES: u64 = HEADER_LENGTH as u64;
pub(super) const MAGIC: [u8; 8] = *b"CWLOG\0\0\x01";
/// Length and CRC32C, before the checked part.
pub(super) const PREFIX_BYTES: usize = 8;
/// Offset, timestamp and key length, at the start of the checked part.
const FIXED_BYTES: usize = 20;
const NO_KEY: u32 = u32::MAX;
/// A record longer than this is refused, and a greater length is damage: it bounds what a damaged length makes a reader
/// allocate.
pub(super) const MAX_RECORD_BYTES: usize = 64 << 20;

/// Bytes read at once: a few batches.
const CHUNK_BYTES: usize = 1 << 20;

/// What is wrong with the bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The segment header is not one.
    Header,
    /// The record ends behind the end of the readable bytes.
    Incomplete,
    /// The record's length is impossible.
    Length,
    /// The record's CRC32C does not match its bytes.
    Checksum,
    /// The record is whole but is not the next one.
    Offset { expected: i64, found: i64 },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the segment header is not one"),
            Self::Incomplete => f.write_str("synced bytes are missing"),
            Self::Length => f.write_str("a record has an impossible length"),
            Self::Checksum => f.write_str("a record fails its checksum"),
            Self::Offset { expected, found } => write!(f, "offset {expected} expected, {found} found"),
        }
    }
}

pub(super) fn path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Base offsets of the segments in a directory, ascending. Other files are left out.
pub(super) fn list(dir: &Path) -> Result<Vec<i64>, LogError> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LogError::io("list", dir))? {
        let name = entry.map_err(LogError::io("list", dir))?.file_name();
        // Twenty digits hold every `u64`, so that names sort as their numbers do.
        let base = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|stem| stem.len() == 20);
        bases.extend(base.and_then(|stem| stem.parse::<i64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

pub(super) fn header(base: i64) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&base.to_le_bytes());
    bytes
}

/// Encodes one record into `out`, which is cleared first.
pub(super) fn encode(
    out: &mut Vec<u8>,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&[u8]>,
    payload: &[u8],
) -> Result<(), LogError> {
    let key_bytes = key.map_or(0, <[u8]>::len);
    let length = FIXED_BYTES + key_bytes + payload.len();
    if length > MAX_RECORD_BYTES {
        return Err(LogError::TooLarge { bytes: length, limit: MAX_RECORD_BYTES });
    }
    out.clear();
    out.reserve(PREFIX_BYTES + length);
    out.extend_from_slice(&stored(length).to_le_bytes());
    // Room for the checksum, which covers what follows it.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&timestamp_ms.to_le_bytes());
    out.extend_from_slice(&key.map_or(NO_KEY, |key| stored(key.len())).to_le_bytes());
    out.extend_from_slice(key.unwrap_or_default());
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out[PREFIX_BYTES..]);
    out[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// A length within a record, as it is stored.
fn stored(length: usize) -> u32 {
    // At most [`MAX_RECORD_BYTES`]: the fallback is not taken.
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Size on disk of the record that starts with these bytes, or `None` if they are fewer than a prefix.
pub(super) fn record_size(bytes: &[u8]) -> Result<Option<usize>, Damage> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    // Also zero: a file that was extended by a crash without its data reads as zeros.
    if !(FIXED_BYTES..=MAX_RECORD_BYTES).contains(&length) {
        return Err(Damage::Length);
    }
    Ok(Some(PREFIX_BYTES + length))
}

/// Parses the record at the start of `bytes`, which must be the one with the offset `expected`. The message shares the
/// memory of `bytes`.
pub(super) fn parse(bytes: &Bytes, at: &TopicPartition, expected: i64) -> Result<(Message, usize), Damage> {
    let size = record_size(bytes)?.filter(|size| *size <= bytes.len()).ok_or(Damage::Incomplete)?;
    let checked = bytes.slice(PREFIX_BYTES..size);
    // Before any field is interpreted. The length is not covered; a wrong one fails the comparison.
    if crc32c::crc32c(&checked).to_le_bytes() != bytes[4..PREFIX_BYTES] {
        return Err(Damage::Checksum);
    }
    let offset = i64::from_le_bytes(array(&checked, 0));
    // The checksum holds, but the record belongs elsewhere: a block of another file, or of an earlier state of this
    // one.
    if offset != expected {
        return Err(Damage::Offset { expected, found: offset });
    }
    let timestamp_ms = i64::from_le_bytes(array(&checked, 8));
    let key_bytes = u32::from_le_bytes(array(&checked, 16));
    let (key, payload_at) = match key_bytes {
        NO_KEY => (None, FIXED_BYTES),
        bytes => {
            let end = FIXED_BYTES + bytes as usize;
            // A writer's error: the checksum covers the length of the key.
            if end > checked.len() {
                return Err(Damage::Length);
            }
            (Some(checked.slice(FIXED_BYTES..end)), end)
        }
    };
    let payload = checked.slice(payload_at..);
    Ok((Message { at: at.clone(), offset, timestamp_ms, key, payload, headers: Vec::new() }, size))
}

/// `N` bytes from a position the caller has checked.
fn array<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[from..from + N]);
    out
}

/// Reads from a record's start up to `end`: one chunk, or the whole record if that is longer. `Damage` if the record
/// does not fit before `end`.
pub(super) fn read_chunk(file: &File, position: u64, end: u64, path: &Path) -> Result<Result<Bytes, Damage>, LogError> {
    let available = end.saturating_sub(position);
    let mut bytes = vec![0; usize::try_from(available).unwrap_or(usize::MAX).min(CHUNK_BYTES)];
    match file.read_exact_at(&mut bytes, position) {
        Ok(()) => {}
        // The file is shorter than the watermark: synced bytes are missing.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Err(Damage::Incomplete)),
        Err(error) => return Err(LogError::io("read", path)(error)),
    }
    let size = match record_size(&bytes) {
        Ok(size) => size.filter(|size| *size as u64 <= available),
        Err(damage) => return Ok(Err(damage)),
    };
    let Some(size) = size else { return Ok(Err(Damage::Incomplete)) };
    if size > bytes.len() {
        let read = bytes.len();
        bytes.resize(size, 0);
        let rest = file.read_exact_at(&mut bytes[read..], position + read as u64);
        rest.map_err(LogError::io("read", path))?;
    }
    Ok(Ok(Bytes::from(bytes)))
}

/// Where a scan stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanned {
    /// Behind the last whole record.
    pub position: u64,
    /// Offset of the record that would follow there.
    pub next: i64,
    /// What ended the scan before the end of the file.
    pub damage: Option<Damage>,
}

/// Walks over whole, checked records from a byte position whose record is `next`.
pub(super) fn scan(file: &File, path: &Path, at: &TopicPartition, from: (u64, i64)) -> Result<Scanned, LogError> {
    let (mut position, mut next) = from;
    let end = file.metadata().map_err(LogError::io("inspect", path))?.len();
    while position < end {
        let mut chunk = match read_chunk(file, position, end, path)? {
            Ok(chunk) => chunk,
            Err(damage) => return Ok(Scanned { position, next, damage: Some(damage) }),
        };
        loop {
            match parse(&chunk, at, next) {
                Ok((_, size)) => {
                    position += size as u64;
                    next += 1;
                    chunk = chunk.slice(size..);
                }
                // The record goes on behind this chunk: it is read again as the first of the next one.
                Err(Damage::Incomplete) => break,
                Err(damage) => return Ok(Scanned { position, next, damage: Some(damage) }),
            }
        }
    }
    Ok(Scanned { position, next, damage: None })
}
