//! What checksums cost: reading a table's files with and without comparing them, beside reading the rows in them.

use std::path::Path;
use std::time::{Duration, Instant};

use event_schema::position::{Message, TopicPartition};
use event_schema::topics;
use futures::TryStreamExt;
use lake::{CommitOutcome, CommitRequest, Lake, TableSnapshot, Token};
use objects::Verified;
use tables::arrival::Arrival;
use tables::registry::find;
use tables::seen::Seen;

use super::BenchError;
use super::report::Report;
use fleet_sim::FleetSpec;

/// Rows of the table at most, in messages of as many. Messages that do not fill a file are left out.
const ROWS: usize = 4_000_000;
const ROWS_OF_MESSAGE: usize = 16_384;
/// Messages that are one file.
const MESSAGES_OF_FILE: usize = 32;
/// Each figure is the median of as many runs, which take turns.
const RUNS: usize = 7;

/// Writes the table into the lake below `dir` and reads it again and again.
///
/// # Errors
/// When it cannot be written or read.
pub async fn run(lake: &Lake, dir: &Path) -> Result<Report, BenchError> {
    let mut report = Report::new("checksum");
    write(lake).await?;
    let snapshot = lake.table("silver", "events").snapshot().await?;
    let files: Vec<_> =
        snapshot.plan(&[]).await?.iter().map(|file| dir.join("warehouse").join(file.path.as_ref())).collect();
    let bytes: u64 = snapshot.plan(&[]).await?.iter().map(|file| file.size_bytes).sum();
    let mut plain = Vec::new();
    let mut compared = Vec::new();
    let mut decoded = Vec::new();
    for _ in 0..RUNS {
        // In turn, so that a slow moment of the machine affects all three; the median excludes a first round that fills
        // the page cache.
        let started = Instant::now();
        for file in &files {
            std::fs::read(file).map_err(|source| BenchError::io(format!("reading {}", file.display()), source))?;
        }
        plain.push(started.elapsed());
        compared.push(compare(&snapshot).await?);
        decoded.push(decode(&snapshot).await?);
    }
    let plain = median(plain);
    let compared = median(compared);
    let decoded = median(decoded);
    let megabytes = bytes as f64 / 1e6;
    report.add("bytes of silver.events".to_owned(), megabytes, "MB", "");
    for (what, time) in [
        ("read only", plain),
        ("read and compared with checksums", compared),
        ("read, compared and decoded, all columns", decoded),
    ] {
        report.add(what.to_owned(), megabytes / time.as_secs_f64(), "MB/s", "");
    }
    // Noise may make the longer path the faster one.
    let extra = compared.saturating_sub(plain).as_secs_f64();
    report.add(
        "checksums and their reader, share of decoding".to_owned(),
        100.0 * extra / decoded.as_secs_f64(),
        "%",
        "5",
    );
    Ok(report)
}

async fn write(lake: &Lake) -> Result<(), BenchError> {
    let Some(table) = find("silver", "events") else { return Ok(()) };
    let handle = lake.ensure_table(&table.def).await?;
    let start_wall_ns = crate::out::unix_ns();
    let spec = FleetSpec { nodes: 4, ranks_per_node: 8, seed: 1, rows: ROWS_OF_MESSAGE, gap_ns: 10_000, start_wall_ns };
    let mut nodes = spec.build();
    let mut seen = Seen::new();
    let at = TopicPartition::new(topics::EVENTS, 0);
    let mut arrivals = Vec::new();
    let count = nodes.len().max(1);
    for number in 0..ROWS.div_ceil(ROWS_OF_MESSAGE) {
        let Some(node) = nodes.get_mut(number % count) else { break };
        let payload = node.next_message(ROWS_OF_MESSAGE)?;
        let offset = i64::try_from(number).unwrap_or(i64::MAX);
        let message = Message { at: at.clone(), offset, timestamp_ms: 0, key: None, payload, headers: Vec::new() };
        arrivals.push(Arrival::decode(message, 0).admit(&mut seen));
        if arrivals.len() == MESSAGES_OF_FILE {
            let files = handle.write(&table.rows(&std::mem::take(&mut arrivals).iter().collect::<Vec<_>>())?).await?;
            // Without ranges: the rows come from no log, so that the table has no offsets to check.
            match handle.commit(CommitRequest::new(Vec::new(), Token::random(), files)).await {
                CommitOutcome::Committed(_) => {}
                other => return Err(BenchError::Commit { outcome: format!("{other:?}") }),
            }
        }
    }
    Ok(())
}

async fn compare(snapshot: &TableSnapshot) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let mut files = snapshot.verify_files().await?;
    while let Some(file) = files.try_next().await? {
        if file.outcome != Ok(Verified::Sound) {
            return Err(BenchError::Damaged { file: file.location });
        }
    }
    Ok(started.elapsed())
}

async fn decode(snapshot: &TableSnapshot) -> Result<Duration, BenchError> {
    let started = Instant::now();
    let mut batches = snapshot.scan_batches(&[], &[]).await?;
    // Batches are decoded as they are asked for, and dropped.
    while batches.try_next().await?.is_some() {}
    Ok(started.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
