//! The one writer of a partition: recovery on opening, append, sync, deletion from the old end.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use event_schema::position::{NextOffset, TopicPartition};
use service_kit::durable;

use super::segment::{self, Damage, HEADER_BYTES, HEADER_LENGTH, Record};
use super::sidecar;
use super::source::list_partitions;
use super::watermark::{HighWatermark, WatermarkFile};
use super::{Fsync, LogError, LogOptions, partition_dir};
use crate::source::Watermarks;

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The offset the record got.
    At(i64),
    /// The log holds `bytes` and cannot grow. The record was not written: the caller counts it.
    Full { bytes: u64, by: FullBy },
}

/// What keeps a log from growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullBy {
    /// [`LogOptions::max_bytes`].
    Limit,
    /// The file system has no room, or its user no quota.
    Disk,
}

impl std::fmt::Display for FullBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Limit => "it has reached its size limit, because less has landed than was written",
            Self::Disk => "there is no room left on its disk: free some, or give the spool another directory",
        })
    }
}

/// What opening a log found behind its last whole record and cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Never synced and never read, so that nothing promised is lost. Zero after an orderly end.
    pub cut_bytes: u64,
}

/// The exclusive writer of one partition of the spool log.
#[derive(Debug)]
pub struct LogWriter {
    at: TopicPartition,
    dir: PathBuf,
    options: LogOptions,
    /// Closed segments, oldest first: base offset and size.
    closed: VecDeque<(i64, u64)>,
    active: Active,
    watermark: WatermarkFile,
    /// What the watermark file covers; `None` until the first sync of this writer.
    synced: Option<HighWatermark>,
    synced_at: Instant,
    recovery: Recovery,
    poisoned: bool,
    scratch: Vec<u8>,
    _lock: File,
}

/// The segment being written.
#[derive(Debug)]
struct Active {
    file: File,
    base: i64,
    position: u64,
    next: i64,
}

impl LogWriter {
    /// Opens (or makes) a partition, holding it against every other writer, and cuts what a crash left behind. What is
    /// whole above the high watermark is written again, since a sync of it may have failed.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another writer has it; [`LogError::Corrupt`] when synced bytes are damaged or missing.
    pub fn open(root: &Path, at: &TopicPartition, options: LogOptions) -> Result<Self, LogError> {
        let dir = partition_dir(root, at);
        make_dir(&dir)?;
        // Held before anything is read: recovery cuts and writes, and must not meet another writer.
        let lock = lock(&dir)?;
        sidecar::ensure_identity(&dir)?;
        sidecar::ensure_landed(&dir);
        let watermark = WatermarkFile::create(&dir)?;
        let mark = watermark.read(&dir)?;
        let mut bases = segment::list(&dir)?;
        let newest = match bases.pop() {
            Some(base) => base,
            None => begin_first(&dir, mark)?,
        };
        let (active, recovery) = recover(&dir, at, newest, mark)?;
        let closed = bases.into_iter().map(|base| Ok((base, file_bytes(&segment::path(&dir, base))?)));
        let mut writer = Self {
            at: at.clone(),
            closed: closed.collect::<Result<_, LogError>>()?,
            synced: None,
            active,
            watermark,
            synced_at: Instant::now(),
            recovery,
            poisoned: false,
            scratch: Vec::new(),
            _lock: lock,
            dir,
            options,
        };
        // The names of new files must be as durable as their content before the watermark covers it (fsync(2)).
        sync_dir(&writer.dir)?;
        writer.sync()?;
        Ok(writer)
    }

    /// Appends one record without headers.
    ///
    /// # Errors
    /// As [`Self::append_record`].
    pub fn append(&mut self, key: Option<&[u8]>, payload: &[u8], timestamp_ms: i64) -> Result<Appended, LogError> {
        self.append_record(Record { timestamp_ms, key, payload, headers: &[] })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// A record over the size limit, or a file system fault other than a full disk.
    pub fn append_record(&mut self, record: Record<'_>) -> Result<Appended, LogError> {
        self.check_usable()?;
        // Compared before the append: a segment exceeds its size by one record at most.
        if self.active.position >= self.options.segment_bytes {
            match self.roll() {
                Err(LogError::Io { source, .. }) if is_disk_full(&source) => {
                    return Ok(self.full(FullBy::Disk));
                }
                rolled => rolled?,
            }
        }
        let offset = self.active.next;
        segment::encode(&mut self.scratch, offset, record)?;
        let size = self.scratch.len() as u64;
        // Before the write, so that nothing is to be undone. An oldest segment that has landed is freed by the owner
        // (`delete_landed`).
        if self.bytes() + size > self.options.max_bytes {
            return Ok(self.full(FullBy::Limit));
        }
        if let Err(error) = self.active.file.write_all_at(&self.scratch, self.active.position) {
            return self.undo_append(error);
        }
        self.active.position += size;
        self.active.next += 1;
        match self.options.fsync {
            Fsync::Always => self.sync()?,
            Fsync::Interval(interval) if self.synced_at.elapsed() >= interval => self.sync()?,
            Fsync::Interval(_) | Fsync::Manual => {}
        }
        Ok(Appended::At(offset))
    }

    /// Makes every appended record durable and shows it to readers.
    ///
    /// # Errors
    /// After a failed sync the kernel may have dropped the pages: the writer refuses everything until opened again.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.synced_at = Instant::now();
        let Active { base, position, next, .. } = self.active;
        let mark = HighWatermark { base, position, next };
        if self.synced == Some(mark) {
            return Ok(());
        }
        if let Err(error) = self.active.file.sync_data() {
            // A second fsync would report success although the pages are lost: nothing more is promised by this writer.
            self.poisoned = true;
            return Err(LogError::io("sync", &segment::path(&self.dir, base))(error));
        }
        // Only now: a crash between the two leaves an older watermark, never one that covers what is not durable.
        self.watermark.write(&self.dir, mark)?;
        self.synced = Some(mark);
        Ok(())
    }

