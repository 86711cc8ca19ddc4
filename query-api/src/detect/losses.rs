//! When the nodes of a window lost events, for the detector. An agent tells with a batch what was lost since its last look at the
//! probes' counters; so the time of a loss lies between the batch before it and the batch that tells it.

use chain_engine::Loss;
use datafusion::arrow::array::RecordBatch;
use event_schema::identity::DATA_STREAM;

use super::columns::Columns;
use super::reading::Reading;
use super::{DetectError, Window};
use crate::completeness::{made_by, made_since};
use crate::engine::literal::instant;

/// Messages that tell losses which are taken one by one. Of more, those of one node and stretch of the window are added up first.
const MESSAGES_MAX: i64 = 20_000;
/// Stretches of the window in that case.
const STRETCHES: i64 = 4_096;
/// The agent reads the probes' counters after it has emptied the rings, and several batches may be cut before: what a batch tells
/// was lost at most this long before the one in front of it, microseconds.
const POLL_US: i64 = 500_000;

/// Losses in a stretch of time, with cluster and node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodeLoss {
    pub(super) cluster: String,
    pub(super) node: String,
    pub(super) loss: Loss,
}

/// What the nodes of a window lost of the stream that the detector reads. Losses of other streams and kinds of records say nothing
/// of iterations.
///
/// # Errors
/// The lake cannot be read, or a limit of the query engine was met.
pub(super) async fn losses(reading: &Reading<'_>, window: &Window) -> Result<Vec<NodeLoss>, DetectError> {
    let counted =
        reading.collect(format!("SELECT count(*) AS messages FROM ops.ledger WHERE {}", telling(window))).await?;
    let messages = counted.first().and_then(|batch| Columns(batch).long("messages", 0)).unwrap_or(0);
    let sql = match messages {
        0 => return Ok(Vec::new()),
        1..=MESSAGES_MAX => one_by_one(window),
        _ => added_up(window),
    };
    let batches = reading.collect(sql).await?;
    Ok(batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| loss(batch, row))).collect())
}

/// What holds of the ledger's rows that tell losses.
fn telling(window: &Window) -> String {
    format!("ring_drop + shed + spool_drop > 0 AND {}", of_stream(window))
}

fn of_stream(window: &Window) -> String {
    let since = made_since(&instant(window.from_ns));
    let by = made_by(&instant(window.to_ns));
    format!("node <> '' AND kind = 'event' AND stream = {DATA_STREAM} AND {since} AND {by}")
}

/// The number of a stream's first row is one past that of the batch before: so that batch is found. A message without rows, by
/// which an ending agent tells its last losses, has no time of its own but that of its making.
fn one_by_one(window: &Window) -> String {
    let telling = telling(window);
    let of_stream = of_stream(window);
    format!(
        "WITH told AS (SELECT topic, kafka_partition, kafka_offset, cluster, node, boot_id, epoch, first_seq, \
         ring_drop + shed + spool_drop AS lost, emitted - sampled_out AS made, \
         CAST(CASE WHEN rows > 0 THEN first_ts ELSE kafka_ts END AS BIGINT) AS first_us, \
         CAST(CASE WHEN rows > 0 THEN last_ts ELSE kafka_ts END AS BIGINT) AS to_us FROM ops.ledger WHERE {telling}), \
         before AS (SELECT node, boot_id, epoch, first_seq + rows AS end_seq, CAST(last_ts AS BIGINT) AS last_us \
         FROM ops.ledger WHERE rows > 0 AND {of_stream}) \
         SELECT t.cluster, t.node, min(t.lost) AS lost, min(t.made) AS made, min(t.to_us) AS to_us, \
         coalesce(max(b.last_us) - {POLL_US}, min(t.first_us)) AS from_us \
         FROM told t LEFT JOIN before b \
         ON b.node = t.node AND b.boot_id = t.boot_id AND b.epoch = t.epoch AND b.end_seq = t.first_seq \
         GROUP BY t.cluster, t.node, t.topic, t.kafka_partition, t.kafka_offset"
    )
}

fn added_up(window: &Window) -> String {
    let telling = telling(window);
    let stretch_s = (window.to_ns.saturating_sub(window.from_ns) / 1_000_000_000 / STRETCHES).max(1);
    format!(
        "SELECT cluster, node, sum(ring_drop + shed + spool_drop) AS lost, sum(emitted - sampled_out) AS made, \
         CAST(min(last_ts) AS BIGINT) - {POLL_US} AS from_us, CAST(max(last_ts) AS BIGINT) AS to_us \
         FROM ops.ledger WHERE {telling} AND rows > 0 \
         GROUP BY cluster, node, date_bin(INTERVAL '{stretch_s} seconds', last_ts)"
    )
}

fn loss(batch: &RecordBatch, row: usize) -> Option<NodeLoss> {
    let rows = Columns(batch);
    let count = |name| u64::try_from(rows.long(name, row)?).ok();
    let time = |name| Some(rows.long(name, row)?.saturating_mul(1_000));
    let from_ns = time("from_us")?;
    let to_ns = time("to_us")?;
    let loss = Loss { from_ns: from_ns.min(to_ns), to_ns, lost: count("lost")?, made: count("made").unwrap_or(0) };
    Some(NodeLoss { cluster: rows.text("cluster", row)?, node: rows.text("node", row)?, loss })
}
