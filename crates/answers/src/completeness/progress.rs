//! Waits until a stretch of time has landed. What a node made up to a moment has landed when each of its streams of
//! events has landed a row from that moment or later: within a stream nothing overtakes. An agent sends a beacon on
//! each stream when it falls idle, and one every half minute while it is, which shows that an idle stream is whole too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use event_schema::position::TopicPartition;
use query_engine::time::rfc3339;
use query_engine::{Engine, Query, QueryError, literal};
use serde::{Deserialize, Serialize};
use service_kit::clock::Clock;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::extent::SILENT_MS;
use super::facts::{has_ended, other_columns};
use crate::columns::Columns;

/// Interval between two looks at what has landed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// An idle stream is taken as whole when nothing more of it has landed for so long after the end of the stretch: longer
/// than a batch takes from the probes to the tables (batch age, spool, commit) on a machine that is not overloaded.
const QUIET_MS: i64 = 2_000;
/// How far back to look for streams, milliseconds: one that has landed nothing for so long is not waited for.
const RECENT_MS: i64 = 5 * SILENT_MS;

/// How a wait ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landing {
    /// The nodes of which something is still on its way.
    pub still: Vec<StillLanding>,
}

/// A node of which something is still on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StillLanding {
    /// Name of the node.
    pub node: String,
    /// Up to when everything of it has landed, RFC 3339.
    pub complete_to: Option<String>,
    /// From there to the end of the stretch, milliseconds.
    pub behind_ms: i64,
}

/// Waits at most `most` until everything that the nodes wanted (all when there are none) made up to `to_ms` has landed
/// in the tables of events.
///
/// # Errors
/// The lake cannot be read.
pub async fn settle(
    engine: &Engine,
    clock: &dyn Clock,
    (to_ms, wanted): (i64, &BTreeSet<String>),
    most: Duration,
) -> Result<Landing, QueryError> {
    let asked_ms = clock.now_ms();
    // A window may end in the future: what is not made yet is not waited for.
    let to_ms = to_ms.min(asked_ms);
    // A monotonic clock: a step of the wall clock (NTP) neither shortens nor prolongs the wait.
    let deadline = Instant::now() + most;
    loop {
        let streams = streams(engine, asked_ms).await?;
        let now_ms = clock.now_ms();
        // After the ledger: a batch that `silver.events` commits between the two reads then counts as readable, which
        // it is.
        let landed = landed_in_events(engine).await?;
        let still = still_landing(&streams, wanted, (to_ms, asked_ms, now_ms), &landed);
        let left = deadline.saturating_duration_since(Instant::now());
        // At least one look, also with a wait of zero: what is still landing is reported in any case.
        if still.is_empty() || left.is_zero() {
            return Ok(Landing { still });
        }
        sleep(LOOK_EVERY.min(left)).await;
    }
}

/// Up to which offset `silver.events` has landed each partition: each table commits by itself.
async fn landed_in_events(engine: &Engine) -> Result<BTreeMap<TopicPartition, i64>, QueryError> {
    let in_events = landed_in(engine, "silver", "events").await?;
    Ok(with_new_partitions(in_events, landed_in(engine, "ops", "ledger").await?))
}

async fn landed_in(engine: &Engine, namespace: &str, name: &str) -> Result<BTreeMap<TopicPartition, i64>, QueryError> {
    let snapshot = engine.snapshot(namespace, name).await?;
    let offsets = snapshot.map(|snapshot| snapshot.offsets()).unwrap_or_default();
    Ok(offsets.into_iter().map(|(at, next)| (at, next.0)).collect())
}

/// Of a partition that the ledger has and the table of events has never committed nothing can be read yet.
fn with_new_partitions(
    mut landed: BTreeMap<TopicPartition, i64>,
    in_ledger: BTreeMap<TopicPartition, i64>,
) -> BTreeMap<TopicPartition, i64> {
    for at in in_ledger.into_keys() {
        landed.entry(at).or_insert(0);
    }
    landed
}

/// One stream of events of one run of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    node: String,
    /// Boot and epoch.
    run: (String, i64),
    last_ms: i64,
    landed_ms: i64,
    live: bool,
    /// Its newest message has one row, as that of a beacon on an idle stream has.
    is_idle: bool,
    /// Its newest message.
    at: TopicPartition,
    offset: i64,
    has_ended: bool,
}

impl Stream {
    /// Whether all that it made up to `to_ms` can be read now; both times are unix milliseconds.
    fn is_whole(&self, to_ms: i64, now_ms: i64, landed: &BTreeMap<TopicPartition, i64>) -> bool {
        // Each table commits by itself (ADR 39): the ledger may have a message whose events are not committed yet.
        let is_readable = landed.get(&self.at).is_none_or(|next| *next > self.offset);
        // Counted from the later of the two: a batch that was open at the end needs this long to land.
        let is_quiet = self.is_idle && now_ms - self.landed_ms.max(to_ms) >= QUIET_MS;
        is_readable && (self.last_ms >= to_ms || is_quiet)
    }
}

