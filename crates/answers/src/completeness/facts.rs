//! The account of each node in the ledger: what it made and lost, and up to when all of it has landed.

use std::collections::BTreeMap;

use query_engine::{AsOf, Engine, Query, QueryError, literal};

use super::BEHIND_US;
use super::extent::{Extent, SILENT_MS, instant};
use super::subject::Subject;
use crate::columns::Columns;

/// How far back nodes are looked for.
pub(super) const DAY_MS: i64 = 24 * 3_600_000;
/// An agent reports its end after its last event. The two times may disagree by the error of its clocks, milliseconds.
const END_SLACK_MS: i64 = 1_000;

/// The account of one node in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name of the node, as in the ledger.
    pub node: String,
    /// Cluster that its newest landing named.
    pub cluster: String,
    /// Agent that its newest landing named; `None` of messages without one.
    pub agent: Option<String>,
    /// Unix milliseconds of its oldest record in the time looked at.
    pub first_event_ms: i64,
    /// Unix milliseconds of its newest record in the time looked at.
    pub last_event_ms: i64,
    /// Unix milliseconds up to which every stream of events of its agent's latest run has landed.
    pub complete_to_ms: i64,
    /// Unix milliseconds of the newest landing of the stream whose newest landing is oldest.
    pub landed_ms: i64,
    /// The end that its agent reported, unix milliseconds; `None` without such a report.
    pub ended_ms: Option<i64>,
    /// Its rows landed soon after they were made; a recording's do not.
    pub live: bool,
    /// Whether it has rows in the time asked about.
    pub has_rows: bool,
    /// Rows landed in the time looked at.
    pub rows: i64,
    /// Records that its probes made in the time looked at.
    pub emitted: i64,
    /// Records of the kinds and the time asked about that will never land, those left out on purpose not counted.
    pub lost_events: i64,
    /// Records left out on purpose in the time looked at.
    pub sampled_out: i64,
}

impl NodeFacts {
    /// Whether the stretch lacks the end of what the node made: a live node of which nothing has landed for the last
    /// two minutes of the stretch, and whose agent has reported no end.
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
                // A day at least, even for a short stretch: a live node that has nothing in it must be found to be
                // reported as missing.
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

/// Messages whose rows are in the tables: those of one that was forwarded come with its copy.
pub(super) const HERE: &str = "rows > 0 AND status <> 'forwarded'";

/// The streams of the nodes, each with what landed and what was lost of it.
pub(super) fn streams_sql(extent: &Extent, subject: &Subject, about: About<'_>) -> String {
    let in_time = extent.in_time();
    let of_kinds = subject.of_kinds();
    let with_rows = subject.with_rows();
    let about = about.sql(extent);
    // What began after a stretch in the past would hide that a node was silent at its end.
    let begun = if extent.ends_in_past() { super::made_by(&instant(extent.to_ms)) } else { "true".to_owned() };
    // All at once: a name in `about` may look like a place for another text.
    format!(
        "SELECT node, boot_id, epoch, stream, last_value(cluster ORDER BY ingested_at) AS cluster, \
         last_value(agent ORDER BY ingested_at) AS agent, min(first_ts) FILTER (WHERE {HERE}) AS first_ts, \
         max(last_ts) FILTER (WHERE {HERE}) AS last_ts, max(ingested_at) AS landed_at, \
         bool_or(last_ts >= ingested_at - INTERVAL '10 minutes') AS live, bool_or(kind = 'event') AS is_of_events, \
         sum(landed_rows) AS landed, sum(emitted) AS emitted, sum(sampled_out) AS sampled_out, \
         bool_or({HERE} AND {with_rows} AND {in_time}) AS has_rows, \
         coalesce(sum(ring_drop + shed + spool_drop) FILTER (WHERE {of_kinds} AND {in_time}), 0) AS lost \
         FROM ops.ledger WHERE node <> '' AND {about} AND {begun} GROUP BY node, boot_id, epoch, stream"
    )
}

/// The losses that streams reported first after the end of a stretch of time, where the agent was behind from the last
/// batch that began before the end up to the report: it may have lost before the end what it reported then. It was
/// behind where that batch was written late, and none before the report shows that it looked at its counters, as a
/// batch does that is not full.
fn reported_late_sql(extent: &Extent, subject: &Subject) -> String {
    let of_kinds = subject.of_kinds();
    let to = instant(extent.to_ms);
    format!(
        "SELECT node, boot_id, epoch, \
         first_value(lost ORDER BY first_seq) FILTER (WHERE lost > 0 AND first_seq > begun) AS lost FROM \
         (SELECT node, boot_id, epoch, stream, rows, first_seq, ring_drop + shed + spool_drop AS lost, \
         log_ts > last_ts + INTERVAL '{BEHIND_US} microseconds' AS is_late, \
         max(first_seq) FILTER (WHERE first_ts <= {to}) OVER of_stream AS begun, max(rows) OVER of_stream AS full_rows \
         FROM ops.ledger WHERE node <> '' AND rows > 0 AND {of_kinds} AND first_ts <= {to} + INTERVAL '60' SECOND \
         AND last_ts >= {to} - INTERVAL '60' SECOND AND ingested_at >= {to} - INTERVAL '1' DAY \
         WINDOW of_stream AS (PARTITION BY node, boot_id, epoch, stream)) AS batches WHERE first_seq >= begun \
         GROUP BY node, boot_id, epoch, stream \
         HAVING bool_or(first_seq = begun AND is_late) AND \
         min(first_seq) FILTER (WHERE lost > 0 OR rows < full_rows) = \
         min(first_seq) FILTER (WHERE lost > 0 AND first_seq > begun)"
    )
}

/// Reads the facts of nodes from `ops.ledger` and `silver.nodes`.
///
/// # Errors
/// The tables cannot be read, or not within a few seconds.
pub(super) async fn read(
    engine: &Engine,
    extent: Extent,
    subject: &Subject,
    about: About<'_>,
) -> Result<Vec<NodeFacts>, QueryError> {
    let streams = streams_sql(&extent, subject, about);
    // Nodes come from this query alone. The two below add to them.
    let mut streams = rows(engine, extent, streams, stream_of).await?;
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    if extent.ends_in_past() {
        let sql = reported_late_sql(&extent, subject);
        // Batches that began after the end were left out above, and with them the losses from before it that they
        // report.
        add_late(&mut streams, rows(engine, extent, sql, late_of).await?);
    }
    // Only ends within the time looked at can be the end of what was seen in it.
    let since_ns = about.since_ms(&extent).saturating_mul(1_000_000);
    let ends = format!(
        "SELECT node, boot_id, epoch, max(stopped_ns) AS stopped_ns FROM silver.nodes WHERE stopped_ns >= {since_ns} \
         GROUP BY node, boot_id, epoch"
    );
    let ends = rows(engine, extent, ends, end_of).await?.into_iter().collect();
    Ok(fold(streams, &ends))
}

async fn rows<T>(
    engine: &Engine,
    extent: Extent,
    sql: String,
    of: fn(&Columns<'_>, usize) -> Option<T>,
) -> Result<Vec<T>, QueryError> {
    // The ledger as it was then: what landed since would make nodes look complete that were not.
    let as_of = extent.is_past.then_some(AsOf::Time(extent.seen_ms));
    let query = Query { as_of, ..Query::housekeeping(&sql)? };
    let batches = engine.query(query).await?.collect().await?;
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| of(&Columns(batch), row)));
    // One row that cannot be read fails the whole: left out, it would take its node's losses with it unnoticed.
    rows.collect::<Option<_>>().ok_or_else(other_columns)
}

