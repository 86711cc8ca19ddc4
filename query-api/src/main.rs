//! `causeway-query`: every read surface over the lake.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use lake::{Lake, OpenError};
use query_api::service::{Listener, Parts, QueryService, ServiceError};
use query_api::settings::Settings;
use service_kit::admin::Readiness;
use service_kit::clock::SystemClock;
use service_kit::program::{ServiceArgs, StartError, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use service_kit::telemetry;

#[derive(Parser)]
#[command(name = "causeway-query", version = VERSION, about = "Answers questions about the fleet: SQL, chains, completeness")]
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
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl Fatal for MainError {
    fn exit(&self) -> Exit {
        if let Self::Start(error) = self { error.exit() } else { Exit::Failed }
    }
}

fn main() -> ExitCode {
    service_kit::run::service(|drain| run(Args::parse(), drain))
}

async fn run(args: Args, drain: Drain) -> Result<Exit, MainError> {
    let settings: Settings = match args.service.start::<Args, _>(&sections::SECTIONS)? {
        ControlFlow::Continue(settings) => settings,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    let service = open(&settings).await?;
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
