//! The task that holds ingest together: takes what the reader brings, closes a batch every interval, lands it in all tables at
//! once while the next is being collected, and hands partitions over when the group says so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};
use lake::{EnsureError, Lake, ReadError, TableReader};
use service_kit::clock::Clock;
use service_kit::run::{Drain, Fatal};
use stream::Source;
use stream::kafka::KafkaProducer;
use tables::arrival::Arrival;
use tables::seen::Seen;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use crate::dead_letter::DeadLetters;
use crate::hand::{Batch, Budget, Hand};
use crate::metrics::{Metrics, PartitionLabel};
use crate::reader::{self, FromLog, Mark, Position, ReaderError, ToLog};
use crate::recover::{self, RecoverError};
use crate::sink::{Landing, Sink, SinkError};

/// `causeway.log.<topic>/<partition>` of `bronze.messages`: offset, identity and fingerprint of the log it was filled from.
const MARK_PREFIX: &str = "causeway.log.";

/// How long closing the log may take.
const CLOSE: Duration = Duration::from_secs(5);

/// How ingest behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A batch is landed when it is this old.
    pub commit_interval: Duration,
    /// A table without new rows is committed after this time, so that recovery has little to read again.
    pub idle_commit_interval: Duration,
    /// Bytes read and not landed, above which the log is paused.
    pub memory_bytes: u64,
    pub until: Until,
}

/// When ingest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is drained.
    Drained,
    /// When it has landed what the log held when it began to read.
    CaughtUp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            idle_commit_interval: Duration::from_secs(10),
            memory_bytes: 256 << 20,
            until: Until::Drained,
        }
    }
}

/// What a run has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub messages: u64,
    pub rows: u64,
    pub duplicate_rows: u64,
    pub rejected: u64,
    pub batches: u64,
}