/// A cell of the ledger is null, or of another type than the tables of this program have.
pub(super) fn other_columns() -> QueryError {
    QueryError::Internal { message: "the ledger has other columns than this program reads".to_owned() }
}

/// One stream of one run of an agent.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// Name of the node.
    pub node: String,
    /// Boot and epoch.
    pub run: (String, i64),
    /// Cluster that its newest message named.
    pub cluster: String,
    /// Agent that its newest message named.
    pub agent: Option<String>,
    /// Oldest and newest record of messages with rows, unix milliseconds; `None` without rows.
    pub times_ms: Option<(i64, i64)>,
    /// Newest landing, unix milliseconds.
    pub landed_ms: i64,
    /// Its rows landed soon after they were made.
    pub live: bool,
    /// Event streams carry a beacon every half minute, which shows that an idle one is whole. Other records carry none:
    /// they travel before the critical events that follow them.
    pub is_of_events: bool,
    /// Whether it has rows in the time asked about.
    pub has_rows: bool,
    /// Rows landed.
    pub rows: i64,
    /// Records that the probes made.
    pub emitted: i64,
    /// Records of the kinds and the time asked about that will never land.
    pub lost: i64,
    /// Records left out on purpose.
    pub sampled_out: i64,
}

fn stream_of(rows: &Columns<'_>, row: usize) -> Option<Stream> {
    let first_ms = rows.time_ms("first_ts", row);
    let last_ms = rows.time_ms("last_ts", row);
    Some(Stream {
        node: rows.text("node", row)?,
        run: (rows.text("boot_id", row)?, rows.long("epoch", row)?),
        cluster: rows.text("cluster", row)?,
        agent: rows.text("agent", row),
        // Both are null where no message of the stream has rows here (`HERE`).
        times_ms: first_ms.zip(last_ms),
        landed_ms: rows.time_ms("landed_at", row)?,
        // `bool_or` over nothing but nulls is null in SQL, which stands for false.
        live: rows.flag("live", row).unwrap_or(false),
        is_of_events: rows.flag("is_of_events", row).unwrap_or(false),
        has_rows: rows.flag("has_rows", row).unwrap_or(false),
        rows: rows.long("landed", row)?,
        emitted: rows.long("emitted", row)?,
        lost: rows.long("lost", row)?,
        sampled_out: rows.long("sampled_out", row)?,
    })
}

/// A run of an agent: its node, and boot and epoch.
pub(super) type Run = (String, (String, i64));

fn run_of(rows: &Columns<'_>, row: usize) -> Option<Run> {
    Some((rows.text("node", row)?, (rows.text("boot_id", row)?, rows.long("epoch", row)?)))
}

