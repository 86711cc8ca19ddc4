//! Waits until a stretch of time has landed. What a node made up to a moment has landed when each of its streams of events has
//! landed a row from that moment or later: within a stream nothing overtakes. An agent sends a beacon on each stream when it falls
//! idle, and one every half minute while it is, so that an idle stream is known to be whole too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use event_schema::position::TopicPartition;
use serde::Serialize;
use service_kit::clock::Clock;
use tokio::time::{Instant, sleep};

use super::extent::SILENT_MS;
use super::facts::has_ended;
use query_engine::QueryError;
use query_engine::time::rfc3339;
use query_engine::{Engine, Query, literal};

/// How often it is looked whether more has landed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// An idle stream is taken as whole when nothing more of it has landed for so long after the end of the stretch: longer than a
/// batch takes from the probes to the tables (batch age, spool, commit) on a machine that is not overloaded.
const QUIET_MS: i64 = 2_000;
/// How far back streams are looked for: one that has landed nothing for so long is not waited for.
const RECENT_MS: i64 = 5 * SILENT_MS;

/// How a wait ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landing {
    /// The nodes of which something is still on its way.
    pub still: Vec<StillLanding>,
}

/// A node of which something is still on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StillLanding {
    pub node: String,
    /// Up to when everything of it has landed, RFC 3339.
    pub complete_to: Option<String>,
    /// From there to the end of the stretch, milliseconds.
    pub behind_ms: i64,
}

/// Waits at most `most` until everything that the nodes wanted (all when there are none) made up to `to_ms` has landed in the
/// tables of events.
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
    let to_ms = to_ms.min(asked_ms);
    let deadline = Instant::now() + most;
    loop {
        let streams = streams(engine, asked_ms).await?;
        let now_ms = clock.now_ms();
        let landed = landed_in_events(engine).await?;
        let still = still_landing(&streams, wanted, (to_ms, asked_ms, now_ms), &landed);
        let left = deadline.saturating_duration_since(Instant::now());
        if still.is_empty() || left.is_zero() {
            return Ok(Landing { still });
        }
        sleep(LOOK_EVERY.min(left)).await;
    }
}

