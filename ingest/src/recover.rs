//! What the log held before the position at which reading resumes, read from `ops.ledger`: the memory that decides
//! about duplicates must be that of the whole log prefix, whichever process has read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use event_schema::identity::{LaneId, StreamId};
use event_schema::position::{NextOffset, TopicPartition};
use event_schema::stream::Stream;
use futures::StreamExt;
use futures::future::try_join_all;
use lake::{ColumnRange, ReadError, TableSnapshot, Value};
use service_kit::run::in_a_line;
use tables::ops::ledger;
use tables::seen::Seen;

use crate::checkpoint::{self, decode};
use crate::forward::NOT_FORWARDED;
use crate::home::Moved;

const COLUMNS: [&str; 10] =
    ["log_name", "log_partition", "log_offset", "status", "node", "boot_id", "epoch", "stream", "first_seq", "rows"];

/// Checkpoints that are read at once: they are in memory together.
const CHECKPOINTS_AT_ONCE: usize = 16;

const ARRIVALS: [&str; 4] = ["log_name", "log_partition", "log_offset", "ingested_at"];
const PLACES: [&str; 5] = ["log_name", "log_partition", "log_offset", "status", "cause"];

/// Why the memory could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("a table that records what has landed cannot be read")]
    Read(#[from] ReadError),
    #[error("column `{column}` of a table that records what has landed has another type than this version writes")]
    Column { column: &'static str },
    #[error("ops.ledger has a message of stream {number}, which this version does not know: start a newer one")]
    Stream { number: i32 },
}

/// What is known of a partition's messages below an offset.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) seen: Seen,
    /// Up to which offset the newest checkpoint holds what was seen.
    pub(crate) checkpoint: Option<NextOffset>,
}

/// The sequence numbers that the messages of each partition carried, below its next offset: from the newest checkpoint
/// on, in one pass over the table.
pub(crate) async fn seen(
    snapshot: &TableSnapshot,
    next: &BTreeMap<TopicPartition, NextOffset>,
) -> Result<HashMap<TopicPartition, Memory>, RecoverError> {
    let mut memories = HashMap::new();
    let mut unread = BTreeMap::new();
    let partitions: Vec<_> = next.iter().collect();
    for some in partitions.chunks(CHECKPOINTS_AT_ONCE) {
        // Each is a request to the store or more, whose time is waiting.
        let read = try_join_all(some.iter().map(|(at, next)| checkpoint(snapshot, at, **next))).await?;
        for ((at, next), memory) in some.iter().zip(read) {
            let from = memory.checkpoint.map_or(0, |next| next.0);
            // A checkpoint at `next` leaves nothing to read.
            if from < next.0 {
                unread.insert((*at).clone(), from..next.0);
            }
            memories.insert((*at).clone(), memory);
        }
    }
    if unread.is_empty() {
        return Ok(memories);
    }
    // One pass for all partitions: files of the ledger hold several of them.
    let mut batches = snapshot.scan_batches(&COLUMNS, &around(&unread)).await?;
    while let Some(batch) = batches.next().await {
        note(&mut memories, &batch?, &unread)?;
    }
    Ok(memories)
}

/// What narrows a scan to files that may hold offsets of these ranges.
pub(crate) fn around(ranges: &BTreeMap<TopicPartition, Range<i64>>) -> Vec<ColumnRange> {
    // Partitions are ordered by the name of their log first.
    let first_log = ranges.keys().next().map(|at| word(&at.topic));
    let last_log = ranges.keys().next_back().map(|at| word(&at.topic));
    let lowest_partition = ranges.keys().map(|at| at.partition).min();
    let highest_partition = ranges.keys().map(|at| at.partition).max();
    // A bounding box: statistics of a file hold the least and the greatest value of each column. What lies within the
    // box and in no range is left out row by row.
    let first_offset = ranges.values().map(|range| range.start).min();
    // Ranges are half-open and not empty, `ColumnRange` is closed.
    let last_offset = ranges.values().map(|range| range.end - 1).max();
    vec![
        ColumnRange::between("log_name", first_log, last_log),
        ColumnRange::between("log_partition", lowest_partition.map(Value::Int), highest_partition.map(Value::Int)),
        ColumnRange::between("log_offset", first_offset.map(Value::Long), last_offset.map(Value::Long)),
    ]
}

fn word(text: &Arc<str>) -> Value {
    Value::String(Arc::clone(text))
}

/// The newest checkpoint of a partition that lies at or below `next` and can be read; nothing is known without one.
async fn checkpoint(snapshot: &TableSnapshot, at: &TopicPartition, next: NextOffset) -> Result<Memory, RecoverError> {
    let attached = snapshot.attachments(checkpoint::KIND, at);
    for attached in attached.into_iter().filter(|attached| attached.next <= next) {
        let seen = match snapshot.read_attachment(&attached).await {
            // The store is away: waiting for it costs less than reading the whole ledger.
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => Err(in_a_line(&error)),
            Ok(bytes) => decode(&bytes).map_err(|error| error.to_string()),
        };
        match seen {
            Ok(seen) => return Ok(Memory { seen, checkpoint: Some(attached.next) }),
            Err(reason) => {
                tracing::warn!(reason, %at, "a checkpoint cannot be read; reading more of ops.ledger");
            }
        }
    }
    Ok(Memory::default())
}

