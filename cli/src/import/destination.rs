//! Where imported messages go: the spool of an embedded lake, or Kafka.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use bytes::Bytes;
use event_schema::batch::Value;
use event_schema::identity::StreamId;
use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use event_schema::stream::Stream;
use event_schema::topics;
use futures::TryStreamExt;
use ingest::IngestError;
use lake::{HeadError, Lake, ReadError};
use service_kit::clock::{Clock, SystemClock};
use service_kit::run::{Drain, note};
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer, Rejection, Sent};
use stream::log::{Appended, Fsync, FullBy, LogError, LogOptions, LogWriter, claim_partition, recover_partitions};
use stream::{Source, SourceError, SourceEvent};
use tables::seen::Seen;

use super::parcel::is_recording;
use super::settle::{COMPARED, Landed, Sample, content_of};
use crate::embedded::{DataDir, EmbeddedError, ImportLock};

/// How often to look whether a running `up` has landed the messages.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one wait for Kafka may take before the drain is looked at again.
const ACKNOWLEDGE_STEP: Duration = Duration::from_millis(100);
/// How long Kafka may take to acknowledge one full queue.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);

/// Why messages could not be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestinationError {
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("the spool cannot be written")]
    Spool(#[from] LogError),
    #[error("the spool {} is full at {bytes} bytes: {by}; `causeway up` on the same directory lands what it holds", path.display())]
    Full { path: PathBuf, bytes: u64, by: FullBy },
    #[error("the spool cannot be read")]
    Source(#[from] SourceError),
    #[error("the lake cannot be read")]
    Read(#[from] ReadError),
    #[error("the messages are in the spool but could not be landed; run the import again")]
    Land(#[source] IngestError),
    #[error(
        "interrupted: what was sent lands with the next `causeway up` or import; import again for the rest, nothing lands twice"
    )]
    Interrupted,
    #[error("kafka cannot be written")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("kafka did not acknowledge {missing} messages within {} s{}: import again, nothing lands twice", ACKNOWLEDGE_WITHIN.as_secs(), reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Unacknowledged { missing: usize, reason: Option<String> },
}

/// Takes messages in order.
#[derive(Debug)]
pub(crate) enum Destination {
    Embedded(Box<Embedded>),
    Kafka(Box<ToKafka>),
}

#[derive(Debug)]
pub(crate) struct Embedded {
    dir: DataDir,
    lake: Lake,
    /// Claimed with the first message, so that an import with nothing new leaves no trace.
    writer: Option<LogWriter>,
    kinds: BTreeSet<RecordKind>,
    /// Another import would not see rows that are on their way.
    _lock: ImportLock,
}

#[derive(Debug)]
pub(crate) struct ToKafka {
    producer: KafkaProducer,
    drain: Drain,
    sent: usize,
    acknowledged: usize,
}

/// How partitions of the spool are written: one sync at the end, since nothing is read before it.
fn spool_options() -> LogOptions {
    LogOptions { fsync: Fsync::Manual, ..LogOptions::default() }
}

impl Destination {
    pub(crate) async fn embedded(dir: DataDir, drain: &Drain) -> Result<Self, DestinationError> {
        let import = wait_for_turn(&dir, drain).await?;
        let lake = dir.open().await?;
        // What an interrupted import left in the spool lands first, so that the ledger is complete. What a killed one
        // had not synced is seen once its partition was opened.
        recover_partitions(&dir.spool(), topics::EVENTS, spool_options())?;
        for end in ends(&dir)? {
            land_up_to(&dir, &lake, &BTreeSet::new(), &end, drain).await?;
        }
        Ok(Self::Embedded(Box::new(Embedded { dir, lake, writer: None, kinds: BTreeSet::new(), _lock: import })))
    }

    pub(crate) fn kafka(config: &KafkaConfig, drain: &Drain) -> Result<Self, DestinationError> {
        let producer = KafkaProducer::open(config)?;
        Ok(Self::Kafka(Box::new(ToKafka { producer, drain: drain.clone(), sent: 0, acknowledged: 0 })))
    }

    /// What landed so far of recordings. Kafka cannot say: there the centre drops what it has seen.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn landed(&self) -> Result<Seen, DestinationError> {
        match self {
            Self::Embedded(embedded) => Ok(landed(&embedded.lake).await?),
            Self::Kafka(_) => Ok(Seen::new()),
        }
    }

    pub(crate) fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        match self {
            Self::Embedded(embedded) => embedded.append(kind, node, message),
            Self::Kafka(kafka) => kafka.send(node, message),
        }
    }

    /// Lands what was sent so far, so that it can be read. Kafka lands by itself.
    ///
    /// # Errors
    /// The spool or the lake failed, or the import was interrupted.
    pub(crate) async fn land(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        match self {
            Self::Embedded(embedded) => embedded.land(drain).await,
            Self::Kafka(_) => Ok(()),
        }
    }

    /// What the events that landed under the keys of a sample hold. Kafka cannot say.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn landed_events(&self, sample: &Sample) -> Result<Landed, DestinationError> {
        match self {
            Self::Embedded(embedded) => Ok(landed_events(&embedded.lake, sample).await?),
            Self::Kafka(_) => Ok(Landed::new()),
        }
    }

    /// Keeps what was sent so far, for an import that ends here: what was appended to the spool is shown to its readers, so that
    /// the next `up` or import lands it. Kafka has its own copy.
    ///
    /// # Errors
    /// The spool cannot be synced.
    pub(crate) fn keep(&mut self) -> Result<(), DestinationError> {
        match self {
            Self::Embedded(embedded) => embedded.keep(),
            Self::Kafka(_) => Ok(()),
        }
    }

    /// Returns once everything sent is landed (embedded) or acknowledged (Kafka).
    pub(crate) async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        match self {
            Self::Embedded(embedded) => embedded.finish(drain).await,
            Self::Kafka(kafka) => tokio::task::block_in_place(|| kafka.finish()),
        }
    }
}