    /// Deletes the segments whose records all lie below `next`; the newest always stays. Returns the bytes freed.
    pub fn delete_below(&mut self, next: NextOffset) -> Result<u64, LogError> {
        let mut freed = 0;
        while let Some(&(base, bytes)) = self.closed.front() {
            // A segment ends where the next one begins.
            let end = self.closed.get(1).map_or(self.active.base, |(base, _)| *base);
            if end > next.0 {
                break;
            }
            let path = segment::path(&self.dir, base);
            // Oldest first: a crash leaves a shorter log, without a hole.
            fs::remove_file(&path).map_err(LogError::io("delete", &path))?;
            self.closed.pop_front();
            freed += bytes;
        }
        Ok(freed)
    }

    /// Deletes what the reader of this partition has reported as landed. Returns the bytes freed.
    pub fn delete_landed(&mut self) -> Result<u64, LogError> {
        match sidecar::read_landed(&self.dir)? {
            Some(next) => self.delete_below(next),
            None => Ok(0),
        }
    }

    /// The oldest offset kept and the one the next record will get (readers see up to the last sync).
    pub fn watermarks(&self) -> Watermarks {
        let low = self.closed.front().map_or(self.active.base, |(base, _)| *base);
        Watermarks { low: NextOffset(low), high: NextOffset(self.active.next) }
    }

    /// Size of the log in bytes.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.active.position
    }

    pub fn partition(&self) -> &TopicPartition {
        &self.at
    }

    /// What opening this log cut off.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    fn check_usable(&self) -> Result<(), LogError> {
        if self.poisoned { Err(LogError::Poisoned { path: self.dir.clone() }) } else { Ok(()) }
    }

    /// Closes the active segment and begins the next. The order matters: a newer segment proves that the older is
    /// whole.
    fn roll(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let next = create_segment(&self.dir, self.active.next)?;
        sync_dir(&self.dir)?;
        let closed = std::mem::replace(&mut self.active, next);
        self.closed.push_back((closed.base, closed.position));
        self.sync()
    }

    fn full(&self, by: FullBy) -> Appended {
        Appended::Full { bytes: self.bytes(), by }
    }

    /// Takes back a record that was written in part. A full disk is a state, not a fault.
    fn undo_append(&mut self, error: io::Error) -> Result<Appended, LogError> {
        let path = segment::path(&self.dir, self.active.base);
        // Cut off: a shorter record written there next would leave the rest behind it, and a full disk needs the room.
        if let Err(error) = self.active.file.set_len(self.active.position) {
            self.poisoned = true;
            return Err(LogError::io("truncate", &path)(error));
        }
        if is_disk_full(&error) {
            return Ok(self.full(FullBy::Disk));
        }
        Err(LogError::io("append to", &path)(error))
    }
}

/// Opens the first partition of a topic that no other writer holds, making a new one when all are held. So several
/// agents and importers can feed one spool directory.
///
/// # Errors
/// As [`LogWriter::open`], except that a held partition is passed over.
pub fn claim_partition(root: &Path, topic: &str, options: LogOptions) -> Result<LogWriter, LogError> {
    let topic: Arc<str> = topic.into();
    let mut partition = 0;
    loop {
        match LogWriter::open(root, &TopicPartition::new(topic.clone(), partition), options) {
            Err(LogError::Locked { .. }) => partition += 1,
            opened => return opened,
        }
    }
}

