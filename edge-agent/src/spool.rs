//! The spool thread: encodes batches, writes them to the log, makes them durable. It stands between the probes and the
//! disk, so that a slow disk never holds up the reading of the rings.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::TopicPartition;
use event_schema::stream::{Lane, Stream};
use event_schema::{topics, wire};
use stream::log::{Appended, Fsync, FullBy, LogError, LogOptions, LogWriter, claim_partition};

use crate::batcher::Cut;
use crate::clock;
use crate::identity::{IdentityError, take_epoch};
use crate::metrics::Metrics;
use crate::numbering::{EpochOutOfRange, Numbering};

/// Batches that may wait for the disk before events are shed: about 40 MB at worst.
pub const QUEUE_BATCHES: usize = 32;

/// How often landed segments are deleted and a broken log is tried again.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long batches are joined in one sync while there are more. Readers see what is synced, and a crash takes the
/// rest.
const SYNC_WITHIN: Duration = Duration::from_millis(100);

/// How long a batch that must not be shed waits for the spool thread: longer than any working disk needs.
pub(crate) const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);
/// Pause between attempts while the queue is full.
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// What the spool thread is sent.
#[derive(Debug)]
pub(crate) enum Input {
    Cut(Cut),
    /// Kafka refused a spooled message for good: its rows are lost after all, and what it reported is reported again.
    Rejected {
        epoch: i64,
        stream: Stream,
        rows: u64,
        losses: LossCounters,
    },
    /// Nothing more comes.
    End,
}

/// Hands an input to the spool thread, waiting at most `limit` while its queue is full. Returns the input when the
/// queue stayed full, or when the spool thread has ended.
pub(crate) fn hand_over(spool: &SyncSender<Input>, mut input: Input, limit: Duration) -> Result<(), Input> {
    let since = Instant::now();
    loop {
        // The standard library's `SyncSender` has no send with a timeout.
        match spool.try_send(input) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(back)) if since.elapsed() < limit => input = back,
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => return Err(back),
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

/// Where batches go.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// Of the partitions of both topics, and of the record of the epoch.
    pub dir: PathBuf,
    /// Sizes of each partition. `fsync` is ignored: the spool thread syncs.
    pub log: LogOptions,
    /// True: the directory feeds an ingest on this machine and may have other writers; take a partition that is free.
    /// False: it is this agent's own buffer in front of Kafka.
    pub shared: bool,
}

#[derive(Debug)]
pub(crate) struct Spool {
    numbering: Numbering,
    options: SpoolOptions,
    events: TopicLog,
    critical: TopicLog,
    metrics: Metrics,
    /// When landed segments were deleted last.
    tended: Instant,
    /// The last record of the session, for epochs to come.
    session: Option<Cut>,
}

/// The log of one topic.
#[derive(Debug)]
struct TopicLog {
    at: TopicPartition,
    /// `None` after a fault, until it could be opened again.
    writer: Option<LogWriter>,
    /// The last attempt to open it again failed, and was logged.
    is_broken: bool,
}