impl Embedded {
    fn append(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(claim_partition(&self.dir.spool(), topics::EVENTS, spool_options())?),
        };
        self.kinds.insert(kind);
        match writer.append(Some(node.as_bytes()), message, SystemClock.now_ms())? {
            Appended::At(_) => Ok(()),
            Appended::Full { bytes, by } => Err(DestinationError::Full { path: self.dir.spool(), bytes, by }),
        }
    }

    async fn land(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.sync()?;
        let end = (writer.partition().clone(), writer.watermarks().high);
        land_up_to(&self.dir, &self.lake, &self.kinds, &end, drain).await
    }

    fn keep(&mut self) -> Result<(), DestinationError> {
        Ok(self.writer.as_mut().map_or(Ok(()), LogWriter::sync)?)
    }

    async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        self.land(drain).await?;
        if let Some(writer) = &mut self.writer {
            writer.delete_landed()?;
        }
        Ok(())
    }
}

/// A partition and the offset behind its last message.
type End = (TopicPartition, NextOffset);

/// Waits until no other import is at work on the directory.
async fn wait_for_turn(dir: &DataDir, drain: &Drain) -> Result<ImportLock, DestinationError> {
    let mut is_told = false;
    loop {
        if let Some(lock) = dir.try_lock_import()? {
            return Ok(lock);
        }
        if !std::mem::replace(&mut is_told, true) {
            note(&format!("waiting for another import into {}", dir.path().display()));
        }
        pause(drain).await?;
    }
}

async fn pause(drain: &Drain) -> Result<(), DestinationError> {
    tokio::select! {
        () = drain.cancelled() => Err(DestinationError::Interrupted),
        () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
    }
}

/// Where the partitions of the spool end now.
fn ends(dir: &DataDir) -> Result<Vec<End>, DestinationError> {
    let mut spool = dir.source();
    let SourceEvent::Assigned(found) = spool.poll(Duration::ZERO, 0)? else { return Ok(Vec::new()) };
    found.into_iter().map(|at| Ok((at.clone(), spool.watermarks(&at)?.high))).collect()
}

/// Returns once the spool has landed up to `end`: by our own hand, or by that of an `up` that is running on the directory.
async fn land_up_to(
    dir: &DataDir,
    lake: &Lake,
    kinds: &BTreeSet<RecordKind>,
    end: &End,
    drain: &Drain,
) -> Result<(), DestinationError> {
    while !has_passed(lake, kinds, end).await? {
        if let Some(lock) = dir.try_lock()? {
            dir.land(lake, &lock, drain.clone()).await.map_err(DestinationError::Land)?;
        }
        pause(drain).await?;
    }
    Ok(())
}

