//! The files that hold the former rows, and what they hold beside them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::{StreamExt, TryStreamExt, stream};
use lake::{DataFile, ScanFile, TableSnapshot};

use super::messages::Messages;
use super::scope::Scope;
use super::{ReprocessError, Target};
use crate::recover::around;
use crate::repair::columns::{PLACE, Places};

/// Files whose coordinates are read at the same time.
const FILES_AT_ONCE: usize = 8;
/// Rows read at once.
const ROWS_AT_ONCE: usize = 16_384;
/// Rows that are carried over go into a file of about so many bytes of memory.
const CHUNK_BYTES: usize = 64 << 20;

/// The files that a change takes away.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// All rows are made again.
    whole: Vec<Arc<ScanFile>>,
    /// Some rows are of other messages.
    mixed: Vec<Arc<ScanFile>>,
    /// Rows that are made again.
    pub(crate) rows: u64,
    /// Rows of other messages.
    pub(crate) carried_rows: u64,
}

impl Former {
    /// Finds the files of a head.
    pub(super) async fn find(head: &TableSnapshot, target: &Target) -> Result<Self, ReprocessError> {
        match &target.scope {
            Scope::Messages { .. } => Self::of_messages(head, target).await,
            // Of the head that the rows were planned on: later files hold aggregates of later messages.
            Scope::Days { days, .. } => Self::of_days(&target.head, days, target).await,
        }
    }

    async fn of_days(head: &TableSnapshot, days: &BTreeSet<i32>, target: &Target) -> Result<Self, ReprocessError> {
        let mut whole = head.plan(&[]).await.map_err(|source| target.unread(source))?;
        // Of another partitioning: its rows may be of any day, and would stay beside those that are made again.
        if let Some(file) = whole.iter().find(|file| file.day.is_none()) {
            return Err(ReprocessError::NoDay { table: target.name(), file: file.location.clone() });
        }
        whole.retain(|file| file.day.is_some_and(|day| days.contains(&day)));
        let rows = whole.iter().map(|file| file.record_count).sum();
        Ok(Self { whole, rows, ..Self::default() })
    }

    async fn of_messages(head: &TableSnapshot, target: &Target) -> Result<Self, ReprocessError> {
        let mut former = Self::default();
        if target.messages.is_empty() {
            return Ok(former);
        }
        let files = head.plan(&around(&target.messages.spans())).await.map_err(|source| target.unread(source))?;
        // Read, and not taken from statistics: the bounds of a file are those of all its partitions together.
        let counts: Vec<_> = files.into_iter().map(|file| count(head, file, target)).collect();
        let counted: Vec<_> = stream::iter(counts).buffered(FILES_AT_ONCE).try_collect().await?;
        for (file, rows) in counted.into_iter().filter(|(_, rows)| *rows > 0) {
            former.rows += rows;
            former.carried_rows += file.record_count.saturating_sub(rows);
            // Whole files need not be read again.
            let of_kind = if rows == file.record_count { &mut former.whole } else { &mut former.mixed };
            of_kind.push(file);
        }
        Ok(former)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of files.
    pub(super) fn len(&self) -> u64 {
        (self.whole.len() + self.mixed.len()) as u64
    }

    pub(super) fn locations(&self) -> BTreeSet<String> {
        self.whole.iter().chain(&self.mixed).map(|file| file.location.clone()).collect()
    }

    /// Writes the rows of other messages into files of their own.
    pub(super) async fn carry(&self, head: &TableSnapshot, target: &Target) -> Result<Vec<DataFile>, ReprocessError> {
        let mut carried = Carried::default();
        for file in &self.mixed {
            carried.add(head, file, target).await?;
        }
        // What is left: usually all, since few files reach over the beginning.
        carried.flush(target).await?;
        Ok(carried.files)
    }
}

/// Rows that are carried over.
#[derive(Default)]
struct Carried {
    files: Vec<DataFile>,
    /// Rows that are in no file yet, and the memory that they take.
    rows: Vec<RecordBatch>,
    bytes: usize,
}

impl Carried {
    /// Adds the rows of a file that are not made again.
    async fn add(&mut self, head: &TableSnapshot, file: &Arc<ScanFile>, target: &Target) -> Result<(), ReprocessError> {
        let mut batches = head.read_file(file, &[], ROWS_AT_ONCE).map_err(|source| target.unread(source))?;
        while let Some(batch) = batches.try_next().await.map_err(|source| target.unread(source))? {
            let others = others(&batch, target)?;
            self.bytes += others.get_array_memory_size();
            self.rows.push(others);
            if self.bytes >= CHUNK_BYTES {
                self.flush(target).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self, target: &Target) -> Result<(), ReprocessError> {
        self.files.extend(target.write(std::mem::take(&mut self.rows)).await?);
        self.bytes = 0;
        Ok(())
    }
}

/// How many rows of a file are of the messages that are made again.
async fn count(
    head: &TableSnapshot,
    file: Arc<ScanFile>,
    target: &Target,
) -> Result<(Arc<ScanFile>, u64), ReprocessError> {
    let mut rows = 0;
    let mut batches = head.read_file(&file, &PLACE, ROWS_AT_ONCE).map_err(|source| target.unread(source))?;
    while let Some(batch) = batches.try_next().await.map_err(|source| target.unread(source))? {
        rows += within(&batch, target)?.into_iter().filter(|is_within| *is_within).count() as u64;
    }
    Ok((file, rows))
}

/// The rows that are not made again.
fn others(batch: &RecordBatch, target: &Target) -> Result<RecordBatch, ReprocessError> {
    let others: BooleanArray = within(batch, target)?.into_iter().map(|is_within| Some(!is_within)).collect();
    filter_record_batch(batch, &others).map_err(|source| target.not_made(source))
}

/// Of each row, whether it is of a message that is made again.
fn within(batch: &RecordBatch, target: &Target) -> Result<Vec<bool>, ReprocessError> {
    let places = Places::of(batch).map_err(|source| ReprocessError::Column { table: target.name(), source })?;
    let mut within = Vec::with_capacity(batch.num_rows());
    let mut begin = 0;
    while begin < batch.num_rows() {
        // Looked up once for rows of one log that lie together.
        let at = places.at(begin);
        let ranges = Messages::of(&target.messages, &at);
        let mut row = begin;
        while row < batch.num_rows() && places.is_same_log(row, begin) {
            within.push(ranges.iter().any(|range| range.contains(&places.offset(row))));
            row += 1;
        }
        begin = row;
    }
    Ok(within)
}
