//! How complete an answer is: which nodes there are, which fell silent, and what was lost on the way. From `ops.ledger` alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::arrow::record_batch::RecordBatch;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::engine::error::QueryError;
use crate::engine::run::UsedSnapshot;
use crate::engine::{AsOf, Engine, HOUSEKEEPING, Query, literal};
use crate::http::rfc3339;

/// A node that landed nothing for so long is missing.
const SILENT_MS: i64 = 120_000;
/// How far back nodes are looked for.
const DAY_MS: i64 = 24 * 3_600_000;
/// How far back a node that is asked for by name is looked for. One that is not found is missing anyway.
const NAMED_DAYS: i64 = 30;
/// How long what was read from the ledger is used again.
const FRESH: Duration = Duration::from_secs(1);

/// What every answer says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Completeness {
    /// Nodes that landed anything within the day before, or within the time the answer is about.
    pub nodes_expected: usize,
    /// Of those, the ones that are not missing.
    pub nodes_reporting: usize,
    /// Live nodes that fell silent before the end. Imported recordings are never missing.
    pub missing: Vec<String>,
    /// Events the probes made in that time that will never land, not counting those left out on purpose.
    pub lost_events: i64,
    /// What landed in that time and a limit of the server kept from being looked at.
    pub unread_rows: u64,
    /// The newest commit in the answer, RFC 3339.
    pub as_of: Option<String>,
    /// The snapshot of `silver.events` in the answer, when it reads it; else of its only table.
    pub snapshot_id: Option<i64>,
}

/// The stretch of time an answer is about, unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins; `None` when nobody said, which stands for what landed within a day.
    pub from_ms: Option<i64>,
    /// Where it ends.
    pub to_ms: i64,
    /// The moment the lake is seen at: now, or a time in the past.
    pub seen_ms: i64,
    /// Whether that moment lies in the past, so that the ledger must be read as it was then.
    pub is_past: bool,
}

impl Extent {
    /// Everything, as it is now.
    pub fn now(now_ms: i64) -> Self {
        Self { from_ms: None, to_ms: now_ms, seen_ms: now_ms, is_past: false }
    }

    /// Everything, as it was.
    pub fn at(then_ms: i64) -> Self {
        Self { is_past: true, ..Self::now(then_ms) }
    }

    /// From then on.
    pub fn since(self, from_ms: Option<i64>) -> Self {
        Self { from_ms, ..self }
    }

    /// No later than then.
    pub fn until(self, to_ms: i64) -> Self {
        Self { to_ms: to_ms.min(self.seen_ms), ..self }
    }

    /// A live node that has landed nothing for two minutes, or of which nothing is known up to the end of a stretch in the past.
    pub fn misses(&self, node: &NodeFacts) -> bool {
        let known_ms = if self.to_ms < self.seen_ms { node.last_event_ms } else { node.landed_ms };
        node.live && self.to_ms - known_ms > SILENT_MS
    }

    fn sql(&self, about: &About<'_>) -> String {
        let instant = |ms: i64| literal::instant(ms.saturating_mul(1_000_000));
        let day_before = self.to_ms.saturating_sub(DAY_MS);
        let landed_since = self.from_ms.map_or(day_before, |from_ms| from_ms.min(day_before));
        let about = match about {
            About::Recent => format!("ingested_at >= {}", instant(landed_since)),
            About::Named(names) => {
                let names: Vec<String> = names.iter().map(|name| literal::text(name)).collect();
                let since = instant(self.to_ms.saturating_sub(NAMED_DAYS * DAY_MS));
                format!("ingested_at >= {since} AND node IN ({})", names.join(", "))
            }
        };
        // A clock that runs ahead must not hide its node from an answer that ends now.
        let ends_in_past = self.to_ms < self.seen_ms;
        let begun = if ends_in_past { made_by(&instant(self.to_ms)) } else { "true".to_owned() };
        let in_time = self.from_ms.map_or_else(|| "true".to_owned(), |from_ms| made_since(&instant(from_ms)));
        LEDGER.replace("{in_time}", &in_time).replace("{about}", &about).replace("{begun}", &begun)
    }
}

/// What the ledger says about one node.
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

/// What holds of the ledger's rows that tell of anything from a time on. A message without rows, which tells an agent's last
/// losses, has no time of its own; and nothing lands before it is made, which lets whole days be left out.
pub(crate) fn made_since(time: &str) -> String {
    format!(
        "(rows > 0 AND last_ts >= {time} OR rows = 0 AND ingested_at >= {time}) AND ingested_at >= {time} - INTERVAL '1 day'"
    )
}

/// What holds of those that tell of anything up to a time.
pub(crate) fn made_by(time: &str) -> String {
    format!("(rows > 0 AND first_ts <= {time} OR rows = 0 AND ingested_at <= {time})")
}

/// Which nodes the ledger is asked about.
enum About<'a> {
    /// Those that landed anything within a day, or within the extent.
    Recent,
    /// Those of these names that landed anything within [`NAMED_DAYS`].
    Named(&'a [&'a String]),
}