/// Rows of a stream that landed from another partition than its home.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    pub(crate) home: TopicPartition,
    pub(crate) stream: StreamId,
    pub(crate) rows: Range<i64>,
}

/// What landed of lanes in partitions that are not their homes any more. Reads the whole table: homes move only when a
/// partition or a topic is gone.
pub(crate) async fn landed_elsewhere(
    snapshot: &TableSnapshot,
    moved: &[Moved],
) -> Result<Vec<Elsewhere>, RecoverError> {
    let homes: HashMap<&LaneId, &TopicPartition> = moved.iter().map(|moved| (&moved.lane, &moved.at)).collect();
    let nodes: BTreeSet<&Arc<str>> = moved.iter().map(|moved| &moved.lane.node).collect();
    let first_node = nodes.first().map(|node| word(node));
    let last_node = nodes.last().map(|node| word(node));
    let wanted = [ColumnRange::between("node", first_node, last_node)];
    let mut elsewhere = Vec::new();
    let mut batches = snapshot.scan_batches(&COLUMNS, &wanted).await?;
    while let Some(batch) = batches.next().await {
        for Landed { at, stream, rows, .. } in landed(&batch?)? {
            let StreamId { node, boot_id, epoch, stream: of_run } = stream.clone();
            let home = homes.get(&LaneId { node, boot_id, epoch, lane: of_run.lane() });
            // What landed in the home itself is read with its partition.
            if let Some(home) = home.filter(|home| ***home != at.without_generation()) {
                elsewhere.push(Elsewhere { home: (*home).clone(), stream, rows });
            }
        }
    }
    Ok(elsewhere)
}

/// The rows of these nodes that have landed, from whatever message of whatever log.
pub(crate) async fn landed_of(snapshot: &TableSnapshot, nodes: &BTreeSet<Arc<str>>) -> Result<Seen, RecoverError> {
    let wanted = [ColumnRange::between("node", nodes.first().map(word), nodes.last().map(word))];
    let mut seen = Seen::new();
    let mut batches = snapshot.scan_batches(&COLUMNS, &wanted).await?;
    while let Some(batch) = batches.next().await {
        for Landed { stream, rows, .. } in landed(&batch?)? {
            if nodes.contains(&stream.node) {
                seen.note(stream, rows.start, rows.end);
            }
        }
    }
    Ok(seen)
}

fn note(
    memories: &mut HashMap<TopicPartition, Memory>,
    batch: &RecordBatch,
    unread: &BTreeMap<TopicPartition, Range<i64>>,
) -> Result<(), RecoverError> {
    for Landed { at, offset, stream, rows } in landed(batch)? {
        if unread.get(&at).is_some_and(|unread| unread.contains(&offset)) {
            memories.entry(at).or_default().seen.note(stream, rows.start, rows.end);
        }
    }
    Ok(())
}

/// A message of the ledger whose rows are in the tables.
struct Landed {
    at: TopicPartition,
    offset: i64,
    stream: StreamId,
    rows: Range<i64>,
}

/// The messages of a batch of the ledger that landed where they lay: neither dead letters nor forwarded ones.
fn landed(batch: &RecordBatch) -> Result<Vec<Landed>, RecoverError> {
    let topic = text(batch, "log_name")?;
    let status = text(batch, "status")?;
    let node = text(batch, "node")?;
    let boot_id = text(batch, "boot_id")?;
    let partition = numbers::<Int32Type>(batch, "log_partition")?;
    let stream = numbers::<Int32Type>(batch, "stream")?;
    let offset = numbers::<Int64Type>(batch, "log_offset")?;
    let epoch = numbers::<Int64Type>(batch, "epoch")?;
    let first_seq = numbers::<Int64Type>(batch, "first_seq")?;
    let rows = numbers::<Int64Type>(batch, "rows")?;
    let mut found = Vec::new();
    // Other columns may be null in rows of another status: these are not looked at.
    for i in (0..batch.num_rows()).filter(|i| status.value(*i) == ledger::LANDED) {
        let number = stream.value(i);
        let stream = StreamId {
            node: node.value(i).into(),
            boot_id: boot_id.value(i).into(),
            epoch: epoch.value(i),
            stream: Stream::from_number(number).ok_or(RecoverError::Stream { number })?,
        };
        let first = first_seq.value(i);
        found.push(Landed {
            at: TopicPartition::new(topic.value(i), partition.value(i)),
            offset: offset.value(i),
            stream,
            rows: first..first.saturating_add(rows.value(i)),
        });
    }
    Ok(found)
}

fn text<'a>(batch: &'a RecordBatch, column: &'static str) -> Result<&'a StringArray, RecoverError> {
    batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>()).ok_or(RecoverError::Column { column })
}

fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    column: &'static str,
) -> Result<&'a PrimitiveArray<T>, RecoverError> {
    batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<T>()).ok_or(RecoverError::Column { column })
}

/// Messages by log and offset.
pub(crate) type Places = BTreeSet<(TopicPartition, i64)>;

/// The messages that `ops.ledger` has as dead letters because they could not be forwarded, within ranges of offsets.
pub(crate) async fn refused(
    snapshot: &TableSnapshot,
    ranges: &BTreeMap<TopicPartition, Range<i64>>,
) -> Result<Places, RecoverError> {
    let mut refused = Places::new();
    if ranges.is_empty() {
        return Ok(refused);
    }
    let dead_letter = Some(Value::String(ledger::DEAD_LETTER.into()));
    let mut wanted = around(ranges);
    wanted.push(ColumnRange::between("status", dead_letter.clone(), dead_letter));
    let mut batches = snapshot.scan_batches(&PLACES, &wanted).await?;
    while let Some(batch) = batches.next().await {
        note_refused(&mut refused, &batch?, ranges)?;
    }
    Ok(refused)
}

/// When the messages in these ranges were read first, by `bronze.messages`, unix microseconds.
pub(crate) async fn arrival_times(
    snapshot: &TableSnapshot,
    ranges: &BTreeMap<TopicPartition, Range<i64>>,
) -> Result<BTreeMap<(TopicPartition, i64), i64>, RecoverError> {
    let mut times = BTreeMap::new();
    if ranges.is_empty() {
        return Ok(times);
    }
    let mut batches = snapshot.scan_batches(&ARRIVALS, &around(ranges)).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let logs = text(&batch, "log_name")?;
        let partitions = numbers::<Int32Type>(&batch, "log_partition")?;
        let offsets = numbers::<Int64Type>(&batch, "log_offset")?;
        let arrived = numbers::<TimestampMicrosecondType>(&batch, "ingested_at")?;
        for row in 0..batch.num_rows() {
            let at = TopicPartition::new(logs.value(row), partitions.value(row));
            if ranges.get(&at).is_some_and(|range| range.contains(&offsets.value(row))) {
                times.insert((at, offsets.value(row)), arrived.value(row));
            }
        }
    }
    Ok(times)
}

fn note_refused(
    refused: &mut Places,
    batch: &RecordBatch,
    ranges: &BTreeMap<TopicPartition, Range<i64>>,
) -> Result<(), RecoverError> {
    let topic = text(batch, "log_name")?;
    let status = text(batch, "status")?;
    let cause = text(batch, "cause")?;
    let partition = numbers::<Int32Type>(batch, "log_partition")?;
    let offset = numbers::<Int64Type>(batch, "log_offset")?;
    for i in 0..batch.num_rows() {
        let is_refused = status.value(i) == ledger::DEAD_LETTER && cause.is_valid(i) && cause.value(i) == NOT_FORWARDED;
        if !is_refused {
            continue;
        }
        let at = TopicPartition::new(topic.value(i), partition.value(i));
        let offset = offset.value(i);
        // The scan is narrowed by file, not by row.
        if ranges.get(&at).is_some_and(|range| range.contains(&offset)) {
            refused.insert((at, offset));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::compute::cast;
    use arrow::datatypes::DataType;
    use bytes::Bytes;
    use event_schema::codec::Codec;
    use event_schema::position::Message;
    use tables::arrival::{Arrival, Rejection};

    use super::*;

    #[test]
    fn dead_letters_that_could_not_be_forwarded_are_found_within_the_range_and_no_others() {
        let at = TopicPartition::new("t", 3);
        let dead = |offset: i64, cause| {
            let (key, payload, headers) = (None, Bytes::new(), Vec::new());
            let message = Message { at: at.clone(), offset, timestamp_ms: 0, key, payload, headers };
            let outcome = Err(Rejection { cause, detail: String::new() });
            Arrival { message, arrived_us: 0, codec: Codec::Causeway, outcome, fresh: Vec::new(), forwarded_to: None }
        };
        let arrivals = [dead(4, NOT_FORWARDED), dead(5, NOT_FORWARDED), dead(6, "magic"), dead(7, NOT_FORWARDED)];
        let rows = ledger::rows(&arrivals.iter().collect::<Vec<_>>()).unwrap().remove(0);
        // As the table gives it: texts are no dictionaries there.
        let column = |name: &'static str| {
            let column = rows.column_by_name(name).unwrap();
            let is_text = matches!(column.data_type(), DataType::Dictionary(..));
            (name, if is_text { cast(column, &DataType::Utf8).unwrap() } else { Arc::clone(column) })
        };
        let rows = RecordBatch::try_from_iter(PLACES.map(column)).unwrap();
        let mut refused = Places::new();
        note_refused(&mut refused, &rows, &BTreeMap::from([(at.clone(), 5..7)])).unwrap();
        assert_eq!(refused, Places::from([(at, 5)]));
    }
}
