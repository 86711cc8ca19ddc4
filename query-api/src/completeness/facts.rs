//! What the ledger says about each node: what it made and lost, and up to when all of it has landed.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, StringViewArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use serde::Serialize;

use super::BEHIND_US;
use super::extent::{Extent, SILENT_MS};
use super::subject::Subject;
use query_engine::QueryError;
use query_engine::{AsOf, Engine, Query, literal};

/// How far back nodes are looked for.
pub(super) const DAY_MS: i64 = 24 * 3_600_000;
/// An agent says that it ends after its last event; its clocks may disagree by a moment.
const END_SLACK_MS: i64 = 1_000;

/// What the ledger says about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFacts {
    pub node: String,
    pub cluster: String,
    pub agent: Option<String>,
    /// Unix milliseconds of its oldest and newest record in the time looked at.
    #[serde(skip)]
    pub first_event_ms: i64,
    #[serde(skip)]
    pub last_event_ms: i64,
    /// Unix milliseconds up to which every stream of events of its agent's latest run has landed.
    #[serde(skip)]
    pub complete_to_ms: i64,
    /// Unix milliseconds of the newest landing of the stream whose newest landing is oldest.
    #[serde(skip)]
    pub landed_ms: i64,
    /// When its agent said that it ends, unix milliseconds; `None` while nothing says so.
    #[serde(skip)]
    pub ended_ms: Option<i64>,
    /// Its rows landed soon after they were made; a recording's do not.
    pub live: bool,
    /// Whether it has rows in the time asked about.
    #[serde(skip)]
    pub has_rows: bool,
    pub rows: i64,
    pub emitted: i64,
    /// Of the records and the time asked about.
    pub lost_events: i64,
    pub sampled_out: i64,
}

impl NodeFacts {
    /// Whether the stretch lacks the end of what the node made: a live node of which nothing more is known for two minutes, and
    /// whose agent has not said that it ends.
    pub fn is_missing_from(&self, extent: &Extent) -> bool {
        // A clock that is behind must not make its node missing from an answer that ends now.
        let known_ms = if extent.ends_in_past() { self.complete_to_ms } else { self.landed_ms };
        self.live && self.ended_ms.is_none() && extent.to_ms - known_ms > SILENT_MS
    }
}

/// Which nodes the ledger is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    /// Those that landed anything within so many days before the extent's end, or within the extent.
    Recent { days: i64 },
    /// Those of these names that landed anything within so many days.
    Named { names: &'a [&'a String], days: i64 },
}

impl About<'_> {
    /// The earliest landing looked at, unix milliseconds.
    fn since_ms(&self, extent: &Extent) -> i64 {
        match self {
            Self::Recent { days } => {
                let before = extent.to_ms.saturating_sub(days.saturating_mul(DAY_MS));
                extent.from_ms.map_or(before, |from_ms| from_ms.min(before))
            }
            Self::Named { days, .. } => extent.to_ms.saturating_sub(days.saturating_mul(DAY_MS)),
        }
    }

    fn sql(&self, extent: &Extent) -> String {
        let landed = format!("ingested_at >= {}", instant(self.since_ms(extent)));
        match self {
            Self::Recent { .. } => landed,
            Self::Named { names, .. } => {
                let names: Vec<String> = names.iter().map(|name| literal::text(name)).collect();
                format!("{landed} AND node IN ({})", names.join(", "))
            }
        }
    }
}

fn instant(unix_ms: i64) -> String {
    literal::instant(unix_ms.saturating_mul(1_000_000))
}

const STREAMS: &str = "SELECT node, boot_id, epoch, stream, last_value(cluster ORDER BY ingested_at) AS cluster, \
     last_value(agent ORDER BY ingested_at) AS agent, min(first_ts) FILTER (WHERE {here}) AS first_ts, \
     max(last_ts) FILTER (WHERE {here}) AS last_ts, max(ingested_at) AS landed_at, \
     bool_or(last_ts >= ingested_at - INTERVAL '10 minutes') AS live, bool_or(kind = 'event') AS is_of_events, \
     sum(landed_rows) AS landed, sum(emitted) AS emitted, sum(sampled_out) AS sampled_out, \
     bool_or({here} AND {with_rows} AND {in_time}) AS has_rows, \
     coalesce(sum(ring_drop + shed + spool_drop) FILTER (WHERE {of_kinds} AND {in_time}), 0) AS lost \
     FROM ops.ledger WHERE node <> '' AND {about} AND {begun} GROUP BY node, boot_id, epoch, stream";

