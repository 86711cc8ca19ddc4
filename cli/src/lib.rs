//! The `causeway` command: all services in one process (`up`), and the commands that query, import and audit.
//!
//! Commands that ask ([`query`], [`explain`], [`nodes`], …) talk to a server over HTTP ([`client`]). Commands that
//! touch the lake or the stream themselves ([`import`], [`audit`], [`dlq`], [`reprocess`], [`rollback`], [`maintain`],
//! [`orphans`], [`tiers`]) work on a [`place`]: the embedded lake of a directory, or what a configuration file names. Data
//! goes to standard output, remarks and errors to standard error.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]
#![deny(clippy::print_stderr, reason = "it panics where standard error is closed: `service_kit::run::note` does not")]

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use service_kit::config::{ConfigArgs, ConfigSource};
use service_kit::program::{CompletionArgs, VERSION};
use service_kit::run::{Drain, Exit};
use service_kit::telemetry::{self, LogArgs};

mod audit;
mod client;
mod config;
mod dlq;
mod doctor;
mod embedded;
mod error;
mod explain;
mod import;
mod maintain;
mod nodes;
mod orphans;
mod output;
mod place;
mod query;
mod reprocess;
mod rollback;
mod status;
mod table_list;
mod tiers;
mod up;

use client::ServerArgs;
use error::CliError;
use place::Place;

#[derive(Debug, Parser)]
#[command(name = "causeway", version = VERSION, about = "From a kernel probe on a GPU node to the answer which rank is slow, and why")]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Server that commands ask; the flag is accepted after the command too
    #[arg(long, value_name = "URL", hide = true)]
    server: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// A command that asks a server.
#[derive(Debug, Args)]
struct Asking<A: Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Query(Asking<query::QueryArgs>),
    Explain(Asking<explain::ExplainArgs>),
    Stragglers(Asking<explain::StragglersArgs>),
    Nodes(Asking<nodes::NodesArgs>),
    Status(Asking<status::StatusArgs>),
    Tables(Asking<table_list::TablesArgs>),
    #[command(flatten)]
    OnPlace(OnPlace),
    Doctor(doctor::DoctorArgs),
    /// Check or show the configuration of all services
    #[command(subcommand)]
    Config(service_kit::config::ConfigCommand),
    Completion(CompletionArgs),
}

/// Commands that touch the lake or the stream themselves.
#[derive(Debug, Subcommand)]
enum OnPlace {
    Import(import::ImportArgs),
    Audit(audit::AuditArgs),
    /// Show messages that did not decode, and send them once more after a fix
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    Reprocess(reprocess::ReprocessArgs),
    Rollback(rollback::RollbackArgs),
    Restore(tiers::RestoreArgs),
}

impl OnPlace {
    /// Whether it watches the drain itself.
    fn ends_by_itself(&self) -> bool {
        matches!(self, Self::Import(_) | Self::Rollback(_) | Self::Dlq(dlq::DlqCommand::Replay(_)) | Self::Reprocess(_))
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before the runtime starts its threads: each would get a malloc arena of its own (mallopt(3), `M_ARENA_MAX`).
    ingest::memory::give_back_early();
    let cli = Cli::parse();
    service_kit::run::service(|drain| run(cli, drain))
}

async fn run(cli: Cli, drain: Drain) -> Result<Exit, CliError> {
    // A command prints what it did; its log is for finding faults.
    let default_filter = if matches!(cli.command, Command::Up(_)) { "info" } else { "warn" };
    telemetry::init(&cli.log, default_filter)?;
    let config = ConfigSource::of_process(&cli.config, &sections::SECTIONS);
    // These watch the drain themselves, since they have work to finish. The others only read: a signal drops them where
    // they stand.
    let ends_by_itself = match &cli.command {
        Command::Up(_) | Command::Query(_) => true,
        Command::OnPlace(command) => command.ends_by_itself(),
        Command::Tables(asked) => asked.args.maintain,
        _ => false,
    };
    let command = obey(cli, &config, drain.clone());
    if ends_by_itself {
        return command.await;
    }
    tokio::select! {
        exit = command => exit,
        () = drain.cancelled() => Ok(Exit::Interrupted),
    }
}

async fn obey(cli: Cli, config: &ConfigSource, drain: Drain) -> Result<Exit, CliError> {
    // Called for the commands alone that ask: a malformed CAUSEWAY_SERVER must not stop the others.
    let client = |server: &ServerArgs| server.client(cli.server.as_deref());
    let exit = match cli.command {
        Command::Up(args) => up::run(args, config, drain).await?,
        Command::Query(asked) => query::run(asked.args, &client(&asked.server)?, &drain).await?,
        Command::Explain(asked) => explain::explain(&asked.args, &client(&asked.server)?).await?,
        Command::Stragglers(asked) => explain::stragglers(&asked.args, &client(&asked.server)?).await?,
        Command::Nodes(asked) => nodes::run(&asked.args, &client(&asked.server)?).await?,
        Command::Status(asked) => status::run(&asked.args, &client(&asked.server)?).await?,
        Command::Tables(asked) if asked.args.works_on_the_lake() => {
            maintain_table(&asked.args, &Place::of(&asked.args.place, config)?, config, &drain).await?
        }
        Command::Tables(asked) => table_list::run(&asked.args, &client(&asked.server)?).await?,
        Command::OnPlace(command) => on_place(command, config, drain).await?,
        Command::Doctor(args) => doctor::run(&args, config).await?,
        Command::Config(command) => config::run(command, config)?,
        Command::Completion(completion) => completion.print::<Cli>(),
    };
    Ok(exit)
}

async fn on_place(command: OnPlace, config: &ConfigSource, drain: Drain) -> Result<Exit, CliError> {
    let exit = match command {
        OnPlace::Import(args) => {
            let place = Place::of(&args.place, config)?;
            import::run(args, &place, drain).await?
        }
        OnPlace::Audit(args) => audit::run(&args, &Place::of(&args.place, config)?).await?,
        OnPlace::Dlq(command) => dlq::run(command, config, &drain).await?,
        OnPlace::Reprocess(args) => reprocess::run(&args, &Place::of(&args.place, config)?, &drain).await?,
        OnPlace::Rollback(args) => rollback::run(&args, &Place::of(&args.place, config)?).await?,
        OnPlace::Restore(args) => tiers::restore(&args, &Place::of(&args.place, config)?).await?,
    };
    Ok(exit)
}

/// What `causeway tables` does on the lake itself.
async fn maintain_table(
    args: &table_list::TablesArgs,
    place: &Place,
    config: &ConfigSource,
    drain: &Drain,
) -> Result<Exit, CliError> {
    match &args.name {
        name if args.tiers => Ok(tiers::list(name.as_deref(), args.json, place).await?),
        Some(name) if args.orphans.orphans => Ok(orphans::run(name, &args.orphans, place, args.json).await?),
        _ => Ok(maintain::run(args, place, config, drain).await?),
    }
}
