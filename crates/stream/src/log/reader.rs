//! A reader of one partition, beside a writer that may live in another process. It returns synced records only, so that
//! an offset it has handed out can never come to mean another record.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};

use super::segment::{self, Damage, HEADER_BYTES, HEADER_LENGTH};
use super::sidecar;
use super::watermark::{HighWatermark, WatermarkFile};
use super::{LogError, partition_dir};
use crate::source::{LogIdentity, LogState, Watermarks, fingerprint};

/// A position in one partition of the spool log.
#[derive(Debug)]
pub struct LogReader {
    at: TopicPartition,
    dir: PathBuf,
    next: i64,
    open: Option<OpenSegment>,
    watermark: Option<WatermarkFile>,
    mark: HighWatermark,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    base: i64,
    /// Byte position of the record `next`.
    position: u64,
}

impl LogReader {
    /// Opens a partition at a position. A partition that no writer has made yet is empty.
    ///
    /// # Errors
    /// [`LogError::BelowLowWatermark`] and [`LogError::AboveEnd`] when the log does not hold the position.
    pub fn open(root: &Path, at: &TopicPartition, next: NextOffset) -> Result<Self, LogError> {
        let mut reader = Self::unchecked(root, at, next);
        let Watermarks { low, high } = reader.watermarks()?;
        if next < low {
            return Err(LogError::BelowLowWatermark { partition: at.clone(), next, low });
        }
        // The watermark may be older than what was synced (see the documentation of `log`): the records behind it are
        // looked at before the position is refused.
        if next > high && reader.end_with_unsynced()? < next {
            return Err(LogError::AboveEnd { partition: at.clone(), next, high });
        }
        Ok(reader)
    }

    fn unchecked(root: &Path, at: &TopicPartition, next: NextOffset) -> Self {
        Self {
            at: at.clone(),
            dir: partition_dir(root, at),
            next: next.0,
            open: None,
            watermark: None,
            mark: HighWatermark::at_start_of(0),
        }
    }

    /// The next records, in order, about `max_bytes` of them and at least one if any is there. Empty when all were
    /// read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the file and the byte; the reader stays where it was.
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<Message>, LogError> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        // The watermark only grows: it is read again when what it covers was read.
        if self.next >= self.mark.next {
            self.refresh()?;
        }
        while bytes < max_bytes.max(1) && self.next < self.mark.next {
            match self.read_some(max_bytes.max(1) - bytes, &mut messages) {
                Ok(read) => bytes += read,
                // What was read before the damage is delivered; the next call meets the damage first.
                Err(_) if !messages.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }

    /// The offset of the next record to be read.
    pub fn position(&self) -> NextOffset {
        NextOffset(self.next)
    }

    /// The oldest offset kept and the end of what is synced, as of now.
    pub fn watermarks(&mut self) -> Result<Watermarks, LogError> {
        self.refresh()?;
        // Without a watermark file no writer has made the partition yet: the directory may not exist.
        let low = if self.watermark.is_some() { segment::list(&self.dir)?.first().copied() } else { None };
        Ok(Watermarks { low: NextOffset(low.unwrap_or(self.mark.base)), high: NextOffset(self.mark.next) })
    }

    /// The random id made with the partition.
    pub fn identity(&self) -> Result<LogIdentity, LogError> {
        sidecar::read_identity(&self.dir)
    }

    /// Opens a partition where [`Self::report_landed`] left off, or at the oldest record kept: for a reader whose
    /// records land elsewhere in a way that tolerates a few of them twice.
    pub fn resume(root: &Path, at: &TopicPartition) -> Result<Self, LogError> {
        let landed = sidecar::read_landed(&partition_dir(root, at))?;
        // A segment may have been deleted by a report that a crash of the machine has undone since.
        let low = watermarks(root, at)?.low;
        Self::open(root, at, landed.unwrap_or(low).max(low))
    }

    /// Records how far the messages of this reader are safe elsewhere, so that the writer may delete them.
    pub fn report_landed(&self, next: NextOffset) -> Result<(), LogError> {
        sidecar::write_landed(&self.dir, next)
    }

    /// Goes on behind what is damaged or missing: behind the one record that fails its checksum if the next one is
    /// whole, else at the next segment, or at the end of what is synced. Returns where.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pass_damaged(&mut self) -> Result<NextOffset, LogError> {
        self.refresh()?;
        if let Ok(Some(open)) = self.behind_one_record() {
            self.open = Some(open);
            self.next += 1;
            return Ok(self.position());
        }
        let bases = segment::list(&self.dir)?;
        // Records have no marker to search for: behind damage the next known beginning is that of a segment.
        let next = bases.into_iter().find(|base| *base > self.next).unwrap_or(self.mark.next);
        // Never behind what is synced, and never back.
        self.next = next.min(self.mark.next).max(self.next);
        self.open = None;
        Ok(self.position())
    }

