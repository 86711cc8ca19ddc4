//! `causeway up`: agent or simulator, ingest, compactor and query in one process over an embedded lake. The spool
//! directory stands in for Kafka; everything behind it is the code of the separate services.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use compactor::{Compactor, CompactorError};
use edge_agent::{Agent, AgentError, SpoolOptions};
use ingest::{Ingest, IngestError, Parts};
use lake::Lake;
use query_api::service::{Listener, QueryService, ServiceError};
use service_kit::admin::{Admin, AdminError, Readiness};
use service_kit::clock::SystemClock;
use service_kit::config::{ConfigError, ConfigSource, Loaded};
use service_kit::listen::ListenAddress;
use service_kit::run::{Drain, Exit, Fatal, note, report};
use service_kit::telemetry::{self, Registry};
use stream::log::{Fsync, LogOptions};
use tokio::task::{JoinError, JoinSet};

use crate::config::AllSettings;
use crate::embedded::{DEFAULT_DIR, DataDir, EmbeddedError, LandingLock};
use crate::output::{self, OutputError};

mod simulate;

use simulate::{SimulateError, SimulateSpec, Simulation};

/// The admin port of what runs beside the query service.
const ADMIN_PORT: u16 = 9471;

const EXAMPLES: &str = "\
Examples:
  causeway up                                       # trace this host; needs root or CAP_BPF and CAP_PERFMON
  causeway up --no-agent --simulate nodes=4,ranks=8 # a simulated training job, one of its ranks slow
  causeway up --data /srv/causeway --listen 9090";

