//! Checksums of the objects the lake writes. An object's name holds the checksum that its content is checked with, so
//! that whatever names the object (a manifest, a manifest list, the catalog) also determines its content:
//!
//! - The UUID in the name of an object of ours has version 8, and a CRC32C in its last four bytes.
//! - Of a manifest, a manifest list, a metadata file and a statistics file it is the CRC32C of the whole object.
//! - Of a data file it is the CRC32C of a table of checksums inside of the file: one of each [`BLOCK_BYTES`] in front
//!   of the table, and one of the footer behind it. A reader of a few columns checks the blocks it reads and no others.
//!
//! The table lies between the page indexes and the footer, where no offset of the Parquet format points to: other
//! programs ignore it. Names of other programs carry UUIDs of other versions or none; such objects have no checksum
//! here.

pub(crate) mod sealer;

use std::ops::Range;

use bytes::Bytes;
use uuid::Uuid;

/// Bytes that one checksum of a data file covers. A read is widened to whole blocks.
pub(crate) const BLOCK_BYTES: u32 = 16 << 10;

/// Ends the table of checksums.
const MAGIC: [u8; 8] = *b"CWCRC32C";
/// What stands behind the checksums of the blocks: checksum of the footer, bytes of a block, number of blocks, magic.
const TABLE_END_BYTES: u64 = 4 + 4 + 4 + 8;
/// What every Parquet file ends with: length of the footer, magic.
const FILE_END_BYTES: u64 = 8;
const PARQUET_MAGIC: [u8; 4] = *b"PAR1";
const UUID_CHARS: usize = 36;

/// How the content of an object is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The object as a whole has this checksum.
    Whole(u32),
    /// The object is a data file whose table of checksums has this checksum.
    Blocks(u32),
}

impl Guard {
    /// The check that the name of an object asks for; `None` when another program wrote it, or an older version of this
    /// one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let [.., a, b, c, d] = *id_in(path)?.as_bytes();
        let checksum = u32::from_be_bytes([a, b, c, d]);
        Some(if path.ends_with(".parquet") { Self::Blocks(checksum) } else { Self::Whole(checksum) })
    }
}

/// The id in the name of an object of the lake's own.
fn id_in(path: &str) -> Option<Uuid> {
    let name = path.rsplit('/').next()?;
    // The longer suffix first: `.avro` would leave `-m` behind the UUID, and `.metadata.json` the `.gz`.
    let suffixes = [".parquet", "-m.avro", ".avro", ".gz.metadata.json", ".metadata.json", ".stats"];
    let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix))?;
    let id = stem.get(stem.len().checked_sub(UUID_CHARS)?..)?;
    // Version 8 is left to applications (RFC 9562, section 5.8): names of other programs carry other versions.
    Uuid::try_parse(id).ok().filter(|id| id.get_version_num() == 8)
}

/// When an object of the lake's own was named, which is about when it was written, as Unix time in milliseconds; `None`
/// where the name is another program's.
pub fn named_unix_ms(path: &str) -> Option<i64> {
    // The first 48 bits of a UUID of version 7, which `stamp` leaves as they are (RFC 9562, section 5.7).
    let [a, b, c, d, e, f, ..] = *id_in(path)?.as_bytes();
    Some(i64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

/// The id with a checksum in it. What remains of a UUID of version 7 is its time and 42 bits of counter and random
/// data.
pub(crate) fn stamp(id: Uuid, checksum: u32) -> Uuid {
    let mut bytes = *id.as_bytes();
    // The version is the high half of byte 6 (RFC 9562, section 4.2). The variant, in byte 8, stays.
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[12..].copy_from_slice(&checksum.to_be_bytes());
    Uuid::from_bytes(bytes)
}

/// Why an object is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Damage {
    problem: String,
}

impl Damage {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into() }
    }

    /// The damage behind an error of the object store, however deep it lies.
    pub fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(damage) = error.downcast_ref() {
                return Some(damage);
            }
            cause = error.source();
        }
        None
    }
}