const LEDGER: &str = "SELECT node, last_value(cluster ORDER BY ingested_at) AS cluster, \
     last_value(agent ORDER BY ingested_at) AS agent, max(last_ts) AS last_ts, max(ingested_at) AS landed_at, \
     bool_or(last_ts >= ingested_at - INTERVAL '10 minutes') AS live, sum(landed_rows) AS landed, sum(emitted) AS emitted, \
     coalesce(sum(ring_drop + shed + spool_drop) FILTER (WHERE {in_time}), 0) AS lost, sum(sampled_out) AS sampled_out \
     FROM ops.ledger WHERE node <> '' AND {about} AND {begun} GROUP BY node ORDER BY node";

/// Reads the ledger; as it is now at most once a second for all who ask.
#[derive(Debug, Default)]
pub struct Ledger {
    last: Mutex<Option<(Instant, Arc<[NodeFacts]>)>>,
}

impl Ledger {
    /// What is known of each node that landed anything within a day, or within the extent.
    ///
    /// # Errors
    /// The ledger cannot be read, or not within a few seconds.
    pub async fn nodes(&self, engine: &Engine, extent: Extent) -> Result<Arc<[NodeFacts]>, QueryError> {
        self.nodes_by(engine, extent, Instant::now() + HOUSEKEEPING).await
    }

    async fn nodes_by(&self, engine: &Engine, extent: Extent, by: Instant) -> Result<Arc<[NodeFacts]>, QueryError> {
        let read = async {
            // What many ask for again and again is shared; a stretch of time is one person's question.
            if extent != Extent::now(extent.seen_ms) {
                return Ok(read(engine, extent, &About::Recent).await?.into());
            }
            let mut last = self.last.lock().await;
            if let Some((read_at, nodes)) = last.as_ref().filter(|(read_at, _)| read_at.elapsed() < FRESH) {
                tracing::trace!(age_ms = read_at.elapsed().as_millis(), "ledger read again");
                return Ok(Arc::clone(nodes));
            }
            let nodes: Arc<[NodeFacts]> = read(engine, extent, &About::Recent).await?.into();
            *last = Some((Instant::now(), Arc::clone(&nodes)));
            Ok(nodes)
        };
        let limit = HOUSEKEEPING;
        timeout_at(by, read).await.unwrap_or(Err(QueryError::Timeout { limit }))
    }

    /// How complete an answer over these snapshots is, as far as it is about the nodes wanted (all when there are none); `None`
    /// (and a line in the log) when the ledger cannot be read, or not by then.
    pub async fn of(
        &self,
        engine: &Engine,
        snapshots: &[UsedSnapshot],
        extent: Extent,
        wanted: &BTreeSet<String>,
        by: Option<Instant>,
    ) -> Option<Completeness> {
        let soon = Instant::now() + HOUSEKEEPING;
        let by = by.map_or(soon, |by| by.min(soon));
        let nodes = async {
            let mut nodes = self.nodes_by(engine, extent, by).await?.to_vec();
            let is_known = |name: &&String| nodes.iter().any(|node| node.node == **name);
            let others: Vec<&String> = wanted.iter().filter(|name| !is_known(name)).collect();
            if !others.is_empty() {
                let found = timeout_at(by, read(engine, extent, &About::Named(&others))).await;
                nodes.extend(found.unwrap_or(Err(QueryError::Timeout { limit: HOUSEKEEPING }))?);
            }
            Ok::<_, QueryError>(nodes)
        };
        match nodes.await {
            Ok(nodes) => Some(completeness(&nodes, wanted, snapshots, &extent)),
            Err(error) => {
                tracing::warn!(%error, "completeness is unknown: the ledger cannot be read");
                None
            }
        }
    }
}

fn completeness(
    nodes: &[NodeFacts],
    wanted: &BTreeSet<String>,
    snapshots: &[UsedSnapshot],
    extent: &Extent,
) -> Completeness {
    let nodes: Vec<&NodeFacts> = nodes.iter().filter(|node| wanted.is_empty() || wanted.contains(&node.node)).collect();
    // A node that nobody has heard of is as missing as one that fell silent.
    let unknown = wanted.iter().filter(|name| !nodes.iter().any(|node| node.node == **name));
    let unknown: Vec<String> = unknown.cloned().collect();
    let expected = nodes.len() + unknown.len();
    let silent = nodes.iter().filter(|node| extent.misses(node)).map(|node| node.node.clone());
    let missing: Vec<String> = silent.chain(unknown).collect();
    let events = snapshots.iter().find(|used| used.table == "silver.events").or_else(|| snapshots.first());
    Completeness {
        nodes_expected: expected,
        nodes_reporting: expected - missing.len(),
        missing,
        lost_events: nodes.iter().map(|node| node.lost_events).sum(),
        unread_rows: 0,
        as_of: snapshots.iter().filter_map(|used| used.committed_ms).max().and_then(rfc3339),
        snapshot_id: events.and_then(|used| used.snapshot_id),
    }
}

async fn read(engine: &Engine, extent: Extent, about: &About<'_>) -> Result<Vec<NodeFacts>, QueryError> {
    let as_of = extent.is_past.then_some(AsOf::Time(extent.seen_ms));
    let query = Query { as_of, ..Query::housekeeping(extent.sql(about)) };
    let batches = engine.query(query).await?.collect().await?;
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
