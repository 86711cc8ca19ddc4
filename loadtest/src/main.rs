//! `causeway-loadtest`: a simulated fleet, and the benches.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use fleet_sim::{FleetError, FleetSpec};
use lake::Lake;
use loadtest::bench::ingest::Size;
use loadtest::bench::report::Report;
use loadtest::bench::{BenchError, checksum, commit, compact, detect, freshness, ingest, memory, setup};
use loadtest::out::{Out, OutError, unix_ns};
use serde_json::{Value, json};
use service_kit::program::{CompletionArgs, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use stream::kafka::KafkaConfig;

#[derive(Parser)]
#[command(name = "causeway-loadtest", version = VERSION, about = "Simulated fleets and benches")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the events of a simulated fleet through the real wire format; prints what the log has acknowledged as
    /// JSON
    Fleet(FleetArgs),
    /// Prints figures and ratios
    Bench {
        #[arg(value_enum)]
        what: Bench,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
        /// Events of the ingest bench
        #[arg(long, default_value_t = 8_000_000)]
        events: usize,
        /// Runs of the detect bench with a hog, and as many without
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// Messages of each flood of the memory bench
        #[arg(long, default_value_t = 1_000)]
        messages: usize,
    },
    Completion(CompletionArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    Ingest,
    Commit,
    Checksum,
    Compact,
    Detect,
    Freshness,
    Memory,
}

#[derive(Clone, Copy, ValueEnum)]
enum To {
    Kafka,
    Spool,
}

#[derive(clap::Args)]
struct FleetArgs {
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    #[arg(long, default_value_t = 8)]
    ranks_per_node: i32,
    /// Events in all
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Events per second over the whole fleet; 0 writes as fast as it can
    #[arg(long, default_value_t = 0)]
    rate: u64,
    #[arg(long, default_value_t = 4096)]
    rows_per_message: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value = "spool")]
    out: To,
    #[arg(long, default_value = "127.0.0.1:9092", env = "CAUSEWAY_KAFKA_BROKERS")]
    brokers: String,
    /// Spool directory, for `--out spool`
    #[arg(long, default_value = "causeway-data/spool")]
    spool: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Out(#[from] OutError),
    #[error("a temporary directory cannot be made")]
    Dir(#[source] std::io::Error),
    #[error("standard output cannot be written")]
    Output(#[source] std::io::Error),
}

impl Fatal for MainError {}

fn main() -> ExitCode {
    service_kit::run::service(|drain| run(Args::parse(), drain))
}

async fn run(args: Args, drain: Drain) -> Result<Exit, MainError> {
    match args.command {
        Command::Fleet(args) => fleet(&args, &drain).await?,
        Command::Bench { what, json, events, runs, messages } => {
            let dir = std::env::temp_dir().join(format!("causeway-bench-{}", std::process::id()));
            std::fs::create_dir_all(&dir).map_err(MainError::Dir)?;
            let done = bench(what, &dir, Amounts { events, runs, messages }).await;
            // After a failure as well: a bench leaves gigabytes.
            let _ = std::fs::remove_dir_all(&dir);
            print(&done?, json)?;
        }
        Command::Completion(completion) => return Ok(completion.print::<Args>()),
    }
    Ok(Exit::Done)
}

fn print(report: &Report, json: bool) -> Result<(), MainError> {
    let text = if json { serde_json::to_string(report).unwrap_or_default() } else { report.to_text() };
    line(&text)
}

/// Writes a line to standard output. One that its reader has closed takes no more.
fn line(text: &str) -> Result<(), MainError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Rust programs ignore SIGPIPE: with `| head`, the closed pipe is an error of the write.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(MainError::Output(error)),
        _ => Ok(()),
    }
}

async fn open_lake(dir: &std::path::Path) -> Result<Lake, BenchError> {
    Ok(Lake::open(setup::lake_in(dir)).await?)
}

/// How much a bench does.
struct Amounts {
    events: usize,
    runs: usize,
    messages: usize,
}

async fn bench(what: Bench, dir: &std::path::Path, amounts: Amounts) -> Result<Report, BenchError> {
    let Amounts { events, runs, messages } = amounts;
    match what {
        Bench::Ingest => ingest::run(dir, Size { events, rows_per_message: 16_384, nodes: 8, partitions: 4 }).await,
        Bench::Commit => commit::run(&open_lake(dir).await?).await,
        Bench::Checksum => checksum::run(&open_lake(dir).await?, dir).await,
        Bench::Compact => compact::run(dir).await,
        Bench::Detect => detect::run(dir, runs),
        Bench::Memory => memory::run(dir, messages).await,
        Bench::Freshness => freshness::run(dir, 20_000, Duration::from_secs(30)).await,
    }
}

/// Writes the fleet's events; stops early when drained, and prints what was acknowledged.
async fn fleet(args: &FleetArgs, drain: &Drain) -> Result<(), MainError> {
    let spec = FleetSpec {
        nodes: args.nodes.max(1),
        ranks_per_node: args.ranks_per_node.max(1),
        seed: args.seed,
        rows: args.rows_per_message.max(1),
        gap_ns: 20_000,
        start_wall_ns: unix_ns(),
    };
    let mut out = match args.out {
        To::Kafka => Out::kafka(&KafkaConfig { brokers: args.brokers.clone(), ..KafkaConfig::default() })?,
        To::Spool => Out::spool(&args.spool),
    };
    let mut nodes = spec.build();
    let mut written = 0usize;
    let mut messages = 0usize;
    let mut turn = 0usize;
    let mut tick = tokio::time::interval(Duration::from_secs_f64(match args.rate {
        // An interval of zero panics (tokio). Without a rate the tick is not awaited.
        0 => 1e-6,
        rate => spec.rows as f64 / rate as f64,
    }));
    while written < args.events && !drain.is_cancelled() {
        if args.rate > 0 {
            // Missed ticks follow at once (tokio's `Burst`): the mean rate holds after a delay.
            tick.tick().await;
        }
        let rows = spec.rows.min(args.events - written);
        let count = nodes.len();
        let node = &mut nodes[turn % count];
        turn += 1;
        // At a rate events carry the present time; at full speed simulated time advances by `gap_ns`.
        let message = if args.rate > 0 { node.message_until(rows, unix_ns())? } else { node.next_message(rows)? };
        out.send(&node.name, &message)?;
        written += rows;
        messages += 1;
    }
    // Before the report: it states what is acknowledged, which the tables must then hold.
    out.finish()?;
    let mut seqs: BTreeMap<&str, Value> = BTreeMap::new();
    for node in &nodes {
        let Range { start, end } = node.seqs();
        seqs.insert(&node.name, json!({ "first_seq": start, "next_seq": end }));
    }
    line(&json!({ "events": written, "messages": messages, "seed": spec.seed, "nodes": seqs }).to_string())
}