/// Checks an object that has one checksum.
///
/// # Errors
/// The content has another checksum.
pub(crate) fn check_whole(bytes: &[u8], expected: u32) -> Result<(), Damage> {
    let found = crc32c::crc32c(bytes);
    if found == expected {
        return Ok(());
    }
    let length = bytes.len();
    Err(Damage::new(format!("the checksum of its {length} bytes is {found:08x} instead of {expected:08x}")))
}

/// Puts the table of checksums into a finished Parquet file.
///
/// # Errors
/// The bytes do not end as a Parquet file does.
pub(crate) fn seal(mut file: Vec<u8>) -> Result<(Bytes, u32), Damage> {
    let size = file.len() as u64;
    let start = footer_start(&file, size)?;
    // `start` is at most the length of the vector, so that neither fallback is taken.
    let footer = file.split_off(usize::try_from(start).unwrap_or(usize::MAX).min(file.len()));
    let mut sums = BlockSums::default();
    sums.push(&file);
    let table = sums.table(&footer)?;
    let checksum = crc32c::crc32c(&table);
    // In front of the footer: all offsets in the footer point to what lies before the table and stay valid.
    file.extend_from_slice(&table);
    file.extend_from_slice(&footer);
    Ok((file.into(), checksum))
}

/// Checksums of the blocks of a file, from its bytes in their order.
#[derive(Debug, Clone, Default)]
struct BlockSums {
    /// Of the blocks that are full, four bytes each.
    full: Vec<u8>,
    /// Of the block that is not full yet.
    last: u32,
    /// Bytes of the block that is not full yet.
    filled: usize,
}

impl BlockSums {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES as usize - self.filled));
            self.last = crc32c::crc32c_append(self.last, part);
            self.filled += part.len();
            if self.filled == BLOCK_BYTES as usize {
                self.full.extend_from_slice(&self.last.to_le_bytes());
                self.last = 0;
                self.filled = 0;
            }
            bytes = rest;
        }
    }

    /// The table of checksums.
    ///
    /// # Errors
    /// The blocks cannot be counted in 32 bits.
    fn table(&self, footer: &[u8]) -> Result<Vec<u8>, Damage> {
        let mut table = self.full.clone();
        if self.filled > 0 {
            table.extend_from_slice(&self.last.to_le_bytes());
        }
        // Little-endian like the numbers of Parquet itself.
        let blocks = u32::try_from(table.len() / 4).map_err(|_| Damage::new("it has too many blocks"))?;
        table.extend_from_slice(&crc32c::crc32c(footer).to_le_bytes());
        table.extend_from_slice(&BLOCK_BYTES.to_le_bytes());
        table.extend_from_slice(&blocks.to_le_bytes());
        table.extend_from_slice(&MAGIC);
        Ok(table)
    }
}

/// Where the footer begins, from the last bytes of a file of `size` bytes.
fn footer_start(tail: &[u8], size: u64) -> Result<u64, Damage> {
    let end = tail.last_chunk::<8>().ok_or_else(|| Damage::new(format!("it has {size} bytes")))?;
    let [length @ .., _, _, _, _] = end;
    if end[4..] != PARQUET_MAGIC {
        return Err(Damage::new("it does not end as a Parquet file does"));
    }
    let length = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    // A damaged length may exceed the file.
    let start = size.checked_sub(FILE_END_BYTES + length);
    start.ok_or_else(|| Damage::new(format!("its footer would have {length} of its {size} bytes")))
}

/// The checksums of one data file, themselves checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksums {
    blocks: Vec<u32>,
    block_bytes: u64,
    /// Checksum of the table of checksums.
    table: u32,
    footer: u32,
    table_start: u64,
    footer_start: u64,
    size: u64,
}

/// What the last bytes of a data file hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Checksums(Checksums),
    /// Footer and table need so many bytes of the file's end.
    Longer(u64),
}