/// Opens every partition of a topic that no writer holds and lets go of it, so that what a killed writer had appended
/// but not synced becomes visible to readers now, and not when some later writer happens to open the partition.
///
/// # Errors
/// As [`LogWriter::open`], except that a held partition is passed over.
pub fn recover_partitions(root: &Path, topic: &str, options: LogOptions) -> Result<(), LogError> {
    let topic: Arc<str> = topic.into();
    for partition in list_partitions(&root.join(&*topic))? {
        match LogWriter::open(root, &TopicPartition::new(topic.clone(), partition), options) {
            Err(LogError::Locked { .. }) | Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(LogError::io("open", &path))?;
    match file.try_lock() {
        // flock(2) is released by the kernel when the process ends, however it ends.
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(LogError::io("lock", &path)(error)),
    }
}

/// Begins the first segment of a log, unless the watermark shows that there were segments.
fn begin_first(dir: &Path, mark: Option<HighWatermark>) -> Result<i64, LogError> {
    match mark {
        Some(mark) if mark != HighWatermark::at_start_of(0) => {
            Err(LogError::MissingSegment { path: segment::path(dir, mark.base) })
        }
        _ => create_segment(dir, 0).map(|active| active.base),
    }
}

/// Makes a segment. An existing one of that name is the trace of a crash while making it, and holds nothing.
fn create_segment(dir: &Path, base: i64) -> Result<Active, LogError> {
    let path = segment::path(dir, base);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(LogError::io("make", &path))?;
    let written = file.write_all_at(&segment::header(base), 0).map_err(LogError::io("write", &path));
    let synced = written.and_then(|()| file.sync_data().map_err(LogError::io("sync", &path)));
    if let Err(error) = synced {
        // One without a header would have to be made again before the log can be opened, on a disk that may still be
        // full.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(Active { file, base, position: HEADER_BYTES, next: base })
}

/// Scans the newest segment for its whole records and cuts what follows them.
fn recover(
    dir: &Path,
    at: &TopicPartition,
    base: i64,
    mark: Option<HighWatermark>,
) -> Result<(Active, Recovery), LogError> {
    let path = segment::path(dir, base);
    // What must be there: all that was synced. A segment newer than the watermark has nothing synced yet.
    let floor = match mark {
        Some(mark) if mark.base > base => return Err(LogError::MissingSegment { path: segment::path(dir, mark.base) }),
        Some(mark) if mark.base == base => mark.position,
        _ => 0,
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(LogError::io("open", &path))?;
    let length = file_bytes(&path)?;
    let mut found = [0; HEADER_LENGTH];
    if file.read_exact_at(&mut found, 0).is_err() || found != segment::header(base) {
        // Records follow: the header was whole when they were written. Without any, a crash has interrupted the making
        // of the segment.
        if floor > HEADER_BYTES || length > HEADER_BYTES {
            return Err(LogError::Corrupt { path, position: 0, damage: Damage::Header });
        }
        return Ok((create_segment(dir, base)?, Recovery { cut_bytes: length }));
    }
    let found = segment::scan(&file, &path, at, (HEADER_BYTES, base))?;
    // Synced bytes are damaged: readers may have them, so that they must not be cut.
    if found.position < floor {
        let damage = found.damage.unwrap_or(Damage::Incomplete);
        return Err(LogError::Corrupt { path, position: found.position, damage });
    }
    // A scan ends within the file.
    let cut_bytes = length - found.position;
    if cut_bytes > 0 {
        file.set_len(found.position).map_err(LogError::io("truncate", &path))?;
    }
    write_again(&file, floor..found.position).map_err(LogError::io("write", &path))?;
    Ok((Active { file, base, position: found.position, next: found.next }, Recovery { cut_bytes }))
}

/// Writes what a file holds over itself. After a failed sync the kernel keeps the pages and marks them as clean: they
/// read as they were written, and the next sync succeeds without a byte of them on the disk. So what was not synced
/// before must not be relied on as it lies in the page cache.
pub(super) fn write_again(file: &File, range: Range<u64>) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let mut bytes: Vec<u8> = Vec::new();
    let mut position = range.start;
    while position < range.end {
        let left = usize::try_from(range.end - position).unwrap_or(usize::MAX);
        bytes.resize(left.min(CHUNK), 0);
        file.read_exact_at(&mut bytes, position)?;
        file.write_all_at(&bytes, position)?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// Makes the directory of a partition: its name, and those of all above it, must be as durable as what it will hold.
fn make_dir(dir: &Path) -> Result<(), LogError> {
    // The identity is written once this is done. A directory without one may be there and not be flushed: its maker was
    // killed in between.
    if sidecar::has_identity(dir) {
        return Ok(());
    }
    // Names of processes and jobs are not for other users of the machine.
    durable::make_private_dir(dir).map(drop).map_err(LogError::io("make", dir))
}

fn file_bytes(path: &Path) -> Result<u64, LogError> {
    fs::metadata(path).map(|meta| meta.len()).map_err(LogError::io("inspect", path))
}

fn sync_dir(dir: &Path) -> Result<(), LogError> {
    durable::sync_dir(dir).map_err(LogError::io("sync", dir))
}
