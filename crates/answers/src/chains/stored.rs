//! The chains that were stored: answers of other tracers, imported with their recordings.

use arrow::array::RecordBatch;
use chain_engine::{Chain, Severity, Step};
use query_engine::QueryError;
use tables::gold::chains::{COLUMNS, StoredChain, StoredStep, back};

use super::reading::Reading;
use crate::columns::Columns;
use crate::window::Window;

/// The stored chains of a window, the newest first and no more than one answer may hold; and how many there are
/// besides.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub(super) async fn stored(reading: &Reading<'_>, window: &Window) -> Result<(Vec<Chain>, u64), QueryError> {
    // A stored chain has no job: the tracer that made it has no notion of one.
    if window.job.is_some() {
        return Ok((Vec::new(), 0));
    }
    let condition = format!("detected_ns BETWEEN {} AND {}", window.from_ns, window.to_ns);
    let most = reading.rows();
    let sql = format!(
        "SELECT {} FROM gold.chains WHERE {condition} ORDER BY detected_ns DESC, chain_id LIMIT {most}",
        COLUMNS.join(", ")
    );
    let batches = reading.collect(sql).await?;
    let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let chains = batches.iter().flat_map(back).map(chain).collect();
    // Fewer than the limit: these are all, and a second query is spared.
    if read < most {
        return Ok((chains, 0));
    }
    let counted = reading.collect(format!("SELECT count(*) AS chains FROM gold.chains WHERE {condition}")).await?;
    // The count is of a later state of the table: after a roll-back it may be below what was read.
    let all = counted.first().and_then(|batch| Columns(batch).long("chains", 0)).unwrap_or(0);
    Ok((chains, u64::try_from(all).unwrap_or(0).saturating_sub(read as u64)))
}

fn chain(stored: StoredChain) -> Chain {
    // A severity without a name in this release must not hide the chain: it ranks lowest.
    let severity = stored.severity.and_then(|name| Severity::from_name(&name)).unwrap_or(Severity::Low);
    let summary = stored.summary.unwrap_or_default();
    Chain {
        root_cause: stored.root_cause.unwrap_or_default(),
        explanation: stored.explanation,
        fixes: stored.recommendations,
        op: stored.op,
        p99_ns: stored.p99_us.map(|us| us.saturating_mul(1_000)),
        p50_ns: stored.p50_us.map(|us| us.saturating_mul(1_000)),
        ratio: stored.tail_ratio,
        timeline: stored.timeline.into_iter().map(step).collect(),
        ..Chain::reported(stored.chain_id, stored.node, severity, summary, stored.detected_ns)
    }
}

fn step(stored: StoredStep) -> Step {
    let duration_ns = stored.dur_us.map(|us| us.saturating_mul(1_000));
    Step { layer: stored.layer, op: stored.op, detail: stored.detail, at_ns: None, duration_ns }
}