impl Checksums {
    /// Reads the checksums out of the last bytes of a file of `size` bytes. `expected` is the checksum of the table.
    ///
    /// # Errors
    /// The footer or the table is damaged.
    pub(crate) fn read(tail: &[u8], size: u64, expected: u32) -> Result<Tail, Damage> {
        let tail_start = size.checked_sub(tail.len() as u64).ok_or_else(missing)?;
        let footer_start = footer_start(tail, size)?;
        let end_start = footer_start.checked_sub(TABLE_END_BYTES).ok_or_else(missing)?;
        let Some(end) = part(tail, tail_start, end_start..footer_start) else {
            return Ok(Tail::Longer(size - end_start));
        };
        // The end of the table is not verified yet: until then it only says where the table begins.
        if end[12..] != MAGIC {
            return Err(missing());
        }
        let footer = number(end, 0);
        let block_bytes = u64::from(number(end, 4));
        let count = u64::from(number(end, 8));
        let table_start = end_start.checked_sub(count * 4).ok_or_else(missing)?;
        // One checksum for each block in front of the table: with any other number these bytes are no table.
        if block_bytes == 0 || table_start.div_ceil(block_bytes) != count {
            return Err(missing());
        }
        let Some(table) = part(tail, tail_start, table_start..footer_start) else {
            return Ok(Tail::Longer(size - table_start));
        };
        // The chain of trust: the name verifies the table, and the table verifies the footer and the blocks.
        let found = crc32c::crc32c(table);
        if found != expected {
            return Err(Damage::new("the checksums in front of its footer are damaged"));
        }
        let behind = part(tail, tail_start, footer_start..size).ok_or_else(missing)?;
        if crc32c::crc32c(behind) != footer {
            return Err(Damage::new("its footer does not match its checksum"));
        }
        // `count` excludes the end of the table, which follows the checksums of the blocks.
        let blocks = table.chunks_exact(4).take(usize::try_from(count).unwrap_or(0));
        let blocks = blocks.map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        Ok(Tail::Checksums(Self { blocks, block_bytes, table: expected, footer, table_start, footer_start, size }))
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the footer lies, with its length and magic.
    pub(crate) fn footer(&self) -> Range<u64> {
        self.footer_start..self.size
    }

    /// Bytes these checksums take in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.blocks.len() * 4 + size_of::<Self>()
    }

    /// The smallest range of whole units that has all of `wanted`.
    pub(crate) fn widen(&self, wanted: &Range<u64>) -> Range<u64> {
        // Three kinds of units: the blocks in front of the table, the table, and the footer.
        let start = match wanted.start {
            at if at >= self.footer_start => self.footer_start,
            at if at >= self.table_start => self.table_start,
            at => at - at % self.block_bytes,
        };
        let end = match wanted.end {
            at if at > self.footer_start => self.size,
            at if at > self.table_start => self.footer_start,
            at => at.next_multiple_of(self.block_bytes).min(self.table_start),
        };
        start..end.max(start)
    }

    /// Checks bytes that begin at `start` and are whole units. Returns where the first damaged unit lies.
    pub(crate) fn first_damaged(&self, start: u64, bytes: &[u8]) -> Option<Range<u64>> {
        let end = start + bytes.len() as u64;
        let mut at = start;
        while at < end {
            // Does not end early: `read` compares the number of checksums with the number of blocks.
            let (until, expected) = self.unit(at)?;
            let unit = part(bytes, start, at..until);
            if unit.map(crc32c::crc32c) != Some(expected) {
                return Some(at..until);
            }
            at = until;
        }
        None
    }

    /// End and checksum of the unit that begins at `start`.
    fn unit(&self, start: u64) -> Option<(u64, u32)> {
        if start >= self.footer_start {
            return Some((self.size, self.footer));
        }
        if start >= self.table_start {
            return Some((self.footer_start, self.table));
        }
        let block = self.blocks.get(usize::try_from(start / self.block_bytes).ok()?)?;
        Some(((start + self.block_bytes).min(self.table_start), *block))
    }
}

/// Why a data file whose name announces checksums has none that can be found.
fn missing() -> Damage {
    Damage::new("the checksums are not in front of its footer")
}

/// The little-endian number of four bytes at a place.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A part of bytes that begin at `start` of a file; `None` when they do not have all of it.
fn part(bytes: &[u8], start: u64, wanted: Range<u64>) -> Option<&[u8]> {
    let from = usize::try_from(wanted.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(wanted.end.checked_sub(start)?).ok()?;
    bytes.get(from..to)
}

#[cfg(test)]
mod tests;