    /// The segment at the record after `next`, if only the checksum of `next` is wrong. The length of a damaged record
    /// is not checked by anything else, but a whole record with the right offset behind it confirms it.
    fn behind_one_record(&mut self) -> Result<Option<OpenSegment>, LogError> {
        let mut open = self.segment()?;
        let end = self.readable_end(&open)?;
        let Ok(bad) = open.chunk_at(open.position, end)? else { return Ok(None) };
        let (Err(Damage::Checksum), Ok(Some(size))) =
            (segment::parse(&bad, &self.at, self.next), segment::record_size(&bad))
        else {
            return Ok(None);
        };
        let position = open.position + size as u64;
        let following = open.chunk_at(position, end)?;
        let is_whole = following.is_ok_and(|chunk| segment::parse(&chunk, &self.at, self.next + 1).is_ok());
        open.position = position;
        Ok(is_whole.then_some(open))
    }

    fn refresh(&mut self) -> Result<(), LogError> {
        if self.watermark.is_none() {
            self.watermark = WatermarkFile::open(&self.dir)?;
        }
        // A torn read keeps the watermark that was read before; the next look reads it again.
        if let Some(mark) = self.watermark.as_ref().map(|file| file.read(&self.dir)).transpose()?.flatten() {
            self.mark = mark;
        }
        Ok(())
    }

    /// The segment that holds `next`, which is below the high watermark.
    fn segment(&mut self) -> Result<OpenSegment, LogError> {
        if let Some(open) = self.open.take()
            && open.position < self.readable_end(&open)?
        {
            return Ok(open);
        }
        // A segment newer than the watermark may be a torn one that the writer is about to make again.
        let bases = segment::list(&self.dir)?;
        // The greatest base at or below `next`; deleted segments are the oldest, so that its absence means deletion.
        let Some(&base) = bases.iter().rev().find(|base| **base <= self.next.min(self.mark.base)) else {
            let low = NextOffset(bases.first().copied().unwrap_or(self.mark.base));
            return Err(LogError::BelowLowWatermark { partition: self.at.clone(), next: self.position(), low });
        };
        let path = segment::path(&self.dir, base);
        let file = File::open(&path).map_err(LogError::io("open", &path))?;
        // The header repeats the base offset: a file under another segment's name is found here.
        let mut header = [0; HEADER_LENGTH];
        if file.read_exact_at(&mut header, 0).is_err() || header != segment::header(base) {
            return Err(LogError::Corrupt { path, position: 0, damage: Damage::Header });
        }
        let mut open = OpenSegment { file, path, base, position: HEADER_BYTES };
        let end = self.readable_end(&open)?;
        self.skip_to_next(&mut open, end)?;
        if open.position < end {
            return Ok(open);
        }
        // It ends just before `next`, and no segment begins there.
        if base < self.mark.base && bases.contains(&self.mark.base) {
            return Err(open.corrupt(Damage::Incomplete));
        }
        Err(LogError::MissingSegment { path: segment::path(&self.dir, self.next) })
    }

    /// Walks over the records below `next` by their lengths.
    fn skip_to_next(&self, open: &mut OpenSegment, end: u64) -> Result<(), LogError> {
        for _ in open.base..self.next {
            let mut length = [0; 4];
            let whole = open.file.read_exact_at(&mut length, open.position).is_ok();
            let size = match segment::record_size(&length) {
                Ok(Some(size)) if whole => size as u64,
                Err(damage) if whole => return Err(open.corrupt(damage)),
                _ => u64::MAX,
            };
            // `u64::MAX` stands for a length that could not be read.
            if open.position.saturating_add(size) > end {
                return Err(open.corrupt(Damage::Incomplete));
            }
            open.position += size;
        }
        Ok(())
    }

    /// The end of the synced bytes of a segment.
    fn readable_end(&self, open: &OpenSegment) -> Result<u64, LogError> {
        if open.base == self.mark.base {
            // The segment that is written has bytes behind the watermark, which a crash may take away.
            return Ok(self.mark.position);
        }
        open.file.metadata().map(|meta| meta.len()).map_err(LogError::io("inspect", &open.path))
    }

