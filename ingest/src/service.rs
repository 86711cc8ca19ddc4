//! Ingest from the outside: its options, its tables opened, its run, and why it ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use event_schema::position::TopicPartition;
use lake::{CatalogError, EnsureError, Lake, TableReader};
use serde::{Deserialize, Serialize};
use service_kit::admin::{Condition, Readiness};
use service_kit::clock::Clock;
use service_kit::run::{Drain, Fatal};
use stream::Source;
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer};
use tables::registry::{Content, Table};

use crate::batch::Budget;
use crate::dead_letter::DeadLetters;
use crate::forward::Forwarder;
use crate::home::{HomeError, Residents};
use crate::landed::Tables;
use crate::metrics::Metrics;
use crate::reader::{self, ReaderError, ReaderThread, Rules};
use crate::recover::RecoverError;
use crate::retry::Retry;
use crate::room::Room;
use crate::run::Run;
use crate::sink::{Sink, SinkError};

/// How long closing the log may take.
const CLOSE: Duration = Duration::from_secs(5);

/// How ingest behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A batch is landed when it is this old.
    pub commit_interval: Duration,
    /// A table without new rows is committed after this time, so that recovery has little to read again; after twelve times
    /// this while it lies only a thousand messages behind.
    pub idle_commit_interval: Duration,
    /// Memory for messages that were read and have not landed, and for what tables make of them meanwhile: half each.
    pub memory_bytes: u64,
    pub on_gap: OnGap,
    pub on_new_log: OnNewLog,
    /// How long the tables must not move on a log that is gone until no other process lands anything of it any more, and the
    /// log that took its place is read. Zero: no other process reads the log.
    pub former_owner: Duration,
    /// How long landing what was read may take once ingest is to end.
    pub drain_limit: Duration,
    /// Messages of a partition after which what was seen of it is kept again, so that recovery reads no more of the ledger.
    pub checkpoint_every: u32,
    pub until: Until,
}

/// What to do when the log no longer holds what the tables expect next. A log that the tables have never seen may begin
/// anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// End with an error that names the offsets.
    #[default]
    Stop,
    /// Go on with the oldest message, and record in every table what is missing.
    Record,
}

