//! `causeway-query`: every read surface over the lake.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use lake::{Lake, OpenError};
use query_api::service::{Listener, Parts, QueryService, ServiceError};
use query_api::settings::Settings;
use service_kit::admin::Readiness;
use service_kit::clock::SystemClock;
use service_kit::config::{ConfigArgs, ConfigCommand, ConfigError, ConfigSource};
use service_kit::program::{CompletionArgs, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use service_kit::telemetry::{self, LogArgs, TelemetryError};

#[derive(Parser)]
#[command(name = "causeway-query", version = VERSION, about = "Answers questions about the fleet: SQL, chains, completeness")]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks or shows the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    Completion(CompletionArgs),
}

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the lake cannot be opened")]
    Lake(#[from] OpenError),
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Fatal for MainError {
    fn exit(&self) -> Exit {
        if matches!(self, Self::Config(_) | Self::Telemetry(_)) { Exit::Usage } else { Exit::Failed }
    }
}

fn main() -> ExitCode {
    service_kit::run::service(|drain| run(Args::parse(), drain))
}

async fn run(args: Args, drain: Drain) -> Result<Exit, MainError> {
    let source = ConfigSource::of_process(&args.config, &sections::SECTIONS);
    // These end before the port or the lake is opened: a configuration is checked on hosts that cannot reach the lake.
    match args.command {
        Some(Command::Completion(completion)) => return Ok(completion.print::<Args>()),
        Some(Command::Config(command)) => {
            command.run::<Settings>(&source, &mut std::io::stdout())?;
            return Ok(Exit::Done);
        }
        None => {}
    }
    telemetry::init(&args.log, "info")?;
    let service = open(&source.load()?).await?;
    service.serve(drain).await?;
    tracing::info!("drained");
    Ok(Exit::Done)
}

/// Opens the port, then the lake.
async fn open(settings: &Settings) -> Result<QueryService, MainError> {
    let options = settings.query.options();
    // Before the lake, which may take seconds to open: a port that is taken is reported at once.
    let listener = Listener::bind(&options.listen).await?;
    let registry = telemetry::registry("query", VERSION);
    // An SQLite catalog must exist: a wrong path would otherwise make an empty one, and every answer would be empty
    // too.
    let lake = Lake::open_existing(lake::config::lake_options(&settings.catalog, &settings.store)).await?;
    let parts = Parts { lake, registry, readiness: Readiness::new(), clock: Arc::new(SystemClock) };
    let service = QueryService::open(listener, parts, options).await?;
    tracing::info!(address = %service.address(), "ready");
    Ok(service)
}
