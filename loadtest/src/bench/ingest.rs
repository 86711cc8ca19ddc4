//! Kafka to committed tables: rate, CPU, bytes at rest, and the ratio to the bare limit, all in one run.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lake::{Lake, LakeOptions};
use tables::registry::Table;

use super::BenchError;
use super::bare::{self, Bare};
use super::report::Report;
use super::setup::{Kafka, lake_in, service};
use crate::child::Program;
use crate::out::Out;
use fleet_sim::FleetSpec;

/// The size of the run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events at most: as many full messages of every node as fit into it.
    pub events: usize,
    /// Events of each message.
    pub rows_per_message: usize,
    /// Nodes that take turns.
    pub nodes: usize,
    /// Partitions of the topic.
    pub partitions: i32,
}

/// Longest the run may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs the bench in `dir`.
///
/// # Errors
/// When a server or program cannot be started, or the events do not land in time.
pub async fn run(dir: &Path, size: Size) -> Result<Report, BenchError> {
    let messages = make_messages(size)?;
    let events: usize = size.rows_per_message * messages.len();
    let wire_bytes: usize = messages.iter().map(|(_, m)| m.len()).sum();

    // All messages are in Kafka before ingest starts: the rate is that of ingest, not of a producer beside it.
    let kafka = Kafka::start(dir)?;
    kafka.make_topics(size.partitions).await?;
    let mut out = Out::kafka(&kafka.config())?;
    for (node, message) in &messages {
        out.send(node, message)?;
    }
    out.finish()?;
    drop(out);

    let measured = land(dir, &kafka, (messages.len(), events as u64)).await?;
    // The bare limit is measured alone.
    drop(kafka);

    let payloads: Vec<Bytes> = messages.into_iter().map(|(_, m)| m).collect();
    let bare_lake = Lake::open(LakeOptions {
        catalog_uri: format!("sqlite://{}/bare.sqlite", dir.display()),
        warehouse: dir.join("bare").display().to_string(),
        s3: None,
    })
    .await?;
    let bare = bare::run(&bare_lake, &payloads, 32).await?;
    Ok(report(size, events, wire_bytes, &measured, &bare))
}

fn make_messages(size: Size) -> Result<Vec<(String, Bytes)>, BenchError> {
    let spec = FleetSpec {
        nodes: size.nodes,
        ranks_per_node: 8,
        seed: 1,
        rows: size.rows_per_message,
        gap_ns: 20_000,
        // Ten minutes ago: the events lie in the past as a whole.
        start_wall_ns: crate::out::unix_ns() - 600_000_000_000,
    };
    let mut nodes = spec.build();
    let per_node = size.events / size.rows_per_message / size.nodes;
    let mut messages = Vec::with_capacity(per_node * size.nodes);
    for _ in 0..per_node {
        for node in &mut nodes {
            messages.push((node.name.clone(), node.next_message(size.rows_per_message)?));
        }
    }
    Ok(messages)
}

struct Measured {
    /// From the start of the program to the last commit of silver.
    wall: Duration,
    /// Until every table has landed everything.
    cpu: Duration,
    peak_rss_mib: u64,
    silver_bytes: u64,
}

async fn land(dir: &Path, kafka: &Kafka, (messages, events): (usize, u64)) -> Result<Measured, BenchError> {
    let started = Instant::now();
    let program = Program::start(service("causeway-ingest", dir, kafka))?;
    let lake = Lake::open(lake_in(dir)).await?;
    let table = lake.table("silver", "events");
    let landed = loop {
        check_time(started, events)?;
        // Fails until ingest has made the table.
        if let Ok(snapshot) = table.snapshot().await
            && snapshot.total_records().unwrap_or(0) >= events
        {
            break snapshot;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // The rate ends here, CPU time below: other tables land later, and their work belongs to the cost of an event.
    let wall = started.elapsed();
    for table in tables::registry::all() {
        while !has_reached(&lake, table, messages).await {
            check_time(started, events)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let cpu = program.cpu_time()?;
    // Before the drain, while /proc has an entry.
    let peak_rss_mib = program.peak_rss_mib();
    program.drain()?;
    let files = landed.plan(&[]).await?;
    Ok(Measured { wall, cpu, peak_rss_mib, silver_bytes: files.iter().map(|f| f.size_bytes).sum() })
}

/// Fails once the run has taken too long.
fn check_time(started: Instant, events: u64) -> Result<(), BenchError> {
    match started.elapsed() > LIMIT {
        true => Err(BenchError::Timeout { what: format!("landing {events} events"), seconds: LIMIT.as_secs() }),
        false => Ok(()),
    }
}

/// Whether a table has gone through so many messages.
pub(super) async fn has_reached(lake: &Lake, table: &Table, messages: usize) -> bool {
    let name = table.def.name;
    let offsets = lake.table(name.namespace, name.name).offsets().await.unwrap_or_default();
    // The topic is new and has no transactions: the offsets of each partition begin at 0 and have no gaps.
    offsets.values().map(|next| next.0).sum::<i64>() >= i64::try_from(messages).unwrap_or(i64::MAX)
}

fn report(size: Size, events: usize, wire_bytes: usize, measured: &Measured, bare: &Bare) -> Report {
    let mut r = Report::new("ingest");
    let millions = events as f64 / 1e6;
    let cpu = measured.cpu.as_secs_f64() / millions;
    r.add("events", events as f64, "", "");
    r.add("rows per message", size.rows_per_message as f64, "", "");
    r.add("bytes per event on the wire", wire_bytes as f64 / events as f64, "B", "");
    r.add(
        "events/s, Kafka to committed silver (process start included)",
        events as f64 / measured.wall.as_secs_f64(),
        "/s",
        ">= 500,000",
    );
    r.add("CPU-seconds per million events, whole ingest process", cpu, "s", "<= 2");
    r.add("peak memory of ingest", measured.peak_rss_mib as f64, "MiB", "");
    r.add("bytes per event at rest in silver", measured.silver_bytes as f64 / events as f64, "B", "<= 14");
    r.add("bare limit: CPU-seconds per million events", bare.cpu_seconds_per_million(), "s", "");
    r.add("bare limit: bytes per event in silver", bare.silver_bytes as f64 / bare.rows as f64, "B", "");
    r.add("ratio of ingest to the bare limit", cpu / bare.cpu_seconds_per_million(), "x", "");
    r.add("  of which decode", bare.decode.as_secs_f64() / millions, "s", "");
    for table in &bare.tables {
        for (step, cpu) in [("rows", table.rows), ("Parquet", table.encode), ("files", table.write)] {
            r.add(format!("  of which {}: {step}", table.name), cpu.as_secs_f64() / millions, "s", "");
        }
    }
    r
}
