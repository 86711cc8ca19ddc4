//! Causal chains of a window of time: the chain engine run over the window's events, together with the chains that were stored.

use std::collections::BTreeSet;

use chain_engine::{COLUMNS, Chain, ColumnError, Finding, Settings, Severity, Step, Verdict};
use chrono::DateTime;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use serde::Deserialize;

use crate::engine::error::QueryError;
use crate::engine::run::UsedSnapshot;
use crate::engine::{Engine, Query};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Unix nanoseconds, inclusive.
    pub from_ns: i64,
    /// Unix nanoseconds, inclusive.
    pub to_ns: i64,
    /// Only this job.
    pub job: Option<String>,
}

/// What was found in a window.
#[derive(Debug)]
pub struct Detection {
    /// One per run of a job.
    pub findings: Vec<Finding>,
    /// Found and stored chains, the most severe first, then the latest.
    pub chains: Vec<Chain>,
    /// Nodes that have events or chains in the window.
    pub nodes: BTreeSet<String>,
    /// What was read.
    pub snapshots: Vec<UsedSnapshot>,
}

/// Why a window could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("events cannot be given to the chain engine")]
    Columns(#[from] ColumnError),
    #[error("the chain engine ended without an answer; the log has the reason")]
    Ended,
}

/// Runs the chain engine over a window and adds the stored chains of that window.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub async fn detect(engine: &Engine, window: &Window) -> Result<Detection, DetectError> {
    let mut detector = chain_engine::Engine::new(Settings::default());
    let mut nodes = BTreeSet::new();
    note_losses(engine, window, &mut detector, &mut nodes).await?;
    let mut events = engine.query(Query::unbounded(events_sql(window))).await?;
    while let Some(batch) = events.next().await {
        detector.push(&batch?)?;
    }
    let snapshots = events.snapshots().to_vec();
    let findings = tokio::task::spawn_blocking(move || detector.finish()).await.map_err(|_| DetectError::Ended)?;
    let found = findings.iter().flat_map(|finding| match &finding.verdict {
        Verdict::Chains { chains } => chains.as_slice(),
        Verdict::Healthy { .. } | Verdict::Unknown { .. } => &[],
    });
    let mut chains: Vec<Chain> = found.cloned().collect();
    chains.extend(stored(engine, window).await?);
    chains.sort_by(|a, b| (b.severity, b.last_seen_ns, &a.id).cmp(&(a.severity, a.last_seen_ns, &b.id)));
    nodes.extend(chains.iter().map(|chain| chain.node.clone()));
    nodes.extend(findings.iter().flat_map(|finding| finding.nodes.iter().cloned()));
    Ok(Detection { findings, chains, nodes, snapshots })
}

/// A text as an SQL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time as an SQL literal of the type of the lake's times. What lies beyond the calendar becomes its end.
fn instant(unix_ns: i64) -> String {
    let time = DateTime::from_timestamp_nanos(unix_ns);
    format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f+00:00"))
}

fn events_sql(window: &Window) -> String {
    let Window { from_ns, to_ns, job } = window;
    let job = job.as_deref().map(|job| format!(" AND job_id = {}", quoted(job))).unwrap_or_default();
    let columns = COLUMNS.join(", ");
    format!("SELECT {columns} FROM silver.events WHERE ts_ns BETWEEN {from_ns} AND {to_ns}{job}")
}

/// Tells the detector what the window's nodes lost, so that it does not call a gap healthy.
async fn note_losses(
    engine: &Engine,
    window: &Window,
    detector: &mut chain_engine::Engine,
    nodes: &mut BTreeSet<String>,
) -> Result<(), DetectError> {
    let sql = format!(
        "SELECT cluster, node, sum(ring_drop + shed + spool_drop) AS lost FROM ops.ledger \
         WHERE node <> '' AND last_ts >= {} AND first_ts <= {} GROUP BY cluster, node",
        instant(window.from_ns),
        instant(window.to_ns),
    );
    for batch in engine.query(Query::unbounded(sql)).await?.collect().await? {
        let rows = Columns(&batch);
        for row in 0..batch.num_rows() {
            let (Some(cluster), Some(node)) = (rows.text("cluster", row), rows.text("node", row)) else {
                continue;
            };
            let lost = rows.long("lost", row).and_then(|lost| u64::try_from(lost).ok()).unwrap_or(0);
            if lost > 0 {
                detector.note_loss(&cluster, &node, lost);
            }
            nodes.insert(node);
        }
    }
    Ok(())
}

async fn stored(engine: &Engine, window: &Window) -> Result<Vec<Chain>, DetectError> {
    // A stored chain has no job: it is the answer of a tracer that knew of none.
    if window.job.is_some() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT chain_id, node, severity, summary, detected_ns, root_cause, explanation, recommendations, op, p99_us, p50_us, \
         tail_ratio, timeline FROM gold.chains WHERE detected_ns BETWEEN {} AND {}",
        window.from_ns, window.to_ns
    );
    let batches = engine.query(Query::unbounded(sql)).await?.collect().await?;
    Ok(batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| chain(batch, row))).collect())
}

fn chain(batch: &RecordBatch, row: usize) -> Option<Chain> {
    let rows = Columns(batch);
    let severity = rows.text("severity", row).and_then(|name| Severity::from_name(&name)).unwrap_or(Severity::Low);
    let (id, node) = (rows.text("chain_id", row)?, rows.text("node", row)?);
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

/// Cells of a batch by column name; `None` for null and for a column of another type.
struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn text(&self, name: &str, row: usize) -> Option<String> {
        let column = self.0.column_by_name(name)?.as_string_view_opt()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    }

    fn long(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    fn double(&self, name: &str, row: usize) -> Option<f64> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str, row: usize) -> Option<T> {
        serde_json::from_str(&self.text(name, row)?).ok()
    }
}
