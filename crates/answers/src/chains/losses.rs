//! When the nodes of a window lost events, for the detector. An agent reports with a batch what was lost since its last
//! look at the probes' counters, and it looks when it has emptied the rings. While it keeps up that is every few
//! milliseconds; after it got no CPU for a while, many batches are cut before it looks again, and what the last of them
//! reports was lost at any time since.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use chain_engine::Loss;
use event_schema::stream::Stream;
use query_engine::literal::{instant, text};

use super::error::ChainsError;
use super::reading::Reading;
use crate::columns::Columns;
use crate::completeness::{BEHIND_US, made_by, made_since};
use crate::window::Window;

/// What a batch reports was lost at most this long before the one in front of it, while the agent keeps up;
/// microseconds. A choice, many times the milliseconds between two looks: raise it and more iterations are charged with
/// each loss.
const POLL_US: i64 = 500_000;
/// Longest time that an agent is taken to be behind, microseconds. What is older was delayed on its way. A choice:
/// lower it and losses of an agent without CPU are charged to too short a time; raise it and a batch that a broker held
/// back spreads its losses.
const BEHIND_MAX_US: i64 = 60_000_000;

/// Losses in a stretch of time, with cluster and node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodeLoss {
    /// Name of the cluster, as in the ledger.
    pub cluster: String,
    /// Name of the node, as in the ledger.
    pub node: String,
    /// What was lost and when.
    pub loss: Loss,
}

/// What the nodes of a window lost of the stream that the detector reads. Losses of other streams and kinds of records
/// do not concern iterations.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub(super) async fn losses(reading: &Reading<'_>, window: &Window) -> Result<Vec<NodeLoss>, ChainsError> {
    let of_stream = of_stream(window);
    let sql = format!(
        "SELECT cluster, node, max(rows) AS full_rows FROM ops.ledger WHERE {of_stream} GROUP BY cluster, node \
         HAVING sum(ring_drop + shed + spool_drop) > 0"
    );
    // In two steps: in most windows no node lost anything, and then no batch is read.
    let lossy = reading.of_nodes(sql, |rows, row| rows.long("full_rows", row).unwrap_or(0)).await?;
    let nodes: BTreeSet<String> = lossy.iter().map(|lossy| lossy.node.clone()).collect();
    let full_rows: BTreeMap<(String, String), i64> =
        lossy.into_iter().map(|lossy| ((lossy.cluster, lossy.node), lossy.row)).collect();
    let mut losses = Vec::new();
    for node in nodes {
        let sql = batches_of(&node, &of_stream);
        let mut stretch = Stretch::default();
        let mut answer = reading.query(sql, None).await?;
        while let Some(batch) = answer.next().await {
            let batch = batch.map_err(|error| reading.whole(error))?;
            for report in (0..batch.num_rows()).filter_map(|row| report(&batch, row)) {
                // Absent for a cluster without losses that has a node of the same name: of its batches no loss follows
                // at any size.
                let full_rows = full_rows.get(&(report.cluster.clone(), node.clone())).copied().unwrap_or(0);
                let loss = stretch.add(&report, full_rows).filter(|loss| is_in(loss, window));
                losses.extend(loss.map(|loss| NodeLoss { cluster: report.cluster, node: node.clone(), loss }));
            }
        }
    }
    Ok(losses)
}

/// Whether a loss may have happened in the window.
fn is_in(loss: &Loss, window: &Window) -> bool {
    // More of the ledger was read than the window, for reports that come late (`of_stream`).
    loss.from_ns <= window.to_ns && loss.to_ns >= window.from_ns
}

/// An agent that was behind reports its losses in the window after the window's end.
fn of_stream(window: &Window) -> String {
    let since = made_since(&instant(window.from_ns));
    // A batch that reports a loss of the window may have begun up to this long after the window's end.
    let by = made_by(&instant(window.to_ns.saturating_add(BEHIND_MAX_US * 1_000)));
    let data = Stream::Data;
    format!("node <> '' AND kind = 'event' AND stream = {data} AND {since} AND {by}")
}

