//! The destination of an import into an embedded lake: its spool. What was appended is landed by a running `up`, or
//! else here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::position::{Message, NextOffset, TopicPartition};
use event_schema::topics;
use ingest::IngestError;
use lake::{Lake, ReadError};
use recordings::landed::has_passed;
use recordings::{Destination, DestinationError, Landed, Sample};
use service_kit::clock::{Clock, SystemClock};
use service_kit::run::{Drain, note};
use stream::log::{
    Appended, Fsync, FullBy, LogError, LogOptions, LogWriter, Record, claim_partition, recover_partitions,
};
use stream::{Source, SourceError, SourceEvent};
use tables::seen::Seen;

use crate::embedded::{DataDir, EmbeddedError, ImportLock};

/// How often to look whether a running `up` has landed the messages.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why messages could not be landed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("the spool cannot be written")]
    Write(#[from] LogError),
    #[error("the spool {} is full at {bytes} bytes: {by}; `causeway up` on the same directory lands what it holds", path.display())]
    Full { path: PathBuf, bytes: u64, by: FullBy },
    #[error("the spool cannot be read")]
    Source(#[from] SourceError),
    #[error("the lake cannot be read")]
    Read(#[from] ReadError),
    #[error("the messages are in the spool but could not be landed; give the same command again")]
    Land(#[source] IngestError),
    #[error("interrupted")]
    Interrupted,
}

impl From<SpoolError> for DestinationError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Interrupted => Self::Interrupted,
            SpoolError::Read(error) => Self::Read(error),
            error => Self::Other(Box::new(error)),
        }
    }
}

/// Appends messages to the spool of a directory, and lands them.
#[derive(Debug)]
pub(crate) struct ToSpool {
    dir: DataDir,
    lake: Lake,
    /// Claimed with the first message, so that an import with nothing new writes nothing.
    writer: Option<LogWriter>,
    kinds: BTreeSet<RecordKind>,
    /// Keeps other imports out: what has landed is read once, so that they would not see the rows of this one and send
    /// them too.
    _lock: ImportLock,
}

/// How partitions of the spool are written: one sync at the end, since nothing is read before it.
fn spool_options() -> LogOptions {
    LogOptions { fsync: Fsync::Manual, ..LogOptions::default() }
}

impl ToSpool {
    /// Returns once no other import into the directory is running, and what its spool held has landed.
    pub(crate) async fn open(dir: DataDir, drain: &Drain) -> Result<Self, SpoolError> {
        let lock = wait_for_turn(&dir, drain).await?;
        let lake = dir.open().await?;
        // What an interrupted import left in the spool lands first, so that `ops.ledger` has every row that was ever
        // sent. Records above the high watermark, which a killed import had not synced, become visible when their
        // partition is opened.
        recover_partitions(&dir.spool(), topics::EVENTS, spool_options())?;
        // The ends of now: an agent goes on appending, and without a fixed end the loop might never return.
        for end in ends(&dir)? {
            land_up_to(&dir, &lake, &BTreeSet::new(), &end, drain).await?;
        }
        Ok(Self { dir, lake, writer: None, kinds: BTreeSet::new(), _lock: lock })
    }

    /// Appends a message that was read before, with its headers.
    pub(crate) fn replay(&mut self, kind: RecordKind, message: &Message) -> Result<(), SpoolError> {
        let Message { key, payload, headers, .. } = message;
        // The time of now: that of the log is when the message was written into it.
        let timestamp_ms = SystemClock.now_ms();
        self.append(kind, Record { timestamp_ms, key: key.as_deref(), payload, headers })
    }

    /// Returns once everything that was appended has landed.
    pub(crate) async fn finish_landing(&mut self, drain: &Drain) -> Result<(), SpoolError> {
        // In this order: segments are deleted below the offset that ingest has reported as landed (`landed` file).
        self.land_appended(drain).await?;
        self.delete_landed()
    }