/// Why one batch did not reach the spool.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    Numbering(#[from] EpochOutOfRange),
    #[error(transparent)]
    Clock(#[from] clock::ClockError),
    #[error(transparent)]
    Encode(#[from] wire::EncodeError),
    #[error("the epoch's numbers are used up and there is no new one")]
    Epoch(#[from] IdentityError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Spool {
    /// Opens both logs, holding them against other writers.
    pub(crate) fn open(options: SpoolOptions, numbering: Numbering, metrics: Metrics) -> Result<Self, LogError> {
        // Many small syncs are joined here: after the queue is empty, or in a little while.
        let options = SpoolOptions { log: LogOptions { fsync: Fsync::Manual, ..options.log }, ..options };
        let events = TopicLog::open(&options, topics::EVENTS)?;
        let critical = TopicLog::open(&options, topics::CRITICAL)?;
        Ok(Self { numbering, options, events, critical, metrics, tended: Instant::now(), session: None })
    }

    /// The partitions written.
    pub(crate) fn partitions(&self) -> [TopicPartition; 2] {
        [self.events.at.clone(), self.critical.at.clone()]
    }

    /// Runs until [`Input::End`] or until no sender is left; then reports the remaining losses and makes everything
    /// durable.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) {
        let mut open = true;
        while open {
            match inputs.recv_timeout(TEND_EVERY) {
                Ok(input) => open = self.take_together(input, inputs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
            self.tend();
        }
        // At the end only: a batch without rows has no number, and the centre counts one of each stream (ADR 8).
        self.tell_untold();
        self.sync();
    }

    /// Takes an input and those that are there within [`SYNC_WITHIN`], and makes them durable. False at the end.
    fn take_together(&mut self, first: Input, inputs: &Receiver<Input>) -> bool {
        let began = Instant::now();
        let mut open = self.take(first);
        // Group commit: one sync for all batches that arrive within the time.
        while open
            && began.elapsed() < SYNC_WITHIN
            && let Ok(input) = inputs.try_recv()
        {
            open = self.take(input);
        }
        self.sync();
        open
    }

    /// False at the end.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::End => return false,
            Input::Cut(cut) => {
                self.put(&cut);
                if cut.kind == RecordKind::Session {
                    self.session = Some(cut);
                }
            }
            Input::Rejected { epoch, stream, rows, losses } => {
                self.metrics.spool_drop.inc_by(rows);
                let losses = LossCounters { spool_drop: losses.spool_drop + rows, ..losses };
                if let Err(error) = self.numbering.rejected(epoch, stream, losses) {
                    tracing::error!(%error, "a refused message is not accounted for");
                }
            }
        }
        true
    }

    /// Writes one batch, or counts it as lost.
    fn put(&mut self, cut: &Cut) {
        let rows = cut.batch.num_rows() as u64;
        match self.try_put(cut) {
            Ok(None) => self.count_spooled(cut),
            Ok(Some(by)) => {
                tracing::warn!(rows, "the spool is full: {by}; a batch is dropped and counted");
                self.count_dropped(cut);
            }
            Err(error) => {
                log_dropped(rows, &error);
                self.count_dropped(cut);
            }
        }
    }

    fn count_spooled(&mut self, cut: &Cut) {
        self.metrics.spooled.inc_by(cut.batch.num_rows() as u64);
        if let Err(error) = self.numbering.spooled(cut) {
            tracing::error!(%error, "a batch is not accounted for");
        }
    }

    fn count_dropped(&mut self, cut: &Cut) {
        self.metrics.spool_drop.inc_by(cut.batch.num_rows() as u64);
        if let Err(error) = self.numbering.dropped(cut) {
            tracing::error!(%error, "a dropped batch is not accounted for");
        }
    }

    /// Writes one batch. Returns what is full when there is no room.
    fn try_put(&mut self, cut: &Cut) -> Result<Option<FullBy>, PutError> {
        if !self.numbering.has_room(cut)? {
            self.begin_epoch()?;
        }
        let beacon = clock::beacon()?;
        let draft = self.numbering.draft(cut, beacon)?;
        let message = wire::encode(&draft, self.numbering.next_seq(cut.stream)?, &cut.batch)?;
        let lane = match cut.stream.lane() {
            Lane::Events => &mut self.events,
            Lane::Critical => &mut self.critical,
        };
        let full = lane.append(&self.options, &draft.node, &message, beacon.wall_ns / 1_000_000)?;
        if full.is_none() {
            self.metrics.spooled_bytes.inc_by(message.len() as u64);
        }
        Ok(full)
    }

    /// Begins a new epoch after a stream has used up its numbers. To the centre it is as if the agent had been started
    /// again.
    fn begin_epoch(&mut self) -> Result<(), PutError> {
        let ended = self.numbering.identity().epoch;
        // Recorded before it is used: a crash in between leaves an epoch without rows, never one that is used twice.
        let epoch = take_epoch(&self.options.dir, &self.numbering.identity().boot_id, clock::boot_ns()?)?;
        self.numbering.renew(epoch)?;
        tracing::info!(ended, epoch, "a stream has used up its numbers: a new epoch begins");
        if let Some(session) = self.session.clone() {
            // An epoch has its own session record. A new epoch has room for it: this does not recur.
            self.put(&session);
        }
        Ok(())
    }

    fn sync(&mut self) {
        for lane in [&mut self.events, &mut self.critical] {
            lane.sync();
        }
    }

    /// Deletes landed segments, at most once in [`TEND_EVERY`].
    fn tend(&mut self) {
        if self.tended.elapsed() < TEND_EVERY {
            return;
        }
        self.tended = Instant::now();
        let mut bytes = 0;
        for lane in [&mut self.events, &mut self.critical] {
            bytes += lane.tend(&self.options);
        }
        self.metrics.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// An empty batch for every stream that still has losses to report.
    fn tell_untold(&mut self) {
        for stream in self.numbering.unreported() {
            let kind = stream.kind();
            let batch = RecordBatch::new_empty(kind.wire_schema());
            self.put(&Cut { stream, kind, batch, losses: LossCounters::default() });
        }
    }
}

impl TopicLog {
    fn open(options: &SpoolOptions, topic: &str) -> Result<Self, LogError> {
        let writer = if options.shared {
            claim_partition(&options.dir, topic, options.log)?
        } else {
            // One fixed partition: what the last run has left there is shipped by this one.
            LogWriter::open(&options.dir, &TopicPartition::new(topic, 0), options.log)?
        };
        let cut_bytes = writer.recovery().cut_bytes;
        if cut_bytes > 0 {
            tracing::info!(partition = %writer.partition(), cut_bytes, "cut an unfinished record left by a crash");
        }
        Ok(Self { at: writer.partition().clone(), writer: Some(writer), is_broken: false })
    }

    /// Appends a message; frees room, or opens the log again, at most once. Returns what is full when there is no room.
    fn append(
        &mut self,
        options: &SpoolOptions,
        node: &str,
        message: &Bytes,
        now_ms: i64,
    ) -> Result<Option<FullBy>, LogError> {
        let writer = self.writer(options)?;
        let key = Some(node.as_bytes());
        match writer.append(key, message, now_ms) {
            Ok(Appended::At(_)) => return Ok(None),
            Ok(Appended::Full { by, .. }) => {
                // What has landed since the last deletion may make room. One retry: without freed bytes it would fail
                // the same.
                if writer.delete_landed()? == 0 {
                    return Ok(Some(by));
                }
            }
            // The record is at fault, not the log: a second attempt would end the same.
            Err(error @ LogError::TooLarge { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the spool log is opened again");
                self.writer = None;
            }
        }
        Ok(match self.writer(options)?.append(key, message, now_ms)? {
            Appended::At(_) => None,
            Appended::Full { by, .. } => Some(by),
        })
    }

    fn writer(&mut self, options: &SpoolOptions) -> Result<&mut LogWriter, LogError> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => Ok(none.insert(LogWriter::open(&options.dir, &self.at, options.log)?)),
        }
    }

    fn sync(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(LogWriter::sync) {
            // fsync(2): after a failure the state of the written pages is unknown, and a second sync may report success
            // without them. The log is opened again, which reads what the file holds.
            tracing::error!(error = &error as &dyn std::error::Error, "the spool log could not be made durable");
            self.writer = None;
        }
    }

    /// Returns the size of the log.
    fn tend(&mut self, options: &SpoolOptions) -> u64 {
        let was_broken = std::mem::take(&mut self.is_broken);
        let writer = match self.writer(options) {
            Ok(writer) => writer,
            Err(error) => {
                self.is_broken = true;
                if !was_broken {
                    log_broken(&error);
                }
                return 0;
            }
        };
        if let Err(error) = writer.delete_landed() {
            tracing::warn!(error = &error as &dyn std::error::Error, "landed segments could not be deleted");
        }
        writer.bytes()
    }
}

fn log_dropped(rows: u64, error: &PutError) {
    tracing::error!(rows, error = error as &dyn std::error::Error, "a batch is dropped and counted");
}

fn log_broken(error: &LogError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, "the spool log cannot be opened again: what comes is dropped and counted");
}

#[cfg(test)]
mod tests;
