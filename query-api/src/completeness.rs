//! How complete an answer is: which nodes there are, which fell silent, and what was lost on the way. From `ops.ledger` alone.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::arrow::record_batch::RecordBatch;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::error::QueryError;
use crate::engine::run::UsedSnapshot;
use crate::engine::{Engine, Query};
use crate::http::rfc3339;

/// A node that landed nothing for so long is missing.
const SILENT_MS: i64 = 120_000;
/// How far back nodes are looked for.
const WINDOW_MS: i64 = 24 * 3_600_000;
/// How long what was read from the ledger is used again.
const FRESH: Duration = Duration::from_secs(1);

/// What every answer says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Completeness {
    /// Nodes that landed anything within a day.
    pub nodes_expected: usize,
    /// Of those, the ones that are not missing.
    pub nodes_reporting: usize,
    /// Live nodes that fell silent. Imported recordings are never missing.
    pub missing: Vec<String>,
    /// Events the probes made that will never land, not counting those left out on purpose.
    pub lost_events: i64,
    /// The newest commit in the answer, RFC 3339.
    pub as_of: Option<String>,
    /// The snapshot of `silver.events` in the answer, when it reads it; else of its only table.
    pub snapshot_id: Option<i64>,
}

/// What the ledger says about one node over the last day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFacts {
    pub node: String,
    pub cluster: String,
    pub agent: Option<String>,
    /// Unix milliseconds of its newest event.
    #[serde(skip)]
    pub last_event_ms: i64,
    /// Unix milliseconds of its newest landing.
    #[serde(skip)]
    pub landed_ms: i64,
    /// Its rows landed soon after they were made; a recording's do not.
    pub live: bool,
    pub rows: i64,
    pub emitted: i64,
    pub lost_events: i64,
    pub sampled_out: i64,
}

impl NodeFacts {
    /// A live node that has landed nothing for two minutes.
    pub fn is_missing(&self, now_ms: i64) -> bool {
        self.live && now_ms - self.landed_ms > SILENT_MS
    }
}

const LEDGER: &str = "SELECT node, last_value(cluster ORDER BY ingested_at) AS cluster, \
     last_value(agent ORDER BY ingested_at) AS agent, max(last_ts) AS last_ts, max(ingested_at) AS landed_at, \
     bool_or(last_ts >= ingested_at - INTERVAL '10 minutes') AS live, sum(landed_rows) AS landed, sum(emitted) AS emitted, \
     sum(ring_drop + shed + spool_drop) AS lost, sum(sampled_out) AS sampled_out \
     FROM ops.ledger WHERE node <> '' AND ingested_at >= TIMESTAMP '{since}' GROUP BY node ORDER BY node";

/// Reads the ledger, at most once a second for all who ask.
#[derive(Debug, Default)]
pub struct Ledger {
    last: Mutex<Option<(Instant, Arc<[NodeFacts]>)>>,
}

impl Ledger {
    /// What is known of each node.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn nodes(&self, engine: &Engine, now_ms: i64) -> Result<Arc<[NodeFacts]>, QueryError> {
        let mut last = self.last.lock().await;
        if let Some((read_at, nodes)) = last.as_ref().filter(|(read_at, _)| read_at.elapsed() < FRESH) {
            tracing::trace!(age_ms = read_at.elapsed().as_millis(), "ledger read again");
            return Ok(Arc::clone(nodes));
        }
        let nodes: Arc<[NodeFacts]> = read(engine, now_ms).await?.into();
        *last = Some((Instant::now(), Arc::clone(&nodes)));
        Ok(nodes)
    }

    /// How complete an answer over these snapshots is; `None` (and a line in the log) when the ledger cannot be read.
    pub async fn of(&self, engine: &Engine, snapshots: &[UsedSnapshot], now_ms: i64) -> Option<Completeness> {
        match self.nodes(engine, now_ms).await {
            Ok(nodes) => Some(completeness(&nodes, snapshots, now_ms)),
            Err(error) => {
                tracing::warn!(%error, "completeness is unknown: the ledger cannot be read");
                None
            }
        }
    }
}

fn completeness(nodes: &[NodeFacts], snapshots: &[UsedSnapshot], now_ms: i64) -> Completeness {
    let missing: Vec<String> =
        nodes.iter().filter(|node| node.is_missing(now_ms)).map(|node| node.node.clone()).collect();
    let events = snapshots.iter().find(|used| used.table == "silver.events").or_else(|| snapshots.first());
    Completeness {
        nodes_expected: nodes.len(),
        nodes_reporting: nodes.len() - missing.len(),
        missing,
        lost_events: nodes.iter().map(|node| node.lost_events).sum(),
        as_of: snapshots.iter().filter_map(|used| used.committed_ms).max().and_then(rfc3339),
        snapshot_id: events.and_then(|used| used.snapshot_id),
    }
}

async fn read(engine: &Engine, now_ms: i64) -> Result<Vec<NodeFacts>, QueryError> {
    let since = DateTime::from_timestamp_millis(now_ms - WINDOW_MS).unwrap_or_default();
    let sql = LEDGER.replace("{since}", &since.format("%Y-%m-%d %H:%M:%S+00:00").to_string());
    let batches = engine.query(Query::housekeeping(sql)).await?.collect().await?;
    batches.iter().try_fold(Vec::new(), |mut nodes, batch| {
        nodes.extend(facts(batch).ok_or_else(|| QueryError::Internal {
            message: "the ledger has other columns than this program knows".to_owned(),
        })?);
        Ok(nodes)
    })
}

fn facts(batch: &RecordBatch) -> Option<Vec<NodeFacts>> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_view_opt();
    let long = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let time = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
    let (node, cluster, agent) = (text("node")?, text("cluster")?, text("agent")?);
    let (last_ts, landed_at) = (time("last_ts")?, time("landed_at")?);
    let live = batch.column_by_name("live")?.as_boolean_opt()?;
    let (landed, emitted) = (long("landed")?, long("emitted")?);
    let (lost, sampled_out) = (long("lost")?, long("sampled_out")?);
    let fact = |row: usize| NodeFacts {
        node: node.value(row).to_owned(),
        cluster: cluster.value(row).to_owned(),
        agent: agent.is_valid(row).then(|| agent.value(row).to_owned()),
        last_event_ms: last_ts.value(row).div_euclid(1_000),
        landed_ms: landed_at.value(row).div_euclid(1_000),
        live: live.value(row),
        rows: landed.value(row),
        emitted: emitted.value(row),
        lost_events: lost.value(row),
        sampled_out: sampled_out.value(row),
    };
    Some((0..batch.num_rows()).map(fact).collect())
}

#[cfg(test)]
mod tests;
