//! One table as an exactly-once sink: rows of a batch are made, written and committed together with the batch's offsets.
//!
//! A table that gets no rows of a batch need not be committed at once: that its range holds nothing for it is true whoever
//! looks. It is committed with the next rows, or after a while, so that recovery has little to read again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::commit::{CommitError, StopReason};
use lake::{CommitOutcome, CommitRequest, DataFile, ReadError, TableHandle, Token, WriteError};
use service_kit::admin::Condition;
use tables::arrival::Arrival;
use tables::registry::Table;

use crate::hand::Batch;
use crate::metrics::{Metrics, OutcomeLabel, TableLabel};
use crate::note::Remembered;
use crate::patience::Patience;
use crate::room::Room;

/// Why a table cannot take a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("rows for {table} could not be made")]
    Rows {
        table: String,
        #[source]
        source: ArrowError,
    },
    #[error("files for {table} could not be written")]
    Write {
        table: String,
        #[source]
        source: WriteError,
    },
    #[error("{table} cannot be committed to")]
    Commit {
        table: String,
        #[source]
        source: CommitError,
    },
    #[error("the offsets of {table} cannot be read")]
    Offsets {
        table: String,
        #[source]
        source: ReadError,
    },
    #[error("nobody waits for the batch any more")]
    Abandoned,
    #[error("{table} cannot be written to any more")]
    Stopped {
        table: String,
        #[source]
        reason: StopReason,
    },
}

/// A table without rows that lies fewer messages than this behind is committed rarely: recovery reads so many in no time.
const FEW_MESSAGES: u64 = 1_024;
/// How many times longer such a table waits.
const RARELY: u32 = 12;

/// How a batch is to land.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Landing {
    /// Time of landing, unix microseconds.
    pub(crate) ingested_us: i64,
    /// A table without rows is committed all the same when it was not for this long, or [`RARELY`] times as long while it
    /// lies only [`FEW_MESSAGES`] behind. Zero: at once.
    pub(crate) idle_after: Duration,
}

#[derive(Debug)]
pub(crate) struct Sink {
    table: &'static Table,
    handle: TableHandle,
    /// What the table holds, of the partitions that are ours.
    next: BTreeMap<TopicPartition, NextOffset>,
    /// Where the log began, of those whose beginning lies behind what the table holds.
    begin: BTreeMap<TopicPartition, NextOffset>,
    /// Met while the table can be read and written.
    reachable: Condition,
    committed: Instant,
    room: Room,
    metrics: Metrics,
}

impl Sink {
    pub(crate) fn new(
        table: &'static Table,
        handle: TableHandle,
        reachable: Condition,
        room: Room,
        metrics: Metrics,
    ) -> Self {
        reachable.met();
        let (next, begin) = (BTreeMap::new(), BTreeMap::new());
        Self { table, handle, next, begin, reachable, committed: Instant::now(), room, metrics }
    }

    pub(crate) fn name(&self) -> String {
        self.table.def.name.to_string()
    }

    /// The next offset of a partition of ours that the table has a use for.
    pub(crate) fn next(&self, at: &TopicPartition) -> NextOffset {
        self.landed(at).max(self.begin.get(at).copied().unwrap_or_default())
    }

    /// The table has never seen the partition: it may begin wherever the log begins.
    pub(crate) fn is_new(&self, at: &TopicPartition) -> bool {
        self.landed(at) == NextOffset(0)
    }

    fn landed(&self, at: &TopicPartition) -> NextOffset {
        self.next.get(at).copied().unwrap_or_default()
    }

    /// Whether the table misses offsets below `end` that it is not to skip.
    pub(crate) fn is_behind(&self, at: &TopicPartition, end: NextOffset) -> bool {
        self.next(at) < end
    }

    /// The log of a partition begins at `begin`: what the table does not hold below that is a gap.
    pub(crate) fn skip_to(&mut self, at: &TopicPartition, begin: NextOffset) {
        self.begin.insert(at.clone(), begin);
    }