    fn append(&mut self, kind: RecordKind, record: Record<'_>) -> Result<(), SpoolError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            // The agent of a running `up` holds its partition: a free one or a new one is taken.
            None => self.writer.insert(claim_partition(&self.dir.spool(), topics::EVENTS, spool_options())?),
        };
        // Each kind has a silver table, and each table its own offsets: `land_up_to` waits for these tables.
        self.kinds.insert(kind);
        match writer.append_record(record)? {
            Appended::At(_) => Ok(()),
            Appended::Full { bytes, by } => Err(SpoolError::Full { path: self.dir.spool(), bytes, by }),
        }
    }

    async fn land_appended(&mut self, drain: &Drain) -> Result<(), SpoolError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        // Synced first: the end of a writer is the high watermark of its readers only then.
        writer.sync()?;
        let end = (writer.partition().clone(), writer.watermarks().high);
        land_up_to(&self.dir, &self.lake, &self.kinds, &end, drain).await
    }

    /// Makes what was appended durable and visible to readers.
    pub(crate) fn sync(&mut self) -> Result<(), SpoolError> {
        Ok(self.writer.as_mut().map_or(Ok(()), LogWriter::sync)?)
    }

    fn delete_landed(&mut self) -> Result<(), SpoolError> {
        if let Some(writer) = &mut self.writer {
            writer.delete_landed()?;
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for ToSpool {
    async fn landed(&mut self) -> Result<Seen, DestinationError> {
        Ok(recordings::landed::rows(&self.lake).await?)
    }

    fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        let key = Some(node.as_bytes());
        Ok(self.append(kind, Record { timestamp_ms: SystemClock.now_ms(), key, payload: message, headers: &[] })?)
    }

    async fn land(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        Ok(self.land_appended(drain).await?)
    }

    async fn landed_events(&mut self, sample: &Sample) -> Result<Landed, DestinationError> {
        Ok(recordings::landed::events(&self.lake, sample).await?)
    }

    fn keep(&mut self) -> Result<(), DestinationError> {
        Ok(self.sync()?)
    }

    async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        Ok(self.finish_landing(drain).await?)
    }
}

/// A partition and the offset behind its last message.
type End = (TopicPartition, NextOffset);

/// Waits until no other import into the directory is running.
async fn wait_for_turn(dir: &DataDir, drain: &Drain) -> Result<ImportLock, SpoolError> {
    let mut is_noted = false;
    loop {
        if let Some(lock) = dir.try_lock_import()? {
            return Ok(lock);
        }
        if !std::mem::replace(&mut is_noted, true) {
            note(&format!("waiting for another import into {}", dir.path().display()));
        }
        pause(drain).await?;
    }
}

async fn pause(drain: &Drain) -> Result<(), SpoolError> {
    tokio::select! {
        () = drain.cancelled() => Err(SpoolError::Interrupted),
        () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
    }
}

/// Where the partitions of the spool end now.
fn ends(dir: &DataDir) -> Result<Vec<End>, SpoolError> {
    let mut spool = dir.source();
    // The first poll of a spool announces its partitions and reads nothing. Anything else: there are none.
    let SourceEvent::Assigned(found) = spool.poll(Duration::ZERO, 0)? else { return Ok(Vec::new()) };
    found.into_iter().map(|at| Ok((at.clone(), spool.watermarks(&at)?.high))).collect()
}

/// Returns once the spool has landed up to `end`: here, or by an `up` that is running on the directory.
async fn land_up_to(
    dir: &DataDir,
    lake: &Lake,
    kinds: &BTreeSet<RecordKind>,
    end: &End,
    drain: &Drain,
) -> Result<(), SpoolError> {
    while !has_passed(lake, kinds, &end.0, end.1).await? {
        // Tried anew each time: a running `up` that ends meanwhile leaves the rest to this process.
        if let Some(lock) = dir.try_lock()? {
            dir.land(lake, &lock, drain.clone()).await.map_err(SpoolError::Land)?;
        }
        pause(drain).await?;
    }
    Ok(())
}