/// The batches of a node in the order of their making, repetitions left out. A message without rows, by which an ending
/// agent reports its last losses, has no time of its own but that of its making.
fn batches_of(node: &str, of_stream: &str) -> String {
    format!(
        "SELECT cluster, boot_id, epoch, rows, ring_drop + shed + spool_drop AS lost, emitted - sampled_out AS made, \
         CAST(CASE WHEN rows > 0 THEN first_ts ELSE log_ts END AS BIGINT) AS first_us, \
         CAST(CASE WHEN rows > 0 THEN last_ts ELSE log_ts END AS BIGINT) AS last_us, CAST(log_ts AS BIGINT) AS written_us \
         FROM ops.ledger WHERE node = {} AND (landed_rows > 0 OR rows = 0) AND {of_stream} \
         ORDER BY boot_id, epoch, first_seq, rows",
        text(node)
    )
}

/// One batch in the ledger; times are unix microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BatchReport {
    cluster: String,
    /// Boot and epoch.
    run: (String, i64),
    rows: i64,
    lost: u64,
    made: u64,
    first_us: i64,
    last_us: i64,
    /// When the agent wrote it; where the broker stamps messages, when it came there.
    written_us: i64,
}

fn report(batch: &RecordBatch, row: usize) -> Option<BatchReport> {
    let rows = Columns(batch);
    Some(BatchReport {
        cluster: rows.text("cluster", row)?,
        run: (rows.text("boot_id", row)?, rows.long("epoch", row)?),
        rows: rows.long("rows", row)?,
        lost: u64::try_from(rows.long("lost", row)?).ok()?,
        made: rows.long("made", row).map_or(0, |made| u64::try_from(made).unwrap_or(0)),
        first_us: rows.long("first_us", row)?,
        last_us: rows.long("last_us", row)?,
        written_us: rows.long("written_us", row)?,
    })
}

impl BatchReport {
    /// How long after its last event it was written.
    fn behind_us(&self) -> i64 {
        // With `message.timestamp.type=LogAppendTime` the broker's clock is compared with the node's: a negative
        // difference is an offset of the clocks, and one beyond the cap a delay on the way.
        let behind_us = self.written_us.saturating_sub(self.last_us);
        if behind_us <= BEHIND_MAX_US { behind_us.max(0) } else { 0 }
    }
}

/// What has been made since the agent last looked at the counters, as far as that shows.
#[derive(Debug, Default)]
struct Stretch {
    run: Option<(String, i64)>,
    /// The last event before it, unix microseconds.
    since_us: Option<i64>,
    made: u64,
    /// A batch in it was written late.
    is_behind: bool,
}

impl Stretch {
    /// Adds the next batch of a node; `full_rows` is the size at which batches are cut. Gives what was lost in the
    /// stretch that ends with it.
    fn add(&mut self, report: &BatchReport, full_rows: i64) -> Option<Loss> {
        // The counters of the probes begin at zero with each run: no stretch reaches from one run into the next.
        if self.run.as_ref() != Some(&report.run) {
            *self = Self { run: Some(report.run.clone()), ..Self::default() };
        }
        self.made += report.made;
        self.is_behind |= report.behind_us() > BEHIND_US;
        // The first batch that was read has none in front of it: its beginning is the earliest that is certain.
        let from_us = self.since_us.map_or(report.first_us, |since_us| since_us.saturating_sub(POLL_US));
        let to_us = report.last_us.saturating_add(report.behind_us());
        let loss = (report.lost > 0).then(|| Loss {
            // Rows are numbered as they are read, not by their times: a batch may end before the one in front of it.
            from_ns: from_us.min(to_us).saturating_mul(1_000),
            to_ns: to_us.saturating_mul(1_000),
            lost: report.lost,
            made: self.made,
        });
        // A batch that is not full was cut for its age, which is done after a look; so was one of an agent that keeps
        // up.
        let is_looked_at = report.lost > 0 || report.rows < full_rows || !self.is_behind;
        if is_looked_at {
            self.since_us = Some(report.last_us);
            self.made = 0;
            self.is_behind = false;
        }
        loss
    }
}

#[cfg(test)]
mod tests;