/// What to do when the log under a name is another one than the tables were filled from: the topic was deleted and made anew,
/// or truncated and written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNewLog {
    /// End with an error that names both identities. Nothing of the other log has landed.
    #[default]
    Stop,
    /// Keep what has landed, and read the other log from its oldest message on under a name of its own: `topic@2`, `topic@3`.
    Follow,
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
            on_gap: OnGap::Stop,
            on_new_log: OnNewLog::Stop,
            former_owner: Duration::ZERO,
            // Below the 30 s after which Kubernetes kills.
            drain_limit: Duration::from_secs(25),
            checkpoint_every: 1 << 16,
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
    #[error("the tables to fill include none of {content:?}, which says where reading resumes")]
    Unlisted { content: Content },
    #[error("the table of agents' homes cannot be made in the catalog")]
    Homes(#[source] CatalogError),
    #[error("kafka cannot be written to")]
    Producer(#[source] KafkaError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("what was seen before could not be rebuilt")]
    Recover(#[from] RecoverError),
    #[error("the thread that reads the log ended without saying why")]
    ReaderGone,
    #[error("the reader gave offset {offset} of {at} where {expected} was expected; start again: nothing was skipped")]
    Hole { at: TopicPartition, expected: i64, offset: i64 },
    #[error("handing a batch to the tables did not finish")]
    Dispatch(#[source] tokio::task::JoinError),
    #[error("the task of a table ended without a reason")]
    TableGone,
    #[error("not everything had landed {} s after ingest began to end: it is still in the log and lands when ingest runs again", .0.as_secs())]
    Overdue(Duration),
}

impl Fatal for IngestError {}

/// Shows on `/readyz` whether the store takes objects, which no batch may be there to show for a while.
async fn prove_writable(lake: Option<Lake>, writable: &Condition) -> Infallible {
    let mut retry = Retry::new(writable);
    if let Some(lake) = lake {
        while let Err(error) = lake.store().check_writable().await {
            retry.wait("writing to the store", &error).await;
        }
    }
    drop(retry);
    std::future::pending().await
}

/// Ingest, ready to run.
#[derive(Debug)]
pub struct Ingest {
    pub(crate) sinks: Vec<Sink>,
    pub(crate) tables: Tables,
    /// Met while the log can be read.
    pub(crate) log_readable: Condition,
    lake: Lake,
    /// Met once the store has taken an object.
    writable: Condition,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dead_letters: DeadLetters,
    /// Absent where the log is the spool: an agent and an import keep to one partition there.
    pub(crate) residents: Option<Residents>,
    pub(crate) metrics: Metrics,
}

/// What ingest works with.
#[derive(Debug)]
pub struct Parts<'a> {
    pub lake: &'a Lake,
    /// The tables that messages land in, with one of messages and one ledger: `tables::registry::all()`.
    pub tables: &'static [Table],
    /// Where the log is, with the topics that are read: dead letters are written there, and messages met in another partition than
    /// theirs. `None`: the log is the spool.
    pub kafka: Option<&'a KafkaConfig>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    /// Gets a condition for each table: unmet, with the reason, while the table cannot be read or written.
    pub readiness: &'a Readiness,
}

impl Parts<'_> {
    fn reader_of(&self, content: Content) -> Result<TableReader, IngestError> {
        let table = self.tables.iter().find(|table| table.content == content);
        let name = table.ok_or(IngestError::Unlisted { content })?.def.name;
        Ok(self.lake.table(name.namespace, name.name))
    }
}

impl Ingest {
    /// Creates the tables that are missing and checks those that are there.
    ///
    /// # Errors
    /// When the catalog or store cannot be reached, or a table of that name has another schema.
    pub async fn open(parts: Parts<'_>, options: Options) -> Result<Self, IngestError> {
        let condition = |name: String| parts.readiness.condition(name, "not opened yet");
        let room = Room::new(options.memory_bytes);
        let mut sinks = Vec::new();
        for table in parts.tables {
            let landing = condition(table.def.name.to_string());
            let handle = parts.lake.ensure_table(&table.def).await?;
            sinks.push(Sink::new(table, handle, landing, room.clone(), parts.metrics.clone()));
        }
        let kafka = parts.kafka;
        let producer = kafka.map(KafkaProducer::open).transpose().map_err(IngestError::Producer)?;
        let dead_letters = DeadLetters::new(producer, parts.metrics.clone());
        let residents = match kafka {
            Some(config) => {
                let forwarder = Forwarder::new(config.clone(), condition("forward".to_owned()), parts.metrics.clone());
                let homes = parts.lake.homes().await.map_err(IngestError::Homes)?;
                Some(Residents::new(homes, Arc::new(forwarder), condition("homes".to_owned())))
            }
            None => None,
        };
        let [readable, log_readable] = ["position", "log"].map(|name| condition(name.to_owned()));
        readable.met();
        log_readable.met();
        let writable = parts.readiness.condition("store".to_owned(), "not written to yet");
        let bronze = parts.reader_of(Content::Messages)?;
        let ledger = parts.reader_of(Content::Ledger)?;
        let tables = Tables { bronze, ledger, readable };
        let lake = parts.lake.clone();
        let Parts { clock, metrics, .. } = parts;
        Ok(Self { sinks, tables, log_readable, lake, writable, options, clock, dead_letters, residents, metrics })
    }

    /// Reads `source` until drained or caught up. Everything read is landed before it returns without an error.
    ///
    /// # Errors
    /// See [`IngestError`]: what did not land is still in the log.
    pub async fn run(self, source: Box<dyn Source>, drain: Drain) -> Result<Summary, IngestError> {
        let budget = Budget::new(self.options.memory_bytes);
        let rules = Rules { on_gap: self.options.on_gap, on_new_log: self.options.on_new_log };
        let ReaderThread { commands, events, thread } =
            reader::spawn(source, budget.clone(), Arc::clone(&self.clock), rules, self.log_readable.clone())?;
        let limit = self.options.drain_limit;
        let overdue = async {
            drain.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        // A run that ends once it has caught up has no readiness probe, and would leave the object when it ends meanwhile.
        let lake = (self.options.until == Until::Drained).then(|| self.lake.clone());
        let writable = self.writable.clone();
        let ended = tokio::select! {
            ended = Run::new(self, budget, commands, drain.clone()).run_to_end(events) => ended,
            () = overdue => Err(IngestError::Overdue(limit)),
            never = prove_writable(lake, &writable) => match never {},
        };
        // A member that leaves says so to its group, or the others would wait for its session to end. (One with an
        // instance id does not: it is expected back, with the same partitions.)
        let closed = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("the log did not close in time");
        }
        ended
    }
}