/// Messages whose rows are in the tables: those of one that was forwarded come with its copy.
pub(super) const HERE: &str = "rows > 0 AND status <> 'forwarded'";

/// The losses that streams reported first after the end of a stretch of time, where the agent was behind from the last batch that
/// began before the end up to the report: it may have lost before the end what it reported then. It was behind where that batch was
/// written late, and none before the report shows that it looked at its counters, as a batch does that is not full.
const REPORTED_LATE: &str = "SELECT node, boot_id, epoch, \
     first_value(lost ORDER BY first_seq) FILTER (WHERE lost > 0 AND first_seq > begun) AS lost FROM \
     (SELECT node, boot_id, epoch, stream, rows, first_seq, ring_drop + shed + spool_drop AS lost, \
     kafka_ts > last_ts + INTERVAL '{behind_us} microseconds' AS is_late, \
     max(first_seq) FILTER (WHERE first_ts <= {to}) OVER of_stream AS begun, max(rows) OVER of_stream AS full_rows \
     FROM ops.ledger WHERE node <> '' AND rows > 0 AND {of_kinds} AND first_ts <= {to} + INTERVAL '60' SECOND \
     AND last_ts >= {to} - INTERVAL '60' SECOND AND ingested_at >= {to} - INTERVAL '1' DAY \
     WINDOW of_stream AS (PARTITION BY node, boot_id, epoch, stream)) AS batches WHERE first_seq >= begun \
     GROUP BY node, boot_id, epoch, stream \
     HAVING bool_or(first_seq = begun AND is_late) AND min(first_seq) FILTER (WHERE lost > 0 OR rows < full_rows) = \
     min(first_seq) FILTER (WHERE lost > 0 AND first_seq > begun)";

/// Reads what is known of nodes; `ops.ledger` and `silver.nodes` are all that is read.
///
/// # Errors
/// The tables cannot be read, or not within a few seconds.
pub(super) async fn read(
    engine: &Engine,
    extent: Extent,
    subject: &Subject,
    about: About<'_>,
) -> Result<Vec<NodeFacts>, QueryError> {
    let begun = if extent.ends_in_past() { super::made_by(&instant(extent.to_ms)) } else { "true".to_owned() };
    let streams = STREAMS
        .replace("{here}", HERE)
        .replace("{in_time}", &extent.in_time())
        .replace("{of_kinds}", &subject.of_kinds())
        .replace("{with_rows}", &subject.with_rows())
        .replace("{about}", &about.sql(&extent))
        .replace("{begun}", &begun);
    let mut streams = rows(engine, extent, streams, streams_of).await?;
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    if extent.ends_in_past() {
        let sql = REPORTED_LATE
            .replace("{of_kinds}", &subject.of_kinds())
            .replace("{to}", &instant(extent.to_ms))
            .replace("{behind_us}", &BEHIND_US.to_string());
        add_late(&mut streams, rows(engine, extent, sql, late_of).await?);
    }
    // Only ends within the time looked at can be the end of what was seen in it.
    let since_ns = about.since_ms(&extent).saturating_mul(1_000_000);
    let ends = format!(
        "SELECT node, boot_id, epoch, max(stopped_ns) AS stopped_ns FROM silver.nodes WHERE stopped_ns >= {since_ns} \
         GROUP BY node, boot_id, epoch"
    );
    let ends = rows(engine, extent, ends, ends_of).await?.into_iter().collect();
    Ok(fold(streams, &ends))
}