/// Why ingest ended.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("a table could not be created or is not ours to write")]
    Table(#[from] EnsureError),
    #[error("bronze.messages cannot be read")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("what was seen before could not be rebuilt")]
    Recover(#[from] RecoverError),
    #[error("the thread that reads the log ended without saying why")]
    ReaderGone,
    #[error("landing a batch did not finish")]
    Flush(#[source] tokio::task::JoinError),
}

impl Fatal for IngestError {}

/// Ingest, ready to run.
#[derive(Debug)]
pub struct Ingest {
    sinks: Vec<Sink>,
    bronze: TableReader,
    ledger: TableReader,
    options: Options,
    clock: Arc<dyn Clock>,
    dead_letters: DeadLetters,
    metrics: Metrics,
}

impl Ingest {
    /// Creates the tables that are missing and checks those that are there.
    ///
    /// # Errors
    /// When the catalog or store cannot be reached, or a table of that name has another schema.
    pub async fn open(
        lake: &Lake,
        options: Options,
        clock: Arc<dyn Clock>,
        dead_letters: Option<KafkaProducer>,
        metrics: Metrics,
    ) -> Result<Self, IngestError> {
        let mut sinks = Vec::new();
        for table in tables::registry::all() {
            sinks.push(Sink::new(table, lake.ensure_table(&table.def).await?, metrics.clone()));
        }
        let dead_letters = DeadLetters::new(dead_letters, metrics.clone());
        let (bronze, ledger) = (lake.table("bronze", "messages"), lake.table("ops", "ledger"));
        Ok(Self { sinks, bronze, ledger, options, clock, dead_letters, metrics })
    }

    /// Reads `source` until drained or caught up. Everything read is landed before it returns without an error.
    ///
    /// # Errors
    /// See [`IngestError`]: what did not land is still in the log.
    pub async fn run(self, source: Box<dyn Source>, drain: Drain) -> Result<Summary, IngestError> {
        let budget = Budget::new(self.options.memory_bytes);
        let (commands, log, reader) = reader::spawn(source, budget.clone())?;
        let run = Run {
            sinks: Some(self.sinks),
            bronze: self.bronze,
            ledger: self.ledger,
            options: self.options,
            clock: self.clock,
            dead_letters: self.dead_letters,
            metrics: self.metrics,
            budget,
            commands,
            hand: Hand::default(),
            flush: None,
            partitions: BTreeMap::new(),
            seen: HashMap::new(),
            behind_since: None,
            summary: Summary::default(),
        };
        let ended = run.to_end(log, drain).await;
        // A member that leaves says so to its group, or the others would wait for its session to end.
        let closed = tokio::task::spawn_blocking(move || reader.join());
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("the log did not close in time");
        }
        ended
    }
}

/// A partition of ours.
#[derive(Debug)]
struct Reading {
    /// The next message expected of the reader.
    next: NextOffset,
    /// Fingerprint of the last message read.
    fingerprint: Option<u32>,
    /// Absent until the reader has begun.
    log: Option<OpenLog>,
}

#[derive(Debug)]
struct OpenLog {
    identity: String,
    /// Where reading is caught up.
    high: NextOffset,
}

type Flushed = Result<(Vec<Sink>, u64), SinkError>;

struct Run {
    /// Absent while a batch lands: the flush has them.
    sinks: Option<Vec<Sink>>,
    bronze: TableReader,
    ledger: TableReader,
    options: Options,
    clock: Arc<dyn Clock>,
    dead_letters: DeadLetters,
    metrics: Metrics,
    budget: Budget,
    commands: Sender<ToLog>,
    hand: Hand,
    flush: Option<JoinHandle<Flushed>>,
    partitions: BTreeMap<TopicPartition, Reading>,
    seen: HashMap<TopicPartition, Seen>,
    /// Since when some table has not been committed up to what was read.
    behind_since: Option<Instant>,
    summary: Summary,
}

impl Run {
    async fn to_end(mut self, mut log: Receiver<FromLog>, drain: Drain) -> Result<Summary, IngestError> {
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                done = wait(&mut self.flush), if self.flush.is_some() => self.landed(done)?,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() && self.flush.is_none() => {
                    let is_quiet = self.hand.opened().is_none();
                    self.land(if is_quiet { Duration::ZERO } else { self.options.idle_commit_interval });
                }
                event = log.recv() => {
                    let is_idle = matches!(event, Some(FromLog::Idle));
                    self.take(event.ok_or(IngestError::ReaderGone)?).await?;
                    if is_idle && self.is_caught_up() {
                        break;
                    }
                }
            }
        }
        self.settle().await?;
        // What is still in hand, and the offsets of tables that had no rows for a while.
        self.land(Duration::ZERO);
        self.settle().await?;
        Ok(self.summary)
    }

    /// When the batch in hand must be landed; with none, when tables that saw nothing of the last batches must follow.
    fn due(&self) -> Option<Instant> {
        let Some(opened) = self.hand.opened() else {
            return self.behind_since.map(|since| since + self.options.idle_commit_interval);
        };
        let is_full = self.hand.bytes() >= self.budget.batch_bytes();
        Some(if is_full { opened } else { opened + self.options.commit_interval })
    }

    fn is_caught_up(&self) -> bool {
        let all_read = || self.partitions.values().all(|p| p.log.as_ref().is_some_and(|log| p.next >= log.high));
        self.options.until == Until::CaughtUp && all_read()
    }

    async fn take(&mut self, event: FromLog) -> Result<(), IngestError> {
        match event {
            FromLog::Assigned(partitions) => self.assigned(partitions).await,
            FromLog::Revoked(partitions) => self.revoked(&partitions).await,
            FromLog::Started { at, identity, high } => {
                if let Some(reading) = self.partitions.get_mut(&at) {
                    reading.log = Some(OpenLog { identity, high });
                }
                Ok(())
            }
            FromLog::Arrivals(arrivals) => {
                arrivals.into_iter().for_each(|arrival| self.admit(arrival));
                self.metrics.in_hand_bytes.set(i64::try_from(self.budget.used_bytes()).unwrap_or(i64::MAX));
                Ok(())
            }
            FromLog::Idle => Ok(()),
            FromLog::Failed(error) => Err(error.into()),
        }
    }

    /// Finds where the tables stand on new partitions, rebuilds what was seen before that, and starts the reader there.
    async fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<(), IngestError> {
        self.settle().await?;
        for sink in self.sinks.iter_mut().flatten() {
            sink.take_over(&partitions).await?;
        }
        let ledger = self.ledger.snapshot().await?;
        let bronze = self.bronze.snapshot().await?;
        let mut positions = Vec::new();
        for at in partitions {
            let next = self.sinks.iter().flatten().map(|s| s.next(&at)).min().unwrap_or_default();
            self.seen.insert(at.clone(), recover::seen(&ledger, &at, next).await?);
            self.partitions.insert(at.clone(), Reading { next, fingerprint: None, log: None });
            self.metrics.next_offset.get_or_create(&PartitionLabel::of(&at)).set(next.0);
            let (marked, mark) =
                bronze.properties().get(&format!("{MARK_PREFIX}{at}")).and_then(|m| parse_mark(m)).unzip();
            tracing::info!(%at, offset = next.0, "reading begins");
            positions.push(Position { at, next, mark, marked: marked.unwrap_or(next) });
        }
        self.commands.send(ToLog::Start(positions)).map_err(|_| IngestError::ReaderGone)
    }

    /// What was read and has not landed belongs to the next owner; what is landing is decided by the catalog.
    async fn revoked(&mut self, partitions: &[TopicPartition]) -> Result<(), IngestError> {
        self.budget.release(self.hand.forget(partitions));
        self.settle().await?;
        for sink in self.sinks.iter_mut().flatten() {
            sink.give_up(partitions);
        }
        for at in partitions {
            tracing::info!(%at, "partition revoked");
            self.partitions.remove(at);
            self.seen.remove(at);
            self.metrics.next_offset.remove(&PartitionLabel::of(at));
        }
        Ok(())
    }

    fn admit(&mut self, arrival: Arrival) {
        let at = &arrival.message.at;
        let (Some(seen), Some(reading)) = (self.seen.get_mut(at), self.partitions.get_mut(at)) else {
            // Read before a revocation was noticed.
            self.budget.release(crate::hand::bytes_of(&arrival));
            return;
        };
        reading.next = NextOffset(arrival.message.offset + 1);
        reading.fingerprint = Some(stream::fingerprint(&arrival.message));
        let arrival = arrival.admit(seen);
        let rows = arrival.fresh_rows();
        let duplicates = arrival.header().map_or(0, |h| u64::from(h.rows)) - rows;
        self.metrics.messages.inc();
        self.metrics.payload_bytes.inc_by(arrival.message.payload.len() as u64);
        self.metrics.rows.inc_by(rows);
        self.metrics.duplicate_rows.inc_by(duplicates);
        self.summary.messages += 1;
        self.summary.rows += rows;
        self.summary.duplicate_rows += duplicates;
        if let Err(rejection) = &arrival.outcome {
            self.summary.rejected += 1;
            self.dead_letters.take(&arrival, rejection);
        }
        self.hand.add(arrival);
    }

    /// Begins to land the batch in hand, in all tables at once, each on a thread of its own: encoding is work, not waiting.
    fn land(&mut self, idle_after: Duration) {
        let Some(sinks) = self.sinks.take() else { return };
        let mut batch = self.hand.take();
        if idle_after.is_zero() {
            // Also moves tables that saw nothing of the last batches.
            batch.ends.extend(self.partitions.iter().map(|(at, reading)| (at.clone(), reading.next)));
        }
        let how = Landing { ingested_us: self.clock.now_ns().div_euclid(1_000), idle_after };
        let marks = self.marks(&batch);
        self.summary.batches += u64::from(!batch.arrivals.is_empty());
        self.flush = Some(tokio::spawn(flush(sinks, batch, marks, how)));
    }

    /// What `bronze.messages` is to remember of the logs of this batch.
    fn marks(&self, batch: &Batch) -> BTreeMap<String, String> {
        let mark = |at: &TopicPartition| {
            let reading = self.partitions.get(at)?;
            let (fingerprint, log) = (reading.fingerprint?, reading.log.as_ref()?);
            Some((format!("{MARK_PREFIX}{at}"), format!("{}:{fingerprint}:{}", reading.next, log.identity)))
        };
        batch.ends.keys().filter_map(mark).collect()
    }

    /// Waits until no batch is landing.
    async fn settle(&mut self) -> Result<(), IngestError> {
        if self.flush.is_some() {
            let done = wait(&mut self.flush).await;
            self.landed(done)?;
        }
        Ok(())
    }

    fn landed(&mut self, done: Result<Flushed, tokio::task::JoinError>) -> Result<(), IngestError> {
        self.flush = None;
        let (sinks, bytes) = done.map_err(IngestError::Flush)??;
        self.budget.release(bytes);
        let mut positions = Vec::new();
        let mut is_behind = false;
        for (at, reading) in &self.partitions {
            let next = sinks.iter().map(|s| s.next(at)).min().unwrap_or_default();
            self.metrics.next_offset.get_or_create(&PartitionLabel::of(at)).set(next.0);
            is_behind |= next < reading.next;
            positions.push((at.clone(), next));
        }
        self.behind_since = is_behind.then(Instant::now);
        self.sinks = Some(sinks);
        // The reader may be gone already when ingest is ending; its positions are a courtesy.
        let _ = self.commands.send(ToLog::Landed(positions));
        Ok(())
    }
}

