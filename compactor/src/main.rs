//! `causeway-compactor`: keeps the data files of all tables few, large and sorted.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use compactor::settings::Settings;
use compactor::{Compactor, CompactorError, Metrics, Parts};
use lake::{Lake, OpenError};
use service_kit::admin::{Admin, AdminError, Condition, Readiness};
use service_kit::clock::SystemClock;
use service_kit::program::{ServiceArgs, StartError, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use service_kit::telemetry;

/// The admin port when the configuration names none.
const ADMIN_PORT: u16 = 9472;

#[derive(Parser)]
#[command(name = "causeway-compactor", version = VERSION, about = "Keeps the data files of all tables few, large and sorted")]
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
    Admin(#[from] AdminError),
    #[error(transparent)]
    Compactor(#[from] CompactorError),
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
    let mut registry = telemetry::registry("compactor", VERSION);
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::new();
    let open = readiness.condition("lake", "the lake is being opened");
    // Before the lake, so that `/readyz` shows what a start waits for.
    let admin = Admin::bind(settings.admin.listen(ADMIN_PORT), Arc::new(registry), readiness.clone()).await?;
    tracing::info!(address = %admin.address(), "admin port open");
    // Open to the end: it shows why a drain takes long.
    let drained = Drain::new();
    let admin = tokio::spawn(admin.serve(drained.clone()));

    maintain(&settings, Shown { metrics, readiness, open }, drain).await?;
    // Only now: `/readyz` and `/metrics` answer until the last commit has ended.
    drained.cancel();
    if let Ok(served) = admin.await {
        served?;
    }
    Ok(Exit::Done)
}

/// What shows how a run goes.
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
    /// Met once the lake is open.
    open: Condition,
}

/// Opens the lake and maintains its tables until drained.
async fn maintain(settings: &Settings, shown: Shown, drain: Drain) -> Result<(), MainError> {
    let Shown { metrics, readiness, open } = shown;
    let lake = Lake::open(lake::config::lake_options(&settings.catalog, &settings.store)).await?;
    let parts = Parts { lake: &lake, tables: tables::registry::all(), clock: Arc::new(SystemClock), metrics };
    let compactor = Compactor::open(parts, settings.compactor.options(), &readiness).await?;
    open.met();
    compactor.run(drain).await?;
    tracing::info!("drained");
    Ok(())
}