    /// Reads where the table stands, waiting for a catalog that is away. Partitions it has never seen stand at 0.
    pub(crate) async fn take_over(&mut self, partitions: &[TopicPartition]) -> Result<(), SinkError> {
        let mut patience = Patience::new(&self.reachable);
        let offsets = loop {
            match self.handle.offsets().await {
                Ok(offsets) => break offsets,
                Err(error) if error.is_transient() => patience.wait("reading the table's offsets", &error).await,
                Err(source) => return Err(SinkError::Offsets { table: self.name(), source }),
            }
        };
        for at in partitions {
            self.next.insert(at.clone(), offsets.get(at).copied().unwrap_or_default());
        }
        Ok(())
    }

    pub(crate) fn give_up(&mut self, partitions: &[TopicPartition]) {
        self.next.retain(|at, _| !partitions.contains(at));
        self.begin.retain(|at, _| !partitions.contains(at));
    }

    /// Lands what the table does not hold yet. Returns when it is in the table, or found to be there already. A catalog or
    /// store that is away is waited for: nothing is given up, and the log is paused meanwhile.
    pub(crate) async fn land(&mut self, batch: &Batch, remembered: &Remembered, how: Landing) -> Result<(), SinkError> {
        let reachable = self.reachable.clone();
        let mut patience = Patience::new(&reachable);
        let mut ranges = self.missing(&batch.ends);
        while !ranges.is_empty() {
            let mut request = self.prepare(batch, ranges, how.ingested_us).await?;
            if request.files.is_empty() && self.may_wait(&request.ranges, how.idle_after) {
                return Ok(());
            }
            request.properties = remembered.properties(&request.ranges);
            request.attachments = remembered.attachments(&request.ranges);
            request.gaps = self.gaps(&request.ranges);
            ranges = loop {
                let started = Instant::now();
                let outcome = self.handle.commit(request.clone()).await;
                self.observe(&outcome, started.elapsed());
                match outcome {
                    CommitOutcome::Committed(_) => {
                        self.advance(&request.ranges);
                        break Vec::new();
                    }
                    CommitOutcome::Trim(rest) => break rest,
                    CommitOutcome::Drop => {
                        let ours: Vec<_> = batch.ends.keys().cloned().collect();
                        self.take_over(&ours).await?;
                        break Vec::new();
                    }
                    CommitOutcome::Stop(reason) => return Err(SinkError::Stopped { table: self.name(), reason }),
                    CommitOutcome::Unknown(error) | CommitOutcome::Unreachable(error) if error.is_transient() => {
                        patience.wait(&format!("committing to {}", self.name()), &error).await;
                    }
                    CommitOutcome::Unknown(source) | CommitOutcome::Unreachable(source) => {
                        return Err(SinkError::Commit { table: self.name(), source });
                    }
                }
            };
        }
        Ok(())
    }

    /// Whether ranges without rows need not be committed yet.
    fn may_wait(&self, ranges: &[OffsetRange], idle_after: Duration) -> bool {
        let messages: u64 = ranges.iter().map(OffsetRange::len).sum();
        let limit = if messages < FEW_MESSAGES { idle_after * RARELY } else { idle_after };
        self.committed.elapsed() < limit
    }

    /// The ranges up to `ends` that the table does not hold. One is empty where nothing but a gap lies before the end.
    fn missing(&self, ends: &BTreeMap<TopicPartition, NextOffset>) -> Vec<OffsetRange> {
        let range = |(at, end): (&TopicPartition, &NextOffset)| OffsetRange::new(at.clone(), self.next(at).0, end.0);
        let has_landed = |range: &OffsetRange| range.start > range.end || self.landed(&range.at).0 >= range.end;
        ends.iter().map(range).filter(|range| !has_landed(range)).collect()
    }

    /// What lies between what the table holds and the beginning of the log.
    fn gaps(&self, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        let gap = |range: &OffsetRange| {
            let begin = self.begin.get(&range.at)?;
            Some(OffsetRange::new(range.at.clone(), self.landed(&range.at).0, begin.0)).filter(|gap| !gap.is_empty())
        };
        ranges.iter().filter_map(gap).collect()
    }

