//! `causeway up`: agent or simulator, ingest and query in one process over an embedded lake. The spool directory stands in for
//! Kafka; everything behind it is the code of the separate services.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use edge_agent::{Agent, AgentError, SpoolOptions};
use ingest::{Ingest, IngestError};
use query_api::service::{QueryService, ServiceError};
use service_kit::admin::{Admin, Readiness};
use service_kit::clock::SystemClock;
use service_kit::config::{ConfigError, ConfigSource};
use service_kit::run::{Drain, Exit, Fatal, report};
use service_kit::telemetry::{self, Registry};
use stream::log::{Fsync, LogOptions};
use tokio::task::{JoinError, JoinSet};

use crate::config::AllSettings;
use crate::embedded::{DEFAULT_DIR, DataDir, EmbeddedError};
use crate::output::{self, OutputError};

mod simulate;

use simulate::{SimulateError, SimulateSpec, Simulation};

/// The admin port of what runs beside the query service.
const ADMIN_PORT: u16 = 9471;

/// Runs everything in one process: agent, ingest and queries
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Directory of the lake
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_DATA", default_value = DEFAULT_DIR)]
    data: PathBuf,
    /// Address to answer on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Do not trace this host
    #[arg(long)]
    no_agent: bool,
    /// Make the events of a fleet that is not there, for example `nodes=4,ranks=8,rate=10000`
    #[arg(long, value_name = "SPEC")]
    simulate: Option<SimulateSpec>,
}

