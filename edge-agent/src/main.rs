//! `causeway-agent`: runs a command, or the agent until a signal.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Parser;
use edge_agent::AgentSettings;
use edge_agent::service::{ServiceError, serve};
use service_kit::program::{ServiceArgs, VERSION};
use service_kit::run::{self, Drain, Exit};

/// Traces CUDA, NCCL and the host on this node and ships events to Kafka.
#[derive(Debug, Parser)]
#[command(name = "causeway-agent", version = VERSION)]
struct Cli {
    #[command(flatten)]
    service: ServiceArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run::service(|drain| answer(cli, drain))
}

async fn answer(cli: Cli, drain: Drain) -> Result<Exit, ServiceError> {
    let settings: AgentSettings = match cli.service.start::<Cli, _>(&sections::SECTIONS)? {
        ControlFlow::Continue(settings) => settings,
        ControlFlow::Break(exit) => return Ok(exit),
    };
    serve(&settings, drain).await?;
    Ok(Exit::Done)
}