async fn wait(flush: &mut Option<JoinHandle<Flushed>>) -> Result<Flushed, tokio::task::JoinError> {
    match flush {
        Some(flush) => flush.await,
        None => std::future::pending().await,
    }
}

/// Lands a batch in every table. Returns the sinks, and the bytes that are free again.
async fn flush(sinks: Vec<Sink>, batch: Batch, marks: BTreeMap<String, String>, how: Landing) -> Flushed {
    let bytes = batch.bytes;
    let (batch, marks) = (Arc::new(batch), Arc::new(marks));
    let runtime = tokio::runtime::Handle::current();
    let landing: Vec<_> = sinks
        .into_iter()
        .map(|mut sink| {
            let (batch, marks, runtime) = (Arc::clone(&batch), Arc::clone(&marks), runtime.clone());
            tokio::task::spawn_blocking(move || {
                let none = BTreeMap::new();
                let properties = if sink.name() == "bronze.messages" { &*marks } else { &none };
                runtime.block_on(sink.land(&batch, properties, how)).map(|()| sink)
            })
        })
        .collect();
    let mut sinks = Vec::with_capacity(landing.len());
    for sink in landing {
        match sink.await {
            Ok(sink) => sinks.push(sink?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok((sinks, bytes))
}

/// Reads `offset:fingerprint:identity`.
fn parse_mark(text: &str) -> Option<(NextOffset, Mark)> {
    let mut parts = text.splitn(3, ':');
    let next = NextOffset(parts.next()?.parse().ok()?);
    let fingerprint = parts.next()?.parse().ok();
    Some((next, Mark { identity: parts.next()?.to_owned(), fingerprint }))
}