/// Up to which offset `silver.events` has landed each partition: each table commits by itself.
async fn landed_in_events(engine: &Engine) -> Result<BTreeMap<TopicPartition, i64>, QueryError> {
    let of = async |namespace: &str, name: &str| {
        let snapshot = engine.snapshot(namespace, name).await?;
        let offsets = snapshot.map(|snapshot| snapshot.offsets()).unwrap_or_default();
        Ok::<_, QueryError>(offsets.into_iter().map(|(at, next)| (at, next.0)).collect())
    };
    Ok(with_new_partitions(of("silver", "events").await?, of("ops", "ledger").await?))
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

const STREAMS: &str = "SELECT l.node, l.boot_id, l.epoch, max(l.last_ts) AS last_ts, max(l.ingested_at) AS landed_at, \
     bool_or(l.last_ts >= l.ingested_at - INTERVAL '10 minutes') AS live, \
     last_value(l.rows ORDER BY l.first_seq) AS last_rows, last_value(l.topic ORDER BY l.first_seq) AS topic, \
     last_value(l.kafka_partition ORDER BY l.first_seq) AS kafka_partition, \
     last_value(l.kafka_offset ORDER BY l.first_seq) AS kafka_offset, max(e.stopped_ns) AS stopped_ns \
     FROM ops.ledger l LEFT JOIN (SELECT node, boot_id, epoch, max(stopped_ns) AS stopped_ns FROM silver.nodes \
     WHERE stopped_ns >= {since_ns} GROUP BY node, boot_id, epoch) e \
     ON e.node = l.node AND e.boot_id = l.boot_id AND e.epoch = l.epoch \
     WHERE l.node <> '' AND l.kind = 'event' AND l.rows > 0 AND l.status <> 'forwarded' AND l.ingested_at >= {since} \
     GROUP BY l.node, l.boot_id, l.epoch, l.stream";

async fn streams(engine: &Engine, now_ms: i64) -> Result<Vec<Stream>, QueryError> {
    let since_ns = now_ms.saturating_sub(RECENT_MS).saturating_mul(1_000_000);
    let sql = STREAMS.replace("{since_ns}", &since_ns.to_string()).replace("{since}", &literal::instant(since_ns));
    let batches = engine.query(Query::housekeeping(&sql)?).await?.collect().await?;
    batches.iter().try_fold(Vec::new(), |mut streams, batch| {
        streams.extend(streams_of(batch).ok_or_else(|| QueryError::Internal {
            message: "the ledger has other columns than this program knows".to_owned(),
        })?);
        Ok(streams)
    })
}

fn streams_of(batch: &RecordBatch) -> Option<Vec<Stream>> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_view_opt();
    let long = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let time = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
    let flag = |name: &str| batch.column_by_name(name)?.as_boolean_opt();
    let node = text("node")?;
    let boot_id = text("boot_id")?;
    let epoch = long("epoch")?;
    let last_ts = time("last_ts")?;
    let landed_at = time("landed_at")?;
    let live = flag("live")?;
    let last_rows = long("last_rows")?;
    let topic = text("topic")?;
    let partition = batch.column_by_name("kafka_partition")?.as_primitive_opt::<Int32Type>()?;
    let offset = long("kafka_offset")?;
    let stopped_ns = long("stopped_ns")?;
    let has_ended = |row: usize| {
        let stopped_ms = stopped_ns.is_valid(row).then(|| stopped_ns.value(row).div_euclid(1_000_000));
        has_ended(stopped_ms, last_ts.value(row).div_euclid(1_000))
    };
    let stream = |row: usize| Stream {
        node: node.value(row).to_owned(),
        run: (boot_id.value(row).to_owned(), epoch.value(row)),
        last_ms: last_ts.value(row).div_euclid(1_000),
        landed_ms: landed_at.value(row).div_euclid(1_000),
        live: live.is_valid(row) && live.value(row),
        is_idle: last_rows.value(row) == 1,
        at: TopicPartition::new(topic.value(row), partition.value(row)),
        offset: offset.value(row),
        has_ended: has_ended(row),
    };
    Some((0..batch.num_rows()).map(stream).collect())
}

/// The nodes of which something up to `to_ms` may still be on its way; times are unix milliseconds: the end of the stretch, when it
/// was asked for, and now.
fn still_landing(
    streams: &[Stream],
    wanted: &BTreeSet<String>,
    (to_ms, asked_ms, now_ms): (i64, i64, i64),
    landed: &BTreeMap<TopicPartition, i64>,
) -> Vec<StillLanding> {
    let mut of_nodes: BTreeMap<&str, Vec<&Stream>> = BTreeMap::new();
    let is_wanted = |stream: &&Stream| wanted.is_empty() || wanted.contains(&stream.node);
    for stream in streams.iter().filter(is_wanted) {
        of_nodes.entry(&stream.node).or_default().push(stream);
    }
    let still = |(node, streams): (&str, Vec<&Stream>)| {
        let latest = streams.iter().max_by_key(|stream| stream.last_ms)?;
        let newest_ms = streams.iter().map(|stream| stream.landed_ms).max()?;
        let current = streams.iter().filter(|stream| stream.run == latest.run);
        // A recording was made long before it landed, an ended run makes nothing more, and one that is silent is not waited for.
        if !latest.live || latest.has_ended || asked_ms - newest_ms > SILENT_MS {
            return None;
        }
        let is_whole = |stream: &Stream| {
            let is_readable = landed.get(&stream.at).is_none_or(|next| *next > stream.offset);
            let is_quiet = stream.is_idle && now_ms - stream.landed_ms.max(to_ms) >= QUIET_MS;
            is_readable && (stream.last_ms >= to_ms || is_quiet)
        };
        let behind = current.filter(|stream| !is_whole(stream)).map(|stream| stream.last_ms).min()?;
        let complete_to = rfc3339(behind);
        let behind_ms = (to_ms - behind).max(0);
        Some(StillLanding { node: node.to_owned(), complete_to, behind_ms })
    };
    of_nodes.into_iter().filter_map(still).collect()
}

#[cfg(test)]
mod tests;
