//! `causeway-agent`: runs a command, or the agent until a signal.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use edge_agent::AgentSettings;
use edge_agent::service::{ServiceError, serve};
use service_kit::config::{ConfigArgs, ConfigCommand, ConfigSource};
use service_kit::program::{CompletionArgs, VERSION};
use service_kit::run::{self, Drain, Exit};
use service_kit::telemetry::{self, LogArgs};

/// Traces CUDA, NCCL and the host on this node and ships events to Kafka.
#[derive(Debug, Parser)]
#[command(name = "causeway-agent", version = VERSION)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    Completion(CompletionArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run::service(|drain| answer(cli, drain))
}

async fn answer(cli: Cli, drain: Drain) -> Result<Exit, ServiceError> {
    let source = ConfigSource::of_process(&cli.config, &sections::SECTIONS);
    match cli.command {
        Some(Command::Config(command)) => command.run::<AgentSettings>(&source, &mut std::io::stdout())?,
        Some(Command::Completion(completion)) => return Ok(completion.print::<Cli>()),
        None => {
            telemetry::init(&cli.log, "info")?;
            let settings: AgentSettings = source.load()?;
            serve(&settings, drain).await?;
        }
    }
    Ok(Exit::Done)
}
