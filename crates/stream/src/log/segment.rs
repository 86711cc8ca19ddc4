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
/// Set in the key length of a record with headers. A reader that does not know them refuses the length.
const HEADERS: u32 = 1 << 30;
/// The key length of a record without a key but with headers, beside [`HEADERS`]; longer than any record.
const NO_KEY_BUT_HEADERS: u32 = HEADERS - 1;
/// The length in front of the headers, of a name or of a value.
const LENGTH_BYTES: usize = 4;
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

/// What a record holds beside its offset.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// The key; agents use the name of the node.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub payload: &'a [u8],
    /// Names and values, in their order.
    pub headers: &'a [(String, Bytes)],
}

/// Encodes one record into `out`, which is cleared first.
pub(super) fn encode(out: &mut Vec<u8>, offset: i64, record: Record<'_>) -> Result<(), LogError> {
    let Record { timestamp_ms, key, payload, headers } = record;
    let key_bytes = key.map_or(0, <[u8]>::len);
    let of_headers: usize = headers.iter().map(|(name, value)| 2 * LENGTH_BYTES + name.len() + value.len()).sum();
    let headers_bytes = if headers.is_empty() { 0 } else { LENGTH_BYTES + of_headers };
    let length = FIXED_BYTES + key_bytes + headers_bytes + payload.len();
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
    out.extend_from_slice(&coded_key(key, !headers.is_empty()).to_le_bytes());
    out.extend_from_slice(key.unwrap_or_default());
    // Records of agents have none, and stay as older versions read them.
    if !headers.is_empty() {
        out.extend_from_slice(&stored(of_headers).to_le_bytes());
        for part in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
            out.extend_from_slice(&stored(part.len()).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out[PREFIX_BYTES..]);
    out[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The key length, as it is stored.
fn coded_key(key: Option<&[u8]>, has_headers: bool) -> u32 {
    match (key, has_headers) {
        (None, false) => NO_KEY,
        (None, true) => HEADERS | NO_KEY_BUT_HEADERS,
        (Some(key), false) => stored(key.len()),
        (Some(key), true) => HEADERS | stored(key.len()),
    }
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
    let coded = u32::from_le_bytes(array(&checked, 16));
    let mut rest = checked.slice(FIXED_BYTES..);
    let has_headers = coded != NO_KEY && coded & HEADERS != 0;
    let key = match (coded, coded & !HEADERS) {
        (NO_KEY, _) => None,
        (_, NO_KEY_BUT_HEADERS) if has_headers => None,
        (_, length) => Some(take(&mut rest, length)?),
    };
    let headers = if has_headers { take_headers(&mut rest)? } else { Vec::new() };
    Ok((Message { at: at.clone(), offset, timestamp_ms, key, payload: rest, headers }, size))
}

/// The next bytes of a record. Fewer are there only by a writer's error: the checksum covers the lengths.
fn take(rest: &mut Bytes, length: u32) -> Result<Bytes, Damage> {
    let length = length as usize;
    if length > rest.len() { Err(Damage::Length) } else { Ok(rest.split_to(length)) }
}

fn take_part(rest: &mut Bytes) -> Result<Bytes, Damage> {
    let length = take(rest, stored(LENGTH_BYTES))?;
    take(rest, u32::from_le_bytes(array(&length, 0)))
}

fn take_headers(rest: &mut Bytes) -> Result<Vec<(String, Bytes)>, Damage> {
    let mut block = take_part(rest)?;
    let mut headers = Vec::new();
    while !block.is_empty() {
        let name = take_part(&mut block)?;
        // Written from a `String`.
        let name = String::from_utf8(name.to_vec()).map_err(|_| Damage::Length)?;
        headers.push((name, take_part(&mut block)?));
    }
    Ok(headers)
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
