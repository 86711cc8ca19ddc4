//! The entry points of ingest: opening its tables, and running it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use lake::{Lake, TableReader};
use objects::Store;
use service_kit::admin::{Condition, Readiness};
use service_kit::clock::Clock;
use service_kit::run::Drain;
use stream::Source;
use stream::kafka::{KafkaConfig, KafkaProducer};
use tables::registry::{Content, Table};
use tokio::task::JoinHandle;

use crate::batch::Budget;
use crate::complete::Completer;
use crate::dead_letter::DeadLetters;
use crate::error::IngestError;
use crate::forward::Forwarder;
use crate::home::Residents;
use crate::landed::Tables;
use crate::metrics::Metrics;
use crate::options::{Options, Until};
use crate::reader::{self, ReaderThread, Rules};
use crate::retry::Retry;
use crate::room::Room;
use crate::run::{Opened, Run, Summary};
use crate::sink::Sink;

/// How long closing the log may take.
const CLOSE: Duration = Duration::from_secs(5);

/// Shows on `/readyz` whether the store takes objects: there may be no batch for a while to show it.
async fn prove_writable(lake: Option<Lake>, writable: &Condition) -> Infallible {
    let mut retry = Retry::new(writable);
    if let Some(lake) = lake {
        while let Err(error) = lake.store().check_writable().await {
            retry.wait("writing to the store", &error).await;
        }
    }
    // Dropped, it meets the condition.
    drop(retry);
    std::future::pending().await
}

/// Ingest, ready to run.
#[derive(Debug)]
pub struct Ingest {
    opened: Opened,
    /// Met while the log can be read.
    log_readable: Condition,
    lake: Lake,
    /// Met once the store has taken an object.
    writable: Condition,
    /// The task that tags committed files; `None` where objects have no tags.
    tagging: Option<JoinHandle<()>>,
}

/// What ingest works with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Where the tables are.
    pub lake: &'a Lake,
    /// The tables that messages land in, with one of messages and one ledger: `tables::registry::all()`.
    pub tables: &'static [Table],
    /// Where the log is, with the topics that are read: dead letters are written there, and messages met in another
    /// partition than theirs. `None`: the log is the spool.
    pub kafka: Option<&'a KafkaConfig>,
    /// The wall time that messages get when they are read.
    pub clock: Arc<dyn Clock>,
    /// The counters of ingest, registered by the caller.
    pub metrics: Metrics,
    /// Gets a condition for each table: unmet, with the reason, while the table cannot be read or written.
    pub readiness: &'a Readiness,
}

impl Parts<'_> {
    /// A condition of readiness that is unmet for now.
    fn condition(&self, name: String) -> Condition {
        self.readiness.condition(name, "not opened yet")
    }

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
        let room = Room::new(options.memory_bytes);
        let mut sinks = Vec::new();
        // Objects in a directory have no tags, and no rule moves them.
        let store = Some(parts.lake.store().clone()).filter(Store::supports_tags);
        let tagging = store.map(|store| Completer::start(store, parts.metrics.clone()));
        let completer = tagging.as_ref().map(|(completer, _)| completer);
        for table in parts.tables {
            let landing = parts.condition(table.def.name.to_string());
            // Not retried: at the start a wrong address, password or bucket is reported at once (ADR 12).
            let handle = parts.lake.ensure_table(&table.def).await?;
            let sink = Sink::new(table, handle, landing, room.clone(), parts.metrics.clone());
            sinks.push(sink.completing(completer));
        }
        let kafka = parts.kafka;
        let producer = kafka.map(KafkaProducer::open).transpose().map_err(IngestError::Producer)?;
        let dead_letters = DeadLetters::new(producer, parts.metrics.clone());
        // In a spool an agent and an import keep to one partition: there is nothing to forward.
        let residents = match kafka {
            Some(config) => {
                let forwarder =
                    Forwarder::new(config.clone(), parts.condition("forward".to_owned()), parts.metrics.clone());
                let homes = parts.lake.homes().await.map_err(IngestError::Homes)?;
                Some(Residents::new(homes, Arc::new(forwarder), parts.condition("homes".to_owned())))
            }
            None => None,
        };
        let readable = parts.condition("position".to_owned());
        let log_readable = parts.condition("log".to_owned());
        readable.met();
        log_readable.met();
        let writable = parts.readiness.condition("store".to_owned(), "not written to yet");
        let bronze = parts.reader_of(Content::Messages)?;
        let ledger = parts.reader_of(Content::Ledger)?;
        let tables = Tables { bronze, ledger, readable };
        let lake = parts.lake.clone();
        let Parts { clock, metrics, .. } = parts;
        let opened = Opened { sinks, tables, options, clock, dead_letters, residents, metrics };
        // Its handle alone is kept: the task ends when the sinks are gone.
        let tagging = tagging.map(|(_, task)| task);
        Ok(Self { opened, log_readable, lake, writable, tagging })
    }

    /// Reads `source` until drained or caught up. Everything read is landed before it returns without an error.
    ///
    /// # Errors
    /// See [`IngestError`]: what did not land is still in the log.
    pub async fn run(self, source: Box<dyn Source>, drain: Drain) -> Result<Summary, IngestError> {
        let budget = Budget::new(self.opened.options.memory_bytes);
        let rules = Rules { on_gap: self.opened.options.on_gap, on_new_log: self.opened.options.on_new_log };
        let ReaderThread { commands, events, thread } =
            reader::spawn(source, budget.clone(), Arc::clone(&self.opened.clock), rules, self.log_readable.clone())?;
        let limit = self.opened.options.drain_limit;
        // The orchestrator kills what takes longer, and would leave no reason.
        let overdue = async {
            drain.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        // A run that ends once it has caught up has no readiness probe, and would leave the object when it ends
        // meanwhile.
        let lake = (self.opened.options.until == Until::Drained).then(|| self.lake.clone());
        let writable = self.writable.clone();
        // At the end of the run its channel ends are dropped, by which the reader thread ends.
        let ended = tokio::select! {
            ended = Run::new(self.opened, budget, commands, drain.clone()).run_to_end(events) => ended,
            () = overdue => Err(IngestError::Overdue(limit)),
            never = prove_writable(lake, &writable) => match never {},
        };
        close(thread).await;
        if let Some(tagging) = self.tagging {
            finish_tagging(tagging).await;
        }
        ended
    }
}

/// The reader is joined, because closing the consumer leaves the group (LeaveGroup); otherwise the other members would
/// wait for the session timeout. A static member (`instance_id`, KIP-345) does not leave: it is expected back, with the
/// same partitions.
async fn close(reader: std::thread::JoinHandle<()>) {
    let closed = tokio::task::spawn_blocking(move || reader.join());
    if tokio::time::timeout(CLOSE, closed).await.is_err() {
        tracing::warn!("the log did not close in time");
    }
}

/// What waits is tagged before the process ends. A store that is away is not waited for.
async fn finish_tagging(tagging: JoinHandle<()>) {
    if tokio::time::timeout(CLOSE, tagging).await.is_err() {
        tracing::warn!("not every committed file was tagged in time; the others move to no cheaper storage class");
    }
}