/// Why the process could not start or ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error("another `causeway up` or import is running on {}: stop it, or name another directory with --data", path.display())]
    Running { path: PathBuf },
    #[error(transparent)]
    Query(#[from] ServiceError),
    #[error("ingest ended")]
    Ingest(#[from] IngestError),
    #[error("the agent ended")]
    Agent(#[from] AgentError),
    #[error("the simulator ended")]
    Simulate(#[from] SimulateError),
    #[error("a part of the process failed; its last words are in the log")]
    Task(#[from] JoinError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for UpError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Agent(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// Runs the command until it is told to stop.
pub(crate) async fn run(args: UpArgs, config: &ConfigSource, drain: Drain) -> Result<Exit, UpError> {
    let loaded = config.clone().with_flag("--listen", "query.listen", args.listen).load_placed::<AllSettings>()?;
    for section in ["kafka", "catalog", "store"].iter().filter(|section| loaded.places.contains_key(**section)) {
        tracing::warn!("[{section}] is not used: `up` has a spool, a catalog and a warehouse of its own in --data");
    }
    let settings = loaded.settings;
    let dir = DataDir::create(&args.data)?;
    let Some(lock) = dir.try_lock()? else { return Err(UpError::Running { path: dir.path().to_owned() }) };
    let lake = dir.open().await?;
    let readiness = Readiness::new();
    let tables = readiness.condition("tables", "the tables are being opened");
    // Before anything is made: an address that is taken is the likeliest reason not to start.
    let service = QueryService::bind(
        lake.clone(),
        settings.query.options(),
        telemetry::registry("query", service_kit::program::VERSION),
        readiness.clone(),
        Arc::new(SystemClock),
    )
    .await?;
    let mut registry = Registry::with_prefix("causeway");
    let metrics = ingest::Metrics::new(registry.sub_registry_with_prefix("ingest"));
    let options = settings.ingest.options();
    let landing = Ingest::open(&lake, options, Arc::new(SystemClock), None, metrics, &readiness).await?;
    let makers = makers(&args, &settings, &dir, &mut registry).await?;
    let address = service.address();
    serve_admin(&settings, registry, readiness, drain.clone()).await;

    let mut ingest = Stage::default();
    let source = Box::new(dir.source());
    ingest.spawn(|drain| async move { Ok(landing.run(source, drain).await.map(drop)?) });
    let mut query = Stage::default();
    query.spawn(|drain| async move { Ok(service.serve(drain).await?) });
    tables.met();
    output::text(&format!("ready http://{address}\n"))?;

    Stages { makers, ingest, query }.until(&drain).await?;
    // What the agent wrote last is in the spool and perhaps not in the tables.
    let landed = dir.land(&lake, &lock, Drain::new()).await?;
    tracing::info!(messages = landed.messages, rows = landed.rows, "drained: everything in the spool has landed");
    Ok(Exit::Done)
}

/// Tasks that end together.
#[derive(Debug, Default)]
struct Stage {
    drain: Drain,
    tasks: JoinSet<Result<(), UpError>>,
}

impl Stage {
    fn spawn<F>(&mut self, work: impl FnOnce(Drain) -> F)
    where
        F: Future<Output = Result<(), UpError>> + Send + 'static,
    {
        self.tasks.spawn(work(self.drain.clone()));
    }

    /// The first task to end by itself; never, when there are none.
    async fn ended(&mut self) -> Result<(), UpError> {
        match self.tasks.join_next().await {
            Some(ended) => ended?,
            None => std::future::pending().await,
        }
    }

    /// Lets the tasks finish what they have in hand. The first failure is the one to tell.
    async fn end(mut self) -> Result<(), UpError> {
        self.drain.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            outcome = outcome.and(ended.map_err(UpError::from).flatten());
        }
        outcome
    }
}

/// The parts of the process in the order in which events walk through them.
struct Stages {
    /// Agent and simulator: they fill the spool.
    makers: Stage,
    ingest: Stage,
    query: Stage,
}

impl Stages {
    /// Runs until drained or until a part ends by itself; then ends all of them in order.
    async fn until(mut self, drain: &Drain) -> Result<(), UpError> {
        let outcome = tokio::select! {
            () = drain.cancelled() => Ok(()),
            ended = self.makers.ended() => ended,
            ended = self.ingest.ended() => ended,
            ended = self.query.ended() => ended,
        };
        let Self { makers, ingest, query } = self;
        let outcome = outcome.and(makers.end().await);
        let outcome = outcome.and(ingest.end().await);
        outcome.and(query.end().await)
    }
}

/// Starts what fills the spool.
async fn makers(
    args: &UpArgs,
    settings: &AllSettings,
    dir: &DataDir,
    registry: &mut Registry,
) -> Result<Stage, UpError> {
    let mut makers = Stage::default();
    if !args.no_agent {
        let spool = SpoolOptions {
            dir: dir.spool(),
            log: LogOptions { fsync: Fsync::Manual, ..LogOptions::default() },
            shared: true,
        };
        let options = edge_agent::Options { kafka: None, spool, ..settings.of_agent().options() };
        let metrics = edge_agent::Metrics::register(registry.sub_registry_with_prefix("agent"));
        // Loading the probes takes the kernel a moment.
        match tokio::task::spawn_blocking(move || Agent::open(&options, &metrics)).await? {
            Ok(agent) => makers.spawn(|drain| async move { Ok(agent.run(drain).await.map(drop)?) }),
            Err(error @ AgentError::Load(_)) => {
                let reason = report(&error);
                eprintln!("this host is not traced: {}", reason.trim_start_matches("error: "));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(spec) = args.simulate.clone() {
        let simulation = Simulation::open(spec, &dir.spool())?;
        makers.spawn(|drain| async move { Ok(simulation.run(drain).await?) });
    }
    Ok(makers)
}

/// Opens the admin port of ingest and agent. The queries are answered without it, so that a port in use stops nothing.
async fn serve_admin(settings: &AllSettings, registry: Registry, readiness: Readiness, drain: Drain) {
    match Admin::bind(settings.admin.listen(ADMIN_PORT), Arc::new(registry), readiness).await {
        Ok(admin) => {
            tracing::info!(address = %admin.address(), "admin port open");
            tokio::spawn(admin.serve(drain));
        }
        Err(error) => tracing::warn!("metrics of ingest and agent are not served: {error}"),
    }
}