async fn streams(engine: &Engine, now_ms: i64) -> Result<Vec<Stream>, QueryError> {
    let since_ns = now_ms.saturating_sub(RECENT_MS).saturating_mul(1_000_000);
    let since = literal::instant(since_ns);
    // The newest message of a stream is the one with the greatest sequence number: within a stream nothing overtakes,
    // while clocks may step. Rows of a `forwarded` message land with its copy in the home partition (ADR 23).
    let sql = format!(
        "SELECT l.node, l.boot_id, l.epoch, max(l.last_ts) AS last_ts, max(l.ingested_at) AS landed_at, \
         bool_or(l.last_ts >= l.ingested_at - INTERVAL '10 minutes') AS live, \
         last_value(l.rows ORDER BY l.first_seq) AS last_rows, \
         last_value(l.log_name ORDER BY l.first_seq) AS log_name, \
         last_value(l.log_partition ORDER BY l.first_seq) AS log_partition, \
         last_value(l.log_offset ORDER BY l.first_seq) AS log_offset, max(e.stopped_ns) AS stopped_ns \
         FROM ops.ledger l LEFT JOIN (SELECT node, boot_id, epoch, max(stopped_ns) AS stopped_ns FROM silver.nodes \
         WHERE stopped_ns >= {since_ns} GROUP BY node, boot_id, epoch) e \
         ON e.node = l.node AND e.boot_id = l.boot_id AND e.epoch = l.epoch \
         WHERE l.node <> '' AND l.kind = 'event' AND l.rows > 0 AND l.status <> 'forwarded' \
         AND l.ingested_at >= {since} \
         GROUP BY l.node, l.boot_id, l.epoch, l.stream"
    );
    let batches = engine.query(Query::housekeeping(&sql)?).await?.collect().await?;
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| stream_of(&Columns(batch), row)));
    rows.collect::<Option<_>>().ok_or_else(other_columns)
}

fn stream_of(rows: &Columns<'_>, row: usize) -> Option<Stream> {
    let last_ms = rows.time_ms("last_ts", row)?;
    let stopped_ms = rows.long("stopped_ns", row).map(|ns| ns.div_euclid(1_000_000));
    Some(Stream {
        node: rows.text("node", row)?,
        run: (rows.text("boot_id", row)?, rows.long("epoch", row)?),
        last_ms,
        landed_ms: rows.time_ms("landed_at", row)?,
        live: rows.flag("live", row).unwrap_or(false),
        is_idle: rows.long("last_rows", row)? == 1,
        at: TopicPartition::new(rows.text("log_name", row)?, rows.int("log_partition", row)?),
        offset: rows.long("log_offset", row)?,
        has_ended: has_ended(stopped_ms, last_ms),
    })
}

/// The nodes of which something up to `to_ms` may still be on its way; times are unix milliseconds: the end of the
/// stretch, when it was asked for, and now.
fn still_landing(
    streams: &[Stream],
    wanted: &BTreeSet<String>,
    (to_ms, asked_ms, now_ms): (i64, i64, i64),
    landed: &BTreeMap<TopicPartition, i64>,
) -> Vec<StillLanding> {
    let mut of_nodes: BTreeMap<&str, Vec<&Stream>> = BTreeMap::new();
    for stream in streams.iter().filter(|stream| wanted.is_empty() || wanted.contains(&stream.node)) {
        of_nodes.entry(&stream.node).or_default().push(stream);
    }
    let mut still = Vec::new();
    for (node, streams) in of_nodes {
        if let Some(behind) = behind(&streams, (to_ms, asked_ms, now_ms), landed) {
            // Negative where rows from after the end are in the ledger, but cannot be read in `silver.events` yet.
            let behind_ms = (to_ms - behind).max(0);
            still.push(StillLanding { node: node.to_owned(), complete_to: rfc3339(behind), behind_ms });
        }
    }
    still
}

/// Up to when the streams of one node have landed, unix milliseconds; `None` where nothing up to the end of the stretch
/// is waited for. The times are as for [`still_landing`].
fn behind(
    streams: &[&Stream],
    (to_ms, asked_ms, now_ms): (i64, i64, i64),
    landed: &BTreeMap<TopicPartition, i64>,
) -> Option<i64> {
    let latest = streams.iter().max_by_key(|stream| stream.last_ms)?;
    let newest_ms = streams.iter().map(|stream| stream.landed_ms).max()?;
    // A recording was made long before it landed, an ended run makes nothing more, and one that is silent is not waited
    // for.
    if !latest.live || latest.has_ended || asked_ms - newest_ms > SILENT_MS {
        return None;
    }
    let current = streams.iter().filter(|stream| stream.run == latest.run);
    current.filter(|stream| !stream.is_whole(to_ms, now_ms, landed)).map(|stream| stream.last_ms).min()
}

#[cfg(test)]
mod tests;