async fn rows<T>(
    engine: &Engine,
    extent: Extent,
    sql: String,
    of: fn(&RecordBatch) -> Option<Vec<T>>,
) -> Result<Vec<T>, QueryError> {
    let as_of = extent.is_past.then_some(AsOf::Time(extent.seen_ms));
    let query = Query { as_of, ..Query::housekeeping(&sql)? };
    let batches = engine.query(query).await?.collect().await?;
    batches.iter().try_fold(Vec::new(), |mut rows, batch| {
        rows.extend(of(batch).ok_or_else(|| QueryError::Internal {
            message: "the ledger has other columns than this program knows".to_owned(),
        })?);
        Ok(rows)
    })
}

/// One stream of one run of an agent.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) node: String,
    /// Boot and epoch.
    pub(super) run: (String, i64),
    pub(super) cluster: String,
    pub(super) agent: Option<String>,
    /// Of messages with rows.
    pub(super) times_ms: Option<(i64, i64)>,
    pub(super) landed_ms: i64,
    pub(super) live: bool,
    /// Event streams carry a beacon every half minute, so that an idle one is known to be whole; other records have no stream
    /// of their own in the log: they travel before the critical events that follow them.
    pub(super) is_of_events: bool,
    pub(super) has_rows: bool,
    pub(super) rows: i64,
    pub(super) emitted: i64,
    pub(super) lost: i64,
    pub(super) sampled_out: i64,
}

fn streams_of(batch: &RecordBatch) -> Option<Vec<Stream>> {
    let text = |name: &str| batch.column_by_name(name)?.as_string_view_opt();
    let long = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let time = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
    let flag = |name: &str| batch.column_by_name(name)?.as_boolean_opt();
    batch.column_by_name("stream")?.as_primitive_opt::<Int32Type>()?;
    let is = |flags: &BooleanArray, row: usize| flags.is_valid(row) && flags.value(row);
    let node = text("node")?;
    let boot_id = text("boot_id")?;
    let epoch = long("epoch")?;
    let cluster = text("cluster")?;
    let agent: &StringViewArray = text("agent")?;
    let first_ts = time("first_ts")?;
    let last_ts = time("last_ts")?;
    let landed_at = time("landed_at")?;
    let live = flag("live")?;
    let is_of_events = flag("is_of_events")?;
    let has_rows = flag("has_rows")?;
    let landed = long("landed")?;
    let emitted = long("emitted")?;
    let lost = long("lost")?;
    let sampled_out = long("sampled_out")?;
    let stream = |row: usize| Stream {
        node: node.value(row).to_owned(),
        run: (boot_id.value(row).to_owned(), epoch.value(row)),
        cluster: cluster.value(row).to_owned(),
        agent: agent.is_valid(row).then(|| agent.value(row).to_owned()),
        times_ms: (first_ts.is_valid(row) && last_ts.is_valid(row))
            .then(|| (first_ts.value(row).div_euclid(1_000), last_ts.value(row).div_euclid(1_000))),
        landed_ms: landed_at.value(row).div_euclid(1_000),
        live: is(live, row),
        is_of_events: is(is_of_events, row),
        has_rows: is(has_rows, row),
        rows: landed.value(row),
        emitted: emitted.value(row),
        lost: lost.value(row),
        sampled_out: sampled_out.value(row),
    };
    Some((0..batch.num_rows()).map(stream).collect())
}

/// A run of an agent: its node, and boot and epoch.
pub(super) type Run = (String, (String, i64));

fn runs_of(batch: &RecordBatch) -> Option<impl Fn(usize) -> Run> {
    let node = batch.column_by_name("node")?.as_string_view_opt()?;
    let boot_id = batch.column_by_name("boot_id")?.as_string_view_opt()?;
    let epoch = batch.column_by_name("epoch")?.as_primitive_opt::<Int64Type>()?;
    Some(|row| (node.value(row).to_owned(), (boot_id.value(row).to_owned(), epoch.value(row))))
}

fn late_of(batch: &RecordBatch) -> Option<Vec<(Run, i64)>> {
    let run = runs_of(batch)?;
    let lost = batch.column_by_name("lost")?.as_primitive_opt::<Int64Type>()?;
    Some((0..batch.num_rows()).filter(|row| lost.is_valid(*row)).map(|row| (run(row), lost.value(row))).collect())
}