/// A run and what it reported late; 0 where it reported nothing.
fn late_of(rows: &Columns<'_>, row: usize) -> Option<(Run, i64)> {
    Some((run_of(rows, row)?, rows.long("lost", row).unwrap_or(0)))
}

/// Charges a loss that was reported late to a stream of its run.
fn add_late(streams: &mut [Stream], late: Vec<(Run, i64)>) {
    for ((node, run), lost) in late {
        // Any stream of the run will do: `of_node` adds up the losses of all.
        if let Some(stream) = streams.iter_mut().find(|stream| stream.node == node && stream.run == run) {
            stream.lost = stream.lost.saturating_add(lost);
        }
    }
}

fn end_of(rows: &Columns<'_>, row: usize) -> Option<(Run, i64)> {
    Some((run_of(rows, row)?, rows.long("stopped_ns", row)?.div_euclid(1_000_000)))
}

/// Puts the streams of each node together.
pub(super) fn fold(streams: Vec<Stream>, ends: &BTreeMap<Run, i64>) -> Vec<NodeFacts> {
    // Sorted by name, the order in which answers list nodes. No list is empty.
    let mut of_nodes: BTreeMap<String, Vec<Stream>> = BTreeMap::new();
    for stream in streams {
        of_nodes.entry(stream.node.clone()).or_default().push(stream);
    }
    of_nodes.into_iter().map(|(node, streams)| fact(node, &streams, ends)).collect()
}

fn fact(node: String, streams: &[Stream], ends: &BTreeMap<Run, i64>) -> NodeFacts {
    // The end of another run, earlier or later, is not the end of the latest run that landed here. Messages without
    // rows have no time: where there are no others, any of them names the run.
    let with_times = streams.iter().filter(|stream| stream.times_ms.is_some());
    let latest = with_times.max_by_key(|stream| stream.times_ms.map(|times| times.1)).or(streams.first());
    let ended_ms = latest.and_then(|latest| ends.get(&(node.clone(), latest.run.clone())).copied());
    of_node(node, streams, ended_ms)
}

fn of_node(node: String, streams: &[Stream], ended_ms: Option<i64>) -> NodeFacts {
    let newest = streams.iter().max_by_key(|stream| stream.landed_ms);
    let last_event_ms = streams.iter().filter_map(|stream| stream.times_ms).map(|times| times.1).max();
    let first_event_ms = streams.iter().filter_map(|stream| stream.times_ms).map(|times| times.0).min();
    let current = latest_run(streams);
    // A low watermark: the stream that is furthest behind decides.
    let complete_to_ms = current.iter().filter_map(|stream| stream.times_ms).map(|times| times.1).min();
    let newest_landing_ms = newest.map_or(0, |stream| stream.landed_ms);
    NodeFacts {
        node,
        cluster: newest.map(|stream| stream.cluster.clone()).unwrap_or_default(),
        agent: newest.and_then(|stream| stream.agent.clone()),
        // Without a message that has rows, the landing is the only time of the node.
        first_event_ms: first_event_ms.unwrap_or(newest_landing_ms),
        last_event_ms: last_event_ms.unwrap_or(newest_landing_ms),
        complete_to_ms: complete_to_ms.or(last_event_ms).unwrap_or(newest_landing_ms),
        // The oldest of the newest landings: one stream that still lands must not hide that another has stopped.
        landed_ms: current.iter().map(|stream| stream.landed_ms).min().unwrap_or(newest_landing_ms),
        // An event after the end is of another run: the node goes on.
        ended_ms: ended_ms.filter(|_| has_ended(ended_ms, last_event_ms.unwrap_or(newest_landing_ms))),
        live: streams.iter().any(|stream| stream.live),
        has_rows: streams.iter().any(|stream| stream.has_rows),
        rows: sum(streams, |stream| stream.rows),
        emitted: sum(streams, |stream| stream.emitted),
        lost_events: sum(streams, |stream| stream.lost),
        sampled_out: sum(streams, |stream| stream.sampled_out),
    }
}

fn sum(streams: &[Stream], of: fn(&Stream) -> i64) -> i64 {
    streams.iter().map(of).fold(0, i64::saturating_add)
}

/// Whether an agent that reported its end has made nothing since; times are unix milliseconds.
pub(super) fn has_ended(ended_ms: Option<i64>, last_event_ms: i64) -> bool {
    ended_ms.is_some_and(|ended_ms| last_event_ms <= ended_ms.saturating_add(END_SLACK_MS))
}

/// The streams of events of an agent's latest run. Earlier runs make nothing more.
fn latest_run(streams: &[Stream]) -> Vec<&Stream> {
    let mut of_events: Vec<&Stream> =
        // Other streams carry no beacons: an idle one would hold the node back without end.
        streams.iter().filter(|stream| stream.is_of_events && stream.times_ms.is_some()).collect();
    let latest = of_events.iter().max_by_key(|stream| stream.times_ms.map(|times| times.1)).map(|latest| &latest.run);
    if let Some(run) = latest.cloned() {
        of_events.retain(|stream| stream.run == run);
    }
    of_events
}
