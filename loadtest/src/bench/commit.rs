//! Commit time by length of history: what must not grow.

use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, OffsetRange, TopicPartition};
use event_schema::topics;
use lake::{CommitOutcome, CommitRequest, Lake, Token};
use tables::arrival::Arrival;
use tables::registry::find;
use tables::seen::Seen;

use super::BenchError;
use super::report::Report;
use fleet_sim::FleetSpec;

/// Lengths of history the time is printed for.
const HISTORY: [usize; 3] = [10, 100, 1_000];
/// Commits each figure is the median of.
const MEDIAN_OF: usize = 9;
/// Commits of which the slowest is printed: every sixteenth merges manifests, which the median hides.
const SLOWEST_OF: usize = 64;

/// Commits a small file again and again to one table.
///
/// # Errors
/// When a commit does not succeed.
pub async fn run(lake: &Lake) -> Result<Report, BenchError> {
    let mut report = Report::new("commit");
    let Some(table) = find("silver", "events") else { return Ok(report) };
    let handle = lake.ensure_table(&table.def).await?;
    let spec = FleetSpec {
        nodes: 1,
        ranks_per_node: 8,
        seed: 1,
        rows: 64,
        gap_ns: 1_000_000,
        start_wall_ns: crate::out::unix_ns(),
    };
    let mut nodes = spec.build();
    let mut seen = Seen::new();
    let at = TopicPartition::new(topics::EVENTS, 0);
    let mut times: Vec<Duration> = Vec::new();
    // The longest history, and the half of its median that lies behind it.
    for offset in 0..1_005i64 {
        let Some(node) = nodes.first_mut() else { break };
        let payload: Bytes = node.next_message(64)?;
        let message = Message { at: at.clone(), offset, timestamp_ms: 0, key: None, payload, headers: Vec::new() };
        let arrival = Arrival::decode(message, 0).admit(&mut seen);
        // Not measured: writing a file does not depend on the history.
        let files = handle.write(&table.rows(&[&arrival])?).await?;
        let request =
            CommitRequest::new(vec![OffsetRange::new(at.clone(), offset, offset + 1)], Token::random(), files);
        let started = Instant::now();
        match handle.commit(request).await {
            CommitOutcome::Committed(_) => times.push(started.elapsed()),
            other => return Err(BenchError::Commit { outcome: format!("{other:?}") }),
        }
    }
    let mut first = 0.0;
    for history in HISTORY {
        // A window of 64 commits holds four merges of manifests, also at the short history.
        let last = (history + MEDIAN_OF / 2).max(SLOWEST_OF);
        let slowest = times.iter().skip(last - SLOWEST_OF).take(SLOWEST_OF).max().copied().unwrap_or_default();
        // Centred on commit number `history`, which is at index `history - 1`.
        let start = history.saturating_sub(MEDIAN_OF / 2 + 1);
        let mut around: Vec<_> = times.iter().skip(start).take(MEDIAN_OF).map(|t| t.as_secs_f64() * 1e3).collect();
        around.sort_by(f64::total_cmp);
        let median = around.get(around.len() / 2).copied().unwrap_or(f64::NAN);
        if history == HISTORY[0] {
            first = median;
        }
        report.add(format!("commit time at {history} commits of history (median of {MEDIAN_OF})"), median, "ms", "");
        report.add(format!("… slowest of {SLOWEST_OF}"), slowest.as_secs_f64() * 1e3, "ms", "");
        report.add(format!("… ratio to {} commits", HISTORY[0]), median / first, "x", "about 1");
    }
    Ok(report)
}
