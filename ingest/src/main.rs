//! `causeway-ingest`: Kafka (or a spool directory) to bronze, silver, gold and ops tables.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use event_schema::topics;
use inbox::{Inbox, InboxError, Surroundings};
use ingest::settings::Settings;
use ingest::{Ingest, IngestError, Metrics, Options, Parts};
use lake::{Environment, Lake, OpenError};
use service_kit::admin::{Admin, AdminError, Condition, Readiness};
use service_kit::clock::SystemClock;
use service_kit::program::{ServiceArgs, StartError, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use service_kit::telemetry;
use stream::kafka::{KafkaConfig, KafkaError, KafkaSource, ensure_topics};
use stream::log::LogSource;
use stream::{Source, SourceError};
use tokio::task::JoinHandle;

/// The admin port when the configuration names none.
const ADMIN_PORT: u16 = 9471;

#[derive(Parser)]
#[command(name = "causeway-ingest", version = VERSION, about = "Lands the event log in Iceberg tables, exactly once")]
struct Args {
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the lake cannot be opened")]
    Lake(#[from] OpenError),
    #[error("kafka cannot be used")]
    Kafka(#[from] KafkaError),
    #[error("the log cannot be opened")]
    Source(#[from] SourceError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("the bulk path cannot begin")]
    Bulk(#[from] InboxError),
}

impl Fatal for MainError {
    fn exit(&self) -> Exit {
        if let Self::Start(error) = self { error.exit() } else { Exit::Failed }
    }
}

fn main() -> ExitCode {
    // Before the runtime starts its threads: each would get an arena of its own.
    ingest::memory::give_back_early();
    service_kit::run::service(|drain| run(Args::parse(), drain))
}

async fn run(args: Args, drain: Drain) -> Result<Exit, MainError> {
    let settings: Settings = match args.service.start::<Args, _>(&sections::SECTIONS)? {
        ControlFlow::Continue(settings) => settings,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let mut registry = telemetry::registry("ingest", VERSION);
    let metrics = Metrics::new(&mut registry);
    let bulk = inbox::Metrics::new(&mut registry);
    let readiness = Readiness::new();
    let reading = readiness.condition("tables", "tables are being opened");
    // Before the lake and the log, so that `/readyz` shows what a start waits for.
    let admin = Admin::bind(settings.admin.listen(ADMIN_PORT), Arc::new(registry), readiness.clone()).await?;
    tracing::info!(address = %admin.address(), "admin port open");
    // Open to the end: it shows why a drain takes long.
    let drained = Drain::new();
    let admin = tokio::spawn(admin.serve(drained.clone()));

    land(&settings, Running { metrics, bulk, readiness, reading }, drain).await?;
    // Only now: `/readyz` and `/metrics` answer until everything has landed.
    drained.cancel();
    if let Ok(served) = admin.await {
        served?;
    }
    Ok(Exit::Done)
}

/// What shows how a run goes.
struct Running {
    metrics: Metrics,
    /// Of the bulk path.
    bulk: inbox::Metrics,
    readiness: Readiness,
    /// Met once the tables are open.
    reading: Condition,
}

/// Opens the lake and the log, and lands messages until drained.
async fn land(settings: &Settings, running: Running, drain: Drain) -> Result<(), MainError> {
    let Running { metrics, bulk, readiness, reading } = running;
    let lake = Lake::open(lake::config::lake_options(&settings.catalog, &settings.store)).await?;
    let (log, kafka) = open_log(settings).await?;
    let former_owner = kafka.as_ref().map_or(Duration::ZERO, former_owner);
    let options = Options { former_owner, ..settings.ingest.options() };
    let clock = Arc::new(SystemClock);
    let tables = tables::registry::all();
    let parts = Parts { lake: &lake, tables, kafka: kafka.as_ref(), clock, metrics, readiness: &readiness };
    let ingest = Ingest::open(parts, options).await?;
    reading.met();
    // After the tables exist: what was landed is asked of them.
    let bulk = start_bulk(settings, &lake, (bulk, &readiness), &drain).await?;
    let summary = ingest.run(log, drain).await?;
    end_bulk(bulk).await;
    tracing::info!(messages = summary.messages, rows = summary.rows, batches = summary.batches, "drained");
    Ok(())
}

/// The task of the bulk path, where it is configured, with its queues and its bucket found.
async fn start_bulk(
    settings: &Settings,
    lake: &Lake,
    shown: (inbox::Metrics, &Readiness),
    drain: &Drain,
) -> Result<Option<JoinHandle<()>>, InboxError> {
    if !settings.bulk.is_on() {
        return Ok(None);
    }
    let surroundings = Surroundings {
        kafka: settings.kafka.clone(),
        lake: lake.clone(),
        s3: settings.bulk.s3_options(&settings.store),
        region: settings.bulk.region(&settings.store),
        metrics: shown.0,
        condition: shown.1.condition("bulk", "bucket and queues are being opened"),
        drain: drain.clone(),
    };
    let inbox = Inbox::open(settings.bulk.clone(), surroundings).await?;
    Ok(Some(tokio::spawn(inbox.run())))
}

/// Waits until the bulk path, which the same drain ends, has given back what it did not finish.
async fn end_bulk(bulk: Option<JoinHandle<()>>) {
    if let Some(bulk) = bulk
        && let Err(error) = bulk.await
    {
        tracing::warn!(%error, "the bulk path ended early; what it worked on is announced again");
    }
}

/// How long a member of the group may still land what it has read of a partition after the partition was revoked: until
/// the group has noticed that it is gone, and its last commit is over. One that waits for a broker or the store may
/// take longer.
fn former_owner(kafka: &KafkaConfig) -> Duration {
    Duration::from_millis(u64::from(kafka.session_timeout_ms)) + Environment::default().commit_limit
}

/// The log to read, and how Kafka is reached and what is read there, unless the log is the spool.
async fn open_log(settings: &Settings) -> Result<(Box<dyn Source>, Option<KafkaConfig>), MainError> {
    if let Some(spool) = &settings.ingest.spool {
        return Ok((Box::new(LogSource::new(spool.clone(), topics::READ)), None));
    }
    let mut kafka: KafkaConfig = settings.kafka.clone();
    if kafka.topics.is_empty() {
        kafka.topics = topics::READ.map(str::to_owned).to_vec();
    }
    // Before the consumer is opened, which refuses a topic that does not exist.
    ensure_topics(&kafka, &settings.ingest.topics_to_make(&kafka.topics)).await?;
    Ok((Box::new(KafkaSource::open(&kafka)?), Some(kafka)))
}