    async fn prepare(
        &self,
        batch: &Batch,
        ranges: Vec<OffsetRange>,
        ingested_us: i64,
    ) -> Result<CommitRequest, SinkError> {
        let arrivals = within(&batch.arrivals, &ranges);
        let failed = |source| SinkError::Rows { table: self.name(), source };
        let mut files = Vec::new();
        for portion in self.room.portions(self.table, &arrivals) {
            // Held until the files of the portion are in the store.
            let _room = self.room.take(&portion).await;
            let rows = (self.table.make_rows)(portion.arrivals, ingested_us);
            files.extend(self.write(rows.map_err(failed)?).await?);
        }
        let skipped = clip(&batch.skipped, &ranges);
        if let Some(make_skip_rows) = self.table.make_skip_rows.filter(|_| !skipped.is_empty()) {
            let rows = make_skip_rows(&skipped, ingested_us).map_err(failed)?;
            files.extend(self.write(vec![rows]).await?);
        }
        Ok(CommitRequest::new(ranges, Token::random(), files))
    }

    /// Writes the files, if there are rows; a store that is away is waited for. The rows are gone once they are encoded.
    async fn write(&self, rows: Vec<RecordBatch>) -> Result<Vec<DataFile>, SinkError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let failed = |source| SinkError::Write { table: self.name(), source };
        let encoded = self.handle.encode(rows).map_err(failed)?;
        let mut patience = Patience::new(&self.reachable);
        let files = loop {
            match self.handle.upload(encoded.clone()).await {
                Ok(files) => break files,
                Err(error) if error.is_transient() => {
                    patience.wait(&format!("writing files of {}", self.name()), &error).await;
                }
                Err(source) => return Err(failed(source)),
            }
        };
        let label = TableLabel { table: self.name() };
        self.metrics.write_seconds.get_or_create(&label).observe(started.elapsed().as_secs_f64());
        let bytes = files.iter().map(DataFile::file_size_in_bytes).sum();
        self.metrics.written_bytes.get_or_create(&label).inc_by(bytes);
        Ok(files)
    }

    fn advance(&mut self, landed: &[OffsetRange]) {
        self.committed = Instant::now();
        self.next.extend(landed.iter().map(|r| (r.at.clone(), NextOffset(r.end))));
    }

    fn observe(&self, outcome: &CommitOutcome, took: Duration) {
        let word = match outcome {
            CommitOutcome::Committed(_) => "committed",
            CommitOutcome::Trim(_) => "trim",
            CommitOutcome::Drop => "drop",
            CommitOutcome::Stop(_) => "stop",
            CommitOutcome::Unknown(_) => "unknown",
            CommitOutcome::Unreachable(_) => "unreachable",
        };
        self.metrics.commits.get_or_create(&OutcomeLabel { table: self.name(), outcome: word }).inc();
        self.metrics.commit_seconds.get_or_create(&TableLabel { table: self.name() }).observe(took.as_secs_f64());
    }
}

/// The arrivals that lie in the ranges: all of them, unless a part has landed before.
fn within<'a>(arrivals: &'a [Arrival], ranges: &[OffsetRange]) -> Cow<'a, [Arrival]> {
    let lies = |a: &Arrival| {
        let m = &a.message;
        ranges.iter().any(|r| r.at == m.at && (r.start..r.end).contains(&m.offset))
    };
    if arrivals.iter().all(lies) {
        Cow::Borrowed(arrivals)
    } else {
        arrivals.iter().filter(|a| lies(a)).cloned().collect()
    }
}

/// The parts of `skipped` that lie in the ranges.
fn clip(skipped: &[OffsetRange], ranges: &[OffsetRange]) -> Vec<OffsetRange> {
    let part = |skip: &OffsetRange| {
        let range = ranges.iter().find(|range| range.at == skip.at)?;
        let part = OffsetRange::new(skip.at.clone(), skip.start.max(range.start), skip.end.min(range.end));
        Some(part).filter(|part| !part.is_empty())
    };
    skipped.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests;