/// Runs everything in one process: agent, ingest, compactor and queries
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpArgs {
    /// Directory of the lake
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_DATA", default_value = DEFAULT_DIR)]
    data: PathBuf,
    /// Address to answer on: HOST:PORT, or a port alone for loopback [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<ListenAddress>,
    /// Do not trace this host
    #[arg(long)]
    no_agent: bool,
    /// Do not merge data files; they stay as they were committed
    #[arg(long)]
    no_compactor: bool,
    /// Simulate a training job and make the events of its nodes; its last rank, or `slow=RANK|none`, shares its CPU
    /// [default: nodes=4,ranks=8,rate=4000]
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "")]
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
    #[error("the compactor ended")]
    Compactor(#[from] CompactorError),
    #[error("the agent ended")]
    Agent(#[from] AgentError),
    #[error("the simulator ended")]
    Simulate(#[from] SimulateError),
    #[error("a task of the process failed; the log has its message")]
    Task(#[from] JoinError),
    #[error(transparent)]
    Admin(#[from] AdminError),
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

/// Runs the command until it is to stop.
pub(crate) async fn run(args: UpArgs, config: &ConfigSource, drain: Drain) -> Result<Exit, UpError> {
    let loaded =
        config.clone().with_flag("--listen", "query.listen", args.listen.as_ref()).load_placed::<AllSettings>()?;
    warn_of_unused(&loaded);
    let admin_is_named = loaded.places.contains_key("admin.port");
    let settings = loaded.settings;
    // Before anything is made: an address that is in use is the most frequent reason not to start, and must leave no
    // directory.
    let listener = Listener::bind(&settings.query.listen).await?;
    let dir = DataDir::create(&args.data)?;
    // Before the lake is opened: only the process that holds the lock lands messages of this spool (mutual exclusion).
    let Some(lock) = dir.try_lock()? else { return Err(UpError::Running { path: dir.path().to_owned() }) };
    let lake = dir.open().await?;
    let readiness = Readiness::new();
    // Until `met` below, `/readyz` of both ports answers 503: the query service is open before the tables exist.
    let tables_open = readiness.condition("tables", "the tables are being opened");
    let parts = query_api::service::Parts {
        lake: lake.clone(),
        registry: telemetry::registry("query", service_kit::program::VERSION),
        readiness: readiness.clone(),
        clock: Arc::new(SystemClock),
    };
    let service = QueryService::open(listener, parts, settings.query.options()).await?;
    let mut registry = Registry::with_prefix("causeway");
    let metrics = ingest::Metrics::new(registry.sub_registry_with_prefix("ingest"));
    let options = settings.ingest.options();
    let clock = Arc::new(SystemClock);
    let all = tables::registry::all();
    let parts = Parts { lake: &lake, tables: all, kafka: None, clock, metrics, readiness: &readiness };
    let landing = Ingest::open(parts, options).await?;
    // Before `ready` is printed: an agent that cannot start ends the command here, with its error.
    let makers = makers(&args, &settings, &dir, &mut registry).await?;
    let compactor = compactor(&args, &settings, &dir, (&mut registry, &readiness)).await?;
    let address = service.address();
    serve_admin(settings.admin.listen(ADMIN_PORT), admin_is_named, (registry, readiness), drain.clone()).await?;

    // Each stage has a drain of its own, so that they can be ended one after the other.
    let mut ingest = Stage::default();
    let source = Box::new(dir.source());
    ingest.spawn(|drain| async move { Ok(landing.run(source, drain).await.map(drop)?) });
    let mut query = Stage::default();
    query.spawn(|drain| async move { Ok(service.serve(drain).await?) });
    tables_open.met();
    // The listener was bound at the start: a request that a script sends upon this line waits in its backlog
    // (listen(2)).
    output::text(&format!("ready http://{address}\n"))?;
    next_steps(address, args.simulate.is_some());

    Stages { makers, compactor, ingest, query }.until(&drain).await?;
    land_rest(&dir, &lake, &lock).await?;
    Ok(Exit::Done)
}

/// Names the sections of the configuration that have no effect here.
fn warn_of_unused(loaded: &Loaded<AllSettings>) {
    for section in ["kafka", "catalog", "store"].iter().filter(|section| loaded.places.contains_key(**section)) {
        tracing::warn!("[{section}] is not used: `up` has a spool, a catalog and a warehouse of its own in --data");
    }
}

/// Lands what the agent wrote last: it is in the spool and perhaps not in the tables.
async fn land_rest(dir: &DataDir, lake: &Lake, lock: &LandingLock) -> Result<(), UpError> {
    // The drain of the program is cancelled already, hence a new one; a second signal ends the process, and the spool
    // retains what has not landed.
    let landed = dir.land(lake, lock, Drain::new()).await?;
    tracing::info!(messages = landed.messages, rows = landed.rows, "drained: everything in the spool has landed");
    Ok(())
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
            // `join_next` of an empty set returns at once: with `--no-agent` the stage of the makers would end the
            // command.
            None => std::future::pending().await,
        }
    }

    /// Lets the tasks finish what they have begun, and returns the first failure.
    async fn end(mut self) -> Result<(), UpError> {
        self.drain.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            // All are awaited: a task that is dropped with the set is aborted in the middle of its work.
            outcome = outcome.and(ended.map_err(UpError::from).flatten());
        }
        outcome
    }
}

/// The parts of the process in the order in which events pass through them.
struct Stages {
    /// Agent and simulator: they fill the spool.
    makers: Stage,
    /// Beside the others: it merges what has landed.
    compactor: Stage,
    ingest: Stage,
    query: Stage,
}

impl Stages {
    /// Runs until drained or until a part ends by itself; then ends all of them in order.
    async fn until(mut self, drain: &Drain) -> Result<(), UpError> {
        let outcome = tokio::select! {
            () = drain.cancelled() => Ok(()),
            ended = self.makers.ended() => ended,
            ended = self.compactor.ended() => ended,
            ended = self.ingest.ended() => ended,
            ended = self.query.ended() => ended,
        };
        let Self { makers, compactor, ingest, query } = self;
        // Upstream first: each stage takes what the one before it wrote last, and queries are answered until the end.
        // `and` evaluates its argument also after a failure, so that a stage that failed does not keep the others from
        // ending.
        let outcome = outcome.and(makers.end().await);
        // Before ingest: what lands last finds the CPU and the catalog free.
        let outcome = outcome.and(compactor.end().await);
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
        // Loading runs the kernel's verifier (bpf(2)), which would block a thread of the runtime.
        match tokio::task::spawn_blocking(move || Agent::open(&options, &metrics)).await? {
            Ok(agent) => makers.spawn(|drain| async move { Ok(agent.run(drain).await.map(drop)?) }),
            // The probes cannot be loaded: no root, no BTF, or too old a kernel. Imports and queries work without them.
            Err(error @ AgentError::Load(_)) => {
                let reason = report(&error);
                note(&format!("this host is not traced: {}", reason.trim_start_matches("error: ")));
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

/// Starts what merges data files.
async fn compactor(
    args: &UpArgs,
    settings: &AllSettings,
    dir: &DataDir,
    (registry, readiness): (&mut Registry, &Readiness),
) -> Result<Stage, UpError> {
    let mut stage = Stage::default();
    if args.no_compactor {
        return Ok(stage);
    }
    // Connections of its own: those that its threads of low priority make would slow down the commits of ingest.
    let lake = dir.open().await?;
    let metrics = compactor::Metrics::new(registry.sub_registry_with_prefix("compactor"));
    let all = tables::registry::all();
    let parts = compactor::Parts { lake: &lake, tables: all, clock: Arc::new(SystemClock), metrics };
    let compactor = Compactor::open(parts, settings.compactor.options(), readiness).await?;
    stage.spawn(|drain| async move { Ok(compactor.run(drain).await?) });
    Ok(stage)
}

/// Serves the admin port of agent, ingest and compactor.
async fn serve_admin(
    address: SocketAddr,
    is_named: bool,
    (registry, readiness): (Registry, Readiness),
    drain: Drain,
) -> Result<(), AdminError> {
    let admin = bind_admin(address, is_named, Arc::new(registry), readiness).await?;
    tracing::info!(address = %admin.address(), "admin port open");
    // Detached: metrics are no reason to end the process, and a scrape in progress no reason to delay its end.
    tokio::spawn(admin.serve(drain));
    Ok(())
}

/// Opens the admin port: the one that the configuration names, else the default one, or a free one where another process
/// has that.
async fn bind_admin(
    address: SocketAddr,
    is_named: bool,
    registry: Arc<Registry>,
    readiness: Readiness,
) -> Result<Admin, AdminError> {
    match Admin::bind(address, Arc::clone(&registry), readiness.clone()).await {
        // The default port is taken, for instance by a second `up`. A port that is configured is one that a scraper
        // expects: its error is reported.
        Err(AdminError::Bind { .. }) if !is_named => {
            let free = Admin::bind(SocketAddr::new(address.ip(), 0), registry, readiness).await?;
            tracing::warn!(wanted = %address, address = %free.address(), "the admin port is in use: a free one is taken");
            Ok(free)
        }
        bound => bound,
    }
}

/// Prints commands for the next steps to standard error, where that is a terminal.
fn next_steps(address: SocketAddr, simulates: bool) {
    // Into a file or the journal the hints are noise between log lines.
    if !std::io::stderr().is_terminal() {
        return;
    }
    let server = server_flag(address);
    note("In another terminal:");
    note(&format!("  causeway nodes{server}                # which nodes report, and how far behind they are"));
    let job = if simulates { "the simulated job: one of its ranks is slow" } else { "jobs that run on this host" };
    note(&format!("  causeway explain{server} --since 5m   # which rank is slow and why: {job}"));
    note(&format!("  causeway query{server} 'SELECT op_name, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC'"));
    note("  causeway doctor                      # what this host lets the agent trace");
}

/// The flag with which commands on this host reach the server; empty where it is at their default address.
fn server_flag(address: SocketAddr) -> String {
    let reached = match address.ip() {
        // The unspecified address is one to listen on and no destination (RFC 1122, section 3.2.1.3; RFC 4291, section
        // 2.5.2).
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    // The default of `--server` (`client.rs`).
    if reached == SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) {
        return String::new();
    }
    format!(" --server http://{reached}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_steps_name_the_server_where_commands_would_not_find_it() {
        for (address, flag) in [
            ("127.0.0.1:8080", ""),
            ("0.0.0.0:8080", ""),
            ("0.0.0.0:9000", " --server http://127.0.0.1:9000"),
            ("127.0.0.1:9000", " --server http://127.0.0.1:9000"),
            ("10.0.0.5:8080", " --server http://10.0.0.5:8080"),
            ("[::]:8080", " --server http://[::1]:8080"),
        ] {
            assert_eq!(server_flag(address.parse().unwrap()), flag, "{address}");
        }
    }
}