/// Whether every table that gets rows of these kinds holds the log up to `end`.
async fn has_passed(lake: &Lake, kinds: &BTreeSet<RecordKind>, end: &End) -> Result<bool, ReadError> {
    if end.1 == NextOffset::default() {
        return Ok(true);
    }
    let silver = kinds.iter().map(|kind| tables::silver::name(*kind));
    let names = silver.map(|name| (name.namespace, name.name)).chain([("bronze", "messages"), ("ops", "ledger")]);
    for (namespace, name) in names {
        let offsets = match lake.table(namespace, name).offsets().await {
            Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(false),
            offsets => offsets?,
        };
        if offsets.get(&end.0).is_none_or(|next| *next < end.1) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which rows of recordings have landed.
async fn landed(lake: &Lake) -> Result<Seen, ReadError> {
    let mut seen = Seen::new();
    let snapshot = match lake.table("ops", "ledger").snapshot().await {
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(seen),
        snapshot => snapshot?,
    };
    let columns = ["node", "boot_id", "epoch", "stream", "first_seq", "rows"];
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        note_landed(&batch, &mut seen);
    }
    Ok(seen)
}

/// A message of which a part had landed before leaves all of it landed.
fn note_landed(batch: &RecordBatch, seen: &mut Seen) {
    let [nodes, boot_ids] = [0, 1].map(|at| batch.column(at).as_string::<i32>());
    let [epochs, first_seqs, rows] = [2, 4, 5].map(|at| batch.column(at).as_primitive::<Int64Type>().values());
    let streams = batch.column(3).as_primitive::<Int32Type>().values();
    for row in (0..batch.num_rows()).filter(|row| is_recording(boot_ids.value(*row))) {
        // A stream that this build does not know has no row that it could import.
        let Some(stream) = Stream::from_number(streams[row]) else { continue };
        let stream =
            StreamId { node: nodes.value(row).into(), boot_id: boot_ids.value(row).into(), epoch: epochs[row], stream };
        seen.note(stream, first_seqs[row], first_seqs[row].saturating_add(rows[row]));
    }
}

/// What landed events with the keys of a sample hold.
async fn landed_events(lake: &Lake, sample: &Sample) -> Result<Landed, ReadError> {
    let mut landed = Landed::new();
    // Most rows of the table have none of these numbers, and then need no key to be made.
    let numbers: HashSet<i64> = sample.keys().map(|(_, seq)| *seq).collect();
    let snapshot = match lake.table("silver", "events").snapshot().await {
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(landed),
        snapshot => snapshot?,
    };
    let columns: Vec<&str> = ["node", "boot_id", "epoch", "stream", "seq"].into_iter().chain(COMPARED).collect();
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let [nodes, boot_ids] = [0, 1].map(|at| batch.column(at).as_string::<i32>());
        let [epochs, seqs] = [2, 4].map(|at| batch.column(at).as_primitive::<Int64Type>());
        let streams = batch.column(3).as_primitive::<Int32Type>();
        let is_wanted = |row: &usize| numbers.contains(&seqs.value(*row)) && is_recording(boot_ids.value(*row));
        for row in (0..batch.num_rows()).filter(is_wanted) {
            let Some(stream) = Stream::from_number(streams.value(row)) else { continue };
            let stream = StreamId {
                node: nodes.value(row).into(),
                boot_id: boot_ids.value(row).into(),
                epoch: epochs.value(row),
                stream,
            };
            let key = (stream, seqs.value(row));
            if sample.contains_key(&key) {
                let cells: Vec<Value> = batch.columns()[5..].iter().map(|column| cell(column, row)).collect();
                landed.insert(key, content_of(&cells.iter().collect::<Vec<_>>()));
            }
        }
    }
    Ok(landed)
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int32 => Value::Long(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Long(column.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        _ => Value::Null,
    }
}

impl ToKafka {
    fn send(&mut self, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        while self.producer.send(topics::EVENTS, Some(node.as_bytes()), message, &[], self.sent)? == Sent::Full {
            self.acknowledge()?;
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits for the next acknowledgement.
    fn acknowledge(&mut self) -> Result<(), DestinationError> {
        let until = Instant::now() + ACKNOWLEDGE_WITHIN;
        loop {
            if let Some(delivery) = self.producer.delivery(ACKNOWLEDGE_STEP) {
                delivery.result?;
                self.acknowledged += 1;
                return Ok(());
            }
            if self.drain.is_cancelled() {
                return Err(DestinationError::Interrupted);
            }
            if Instant::now() >= until {
                let missing = self.sent - self.acknowledged;
                return Err(DestinationError::Unacknowledged { missing, reason: self.producer.last_error() });
            }
        }
    }

    fn finish(&mut self) -> Result<(), DestinationError> {
        while self.acknowledged < self.sent {
            self.acknowledge()?;
        }
        Ok(())
    }
}