/// Charges a loss that was reported late to a stream of its run.
fn add_late(streams: &mut [Stream], late: Vec<(Run, i64)>) {
    for ((node, run), lost) in late {
        if let Some(stream) = streams.iter_mut().find(|stream| stream.node == node && stream.run == run) {
            stream.lost = stream.lost.saturating_add(lost);
        }
    }
}

fn ends_of(batch: &RecordBatch) -> Option<Vec<(Run, i64)>> {
    let run = runs_of(batch)?;
    let stopped_ns = batch.column_by_name("stopped_ns")?.as_primitive_opt::<Int64Type>()?;
    Some((0..batch.num_rows()).map(|row| (run(row), stopped_ns.value(row).div_euclid(1_000_000))).collect())
}

/// Puts the streams of each node together.
pub(super) fn fold(streams: Vec<Stream>, ends: &BTreeMap<Run, i64>) -> Vec<NodeFacts> {
    let mut of_nodes: BTreeMap<String, Vec<Stream>> = BTreeMap::new();
    for stream in streams {
        of_nodes.entry(stream.node.clone()).or_default().push(stream);
    }
    let fact = |(node, streams): (String, Vec<Stream>)| {
        // The end of an earlier or a later run is not the end of the latest that is seen here.
        let latest = streams.iter().filter(|stream| stream.times_ms.is_some());
        let latest = latest.max_by_key(|stream| stream.times_ms.map(|times| times.1)).or(streams.first());
        let ended_ms = latest.and_then(|latest| ends.get(&(node.clone(), latest.run.clone())).copied());
        of_node(node, &streams, ended_ms)
    };
    of_nodes.into_iter().map(fact).collect()
}

fn of_node(node: String, streams: &[Stream], ended_ms: Option<i64>) -> NodeFacts {
    let newest = streams.iter().max_by_key(|stream| stream.landed_ms);
    let last_event_ms = streams.iter().filter_map(|stream| stream.times_ms).map(|times| times.1).max();
    let first_event_ms = streams.iter().filter_map(|stream| stream.times_ms).map(|times| times.0).min();
    let current = latest_run(streams);
    let complete_to_ms = current.iter().filter_map(|stream| stream.times_ms).map(|times| times.1).min();
    let sum = |of: fn(&Stream) -> i64| streams.iter().map(of).fold(0, i64::saturating_add);
    let newest_landing_ms = newest.map_or(0, |stream| stream.landed_ms);
    NodeFacts {
        node,
        cluster: newest.map(|stream| stream.cluster.clone()).unwrap_or_default(),
        agent: newest.and_then(|stream| stream.agent.clone()),
        first_event_ms: first_event_ms.unwrap_or(newest_landing_ms),
        last_event_ms: last_event_ms.unwrap_or(newest_landing_ms),
        complete_to_ms: complete_to_ms.or(last_event_ms).unwrap_or(newest_landing_ms),
        landed_ms: current.iter().map(|stream| stream.landed_ms).min().unwrap_or(newest_landing_ms),
        // What came after it is of another run.
        ended_ms: ended_ms.filter(|_| has_ended(ended_ms, last_event_ms.unwrap_or(newest_landing_ms))),
        live: streams.iter().any(|stream| stream.live),
        has_rows: streams.iter().any(|stream| stream.has_rows),
        rows: sum(|stream| stream.rows),
        emitted: sum(|stream| stream.emitted),
        lost_events: sum(|stream| stream.lost),
        sampled_out: sum(|stream| stream.sampled_out),
    }
}

/// Whether an agent that said that it ends has made nothing since; times are unix milliseconds.
pub(super) fn has_ended(ended_ms: Option<i64>, last_event_ms: i64) -> bool {
    ended_ms.is_some_and(|ended_ms| last_event_ms <= ended_ms.saturating_add(END_SLACK_MS))
}

/// The streams of events of an agent's latest run. Earlier runs make nothing more.
fn latest_run(streams: &[Stream]) -> Vec<&Stream> {
    let of_events = || streams.iter().filter(|stream| stream.is_of_events && stream.times_ms.is_some());
    let latest = of_events().max_by_key(|stream| stream.times_ms.map(|times| times.1));
    latest.map_or_else(Vec::new, |latest| of_events().filter(|stream| stream.run == latest.run).collect())
}