    /// Reads up to `max_bytes` from one segment, at least one record.
    fn read_some(&mut self, max_bytes: usize, messages: &mut Vec<Message>) -> Result<usize, LogError> {
        let mut open = self.segment()?;
        let end = self.readable_end(&open)?;
        let mut chunk = match open.chunk_at(open.position, end)? {
            Ok(chunk) => chunk,
            Err(damage) => return Err(open.corrupt(damage)),
        };
        let mut bytes = 0;
        while bytes < max_bytes {
            match segment::parse(&chunk, &self.at, self.next) {
                Ok((message, size)) => {
                    messages.push(message);
                    open.position += size as u64;
                    self.next += 1;
                    bytes += size;
                    chunk = chunk.slice(size..);
                }
                // A chunk ends within a record most times: that record begins the next chunk, and is damaged only if it
                // is not whole there.
                Err(damage) if bytes == 0 => return Err(open.corrupt(damage)),
                Err(_) => break,
            }
        }
        self.open = Some(open);
        Ok(bytes)
    }

    /// The offset behind the last whole record, synced or not.
    fn end_with_unsynced(&self) -> Result<NextOffset, LogError> {
        let mut next = self.mark.next;
        // A partition that no writer has made, or whose directory is gone, ends where it begins.
        if !self.dir.try_exists().map_err(LogError::io("inspect", &self.dir))? {
            return Ok(NextOffset(next));
        }
        for base in segment::list(&self.dir)?.into_iter().filter(|base| *base >= self.mark.base) {
            let path = segment::path(&self.dir, base);
            let file = File::open(&path).map_err(LogError::io("open", &path))?;
            // A newer segment proves that those before it are whole, and they may be deleted by now.
            let is_marked = base == self.mark.base;
            let from = if is_marked { (self.mark.position, self.mark.next) } else { (HEADER_BYTES, base) };
            next = segment::scan(&file, &path, &self.at, from)?.next;
        }
        Ok(NextOffset(next))
    }
}

impl OpenSegment {
    /// Reads at least the record at `position`, in front of `end`.
    fn chunk_at(&self, position: u64, end: u64) -> Result<Result<Bytes, Damage>, LogError> {
        segment::read_chunk(&self.file, position, end, &self.path)
    }

    fn corrupt(&self, damage: Damage) -> LogError {
        LogError::Corrupt { path: self.path.clone(), position: self.position, damage }
    }
}

/// The log behind a partition, for a program that reads nothing of it; `None` when no writer has made it. What it holds
/// ends behind the last whole record, as for [`Source::end`](crate::Source::end). The fingerprint is that of the
/// message just below `next`.
///
/// # Errors
/// The directory cannot be read, or that message is damaged.
pub fn state(root: &Path, at: &TopicPartition, next: NextOffset) -> Result<Option<LogState>, LogError> {
    let mut reader = LogReader::unchecked(root, at, NextOffset(0));
    let low = reader.watermarks()?.low;
    if reader.watermark.is_none() {
        return Ok(None);
    }
    let watermarks = Watermarks { low, high: reader.end_with_unsynced()? };
    let fingerprint = fingerprint_below(root, at, next)?;
    Ok(Some(LogState { identity: reader.identity()?, watermarks, fingerprint }))
}

/// [`fingerprint`] of the message just below `next`; `None` when no reader can see it.
pub(super) fn fingerprint_below(root: &Path, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, LogError> {
    if next.0 <= 0 {
        return Ok(None);
    }
    let mut reader = match LogReader::open(root, at, NextOffset(next.0 - 1)) {
        Ok(reader) => reader,
        Err(LogError::BelowLowWatermark { .. } | LogError::AboveEnd { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(reader.read(1)?.first().map(fingerprint))
}

/// Behind the last whole record: after a power failure the watermark may cover less than the log holds.
pub(super) fn end_with_unsynced(root: &Path, at: &TopicPartition) -> Result<NextOffset, LogError> {
    let mut reader = LogReader::unchecked(root, at, NextOffset(0));
    reader.refresh()?;
    reader.end_with_unsynced()
}

/// The watermarks of a partition that has no reader yet.
pub(super) fn watermarks(root: &Path, at: &TopicPartition) -> Result<Watermarks, LogError> {
    LogReader::unchecked(root, at, NextOffset(0)).watermarks()
}
