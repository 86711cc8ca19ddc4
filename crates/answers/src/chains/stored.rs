//! The chains that were stored: answers of other tracers, imported with their recordings.

use arrow::array::RecordBatch;
use chain_engine::{Chain, Severity, Step};
use query_engine::QueryError;
use serde::Deserialize;

use super::reading::Reading;
use crate::columns::Columns;
use crate::window::Window;

/// The stored chains of a window, the newest first and no more than one answer may hold; and how many there are besides.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub(super) async fn stored(reading: &Reading<'_>, window: &Window) -> Result<(Vec<Chain>, u64), QueryError> {
    // A stored chain has no job: it is the answer of a tracer that knew of none.
    if window.job.is_some() {
        return Ok((Vec::new(), 0));
    }
    let condition = format!("detected_ns BETWEEN {} AND {}", window.from_ns, window.to_ns);
    let most = reading.rows();
    let sql = format!(
        "SELECT chain_id, node, severity, summary, detected_ns, root_cause, explanation, recommendations, op, p99_us, p50_us, \
         tail_ratio, timeline FROM gold.chains WHERE {condition} ORDER BY detected_ns DESC, chain_id LIMIT {most}"
    );
    let batches = reading.collect(sql).await?;
    let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let chains = batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| chain(batch, row))).collect();
    if read < most {
        return Ok((chains, 0));
    }
    let counted = reading.collect(format!("SELECT count(*) AS chains FROM gold.chains WHERE {condition}")).await?;
    let all = counted.first().and_then(|batch| Columns(batch).long("chains", 0)).unwrap_or(0);
    Ok((chains, u64::try_from(all).unwrap_or(0).saturating_sub(read as u64)))
}

fn chain(batch: &RecordBatch, row: usize) -> Option<Chain> {
    let rows = Columns(batch);
    let severity = rows.text("severity", row).and_then(|name| Severity::from_name(&name)).unwrap_or(Severity::Low);
    let id = rows.text("chain_id", row)?;
    let node = rows.text("node", row)?;
    let summary = rows.text("summary", row).unwrap_or_default();
    let mut chain = Chain::reported(id, node, severity, summary, rows.long("detected_ns", row)?);
    chain.root_cause = rows.text("root_cause", row).unwrap_or_default();
    chain.explanation = rows.text("explanation", row);
    chain.fixes = rows.json("recommendations", row).unwrap_or_default();
    chain.op = rows.text("op", row);
    chain.p99_ns = rows.long("p99_us", row).map(|us| us.saturating_mul(1_000));
    chain.p50_ns = rows.long("p50_us", row).map(|us| us.saturating_mul(1_000));
    chain.ratio = rows.double("tail_ratio", row);
    let steps: Vec<StoredStep> = rows.json("timeline", row).unwrap_or_default();
    chain.timeline = steps.into_iter().map(Step::from).collect();
    Some(chain)
}

/// A step as the reference tracer stores it.
#[derive(Debug, Deserialize)]
struct StoredStep {
    #[serde(default)]
    layer: String,
    #[serde(default)]
    op: String,
    #[serde(default)]
    detail: String,
    dur_us: Option<i64>,
}

impl From<StoredStep> for Step {
    fn from(step: StoredStep) -> Self {
        let duration_ns = step.dur_us.map(|us| us.saturating_mul(1_000));
        Self { layer: step.layer, op: step.op, detail: step.detail, at_ns: None, duration_ns }
    }
}
