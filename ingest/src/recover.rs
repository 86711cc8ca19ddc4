//! What the log held before the position reading resumes at, out of `ops.ledger`: the memory that decides duplicates must be
//! that of the whole log prefix, whoever read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::identity::{Lane, LaneId, StreamId};
use event_schema::position::{NextOffset, TopicPartition};
use futures::StreamExt;
use lake::{ColumnRange, ReadError, TableSnapshot, Value};
use service_kit::run::in_a_line;
use tables::ops::ledger;
use tables::seen::Seen;

use crate::checkpoint::{Checkpoint, decode};
use crate::home::Moved;

const COLUMNS: [&str; 10] =
    ["topic", "kafka_partition", "kafka_offset", "status", "node", "boot_id", "epoch", "stream", "first_seq", "rows"];

/// Why the memory could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("ops.ledger cannot be read")]
    Read(#[from] ReadError),
    #[error("column `{column}` of ops.ledger has another type than this version writes")]
    Column { column: &'static str },
}

/// What is known of a partition's messages below an offset.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) seen: Seen,
    /// The newest checkpoint it began with.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// The sequence numbers that the messages of each partition carried, below its next offset: from the newest checkpoint on, in
/// one pass over the table.
pub(crate) async fn seen(
    snapshot: &TableSnapshot,
    next: &BTreeMap<TopicPartition, NextOffset>,
) -> Result<HashMap<TopicPartition, Memory>, RecoverError> {
    let mut memories = HashMap::new();
    let mut unread = BTreeMap::new();
    for (at, next) in next {
        let memory = checkpoint(snapshot, at, *next).await?;
        let from = memory.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next.0);
        if from < next.0 {
            unread.insert(at.clone(), from..next.0);
        }
        memories.insert(at.clone(), memory);
    }
    let partitions = || unread.keys().map(|at| at.partition);
    let (Some(first), Some(last)) = (partitions().min(), partitions().max()) else { return Ok(memories) };
    let begin = unread.values().map(|range| range.start).min().unwrap_or_default();
    let end = unread.values().map(|range| range.end).max().unwrap_or_default();
    let wanted = [
        ColumnRange::between("kafka_partition", Some(Value::Int(first)), Some(Value::Int(last))),
        ColumnRange::between("kafka_offset", Some(Value::Long(begin)), Some(Value::Long(end - 1))),
    ];
    let mut batches = snapshot.scan_batches(&COLUMNS, &wanted).await?;
    while let Some(batch) = batches.next().await {
        note(&mut memories, &batch?, &unread)?;
    }
    Ok(memories)
}

/// The newest checkpoint of a partition that lies below `next` and can be read; nothing is known without one.
async fn checkpoint(snapshot: &TableSnapshot, at: &TopicPartition, next: NextOffset) -> Result<Memory, RecoverError> {
    for checkpoint in Checkpoint::of(snapshot.properties(), at).into_iter().filter(|kept| kept.next <= next) {
        let read = snapshot.get_beside(&checkpoint.name).await;
        let seen = match read {
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => Err(in_a_line(&error)),
            Ok(bytes) => decode(&bytes).map_err(|error| error.to_string()),
        };
        match seen {
            Ok(seen) => return Ok(Memory { seen, checkpoint: Some(checkpoint) }),
            Err(reason) => {
                tracing::warn!(reason, %at, name = checkpoint.name, "a checkpoint cannot be read; reading more of ops.ledger")
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
    let name = |node: Option<&&Arc<str>>| node.map(|node| Value::String(Arc::clone(node)));
    let wanted = [ColumnRange::between("node", name(nodes.first()), name(nodes.last()))];
    let mut elsewhere = Vec::new();
    let mut batches = snapshot.scan_batches(&COLUMNS, &wanted).await?;
    while let Some(batch) = batches.next().await {
        for Landed { at, stream, rows, .. } in landed(&batch?)? {
            let StreamId { node, boot_id, epoch, stream: number } = stream.clone();
            let home = homes.get(&LaneId { node, boot_id, epoch, lane: Lane::of(number) });
            if let Some(home) = home.filter(|home| ***home != at.without_generation()) {
                elsewhere.push(Elsewhere { home: (*home).clone(), stream, rows });
            }
        }
    }
    Ok(elsewhere)
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
    let text = |column| -> Result<&StringArray, RecoverError> {
        batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>()).ok_or(RecoverError::Column { column })
    };
    let long = |column| {
        batch
            .column_by_name(column)
            .and_then(|c| c.as_primitive_opt::<Int64Type>())
            .ok_or(RecoverError::Column { column })
    };
    let int = |column| {
        batch
            .column_by_name(column)
            .and_then(|c| c.as_primitive_opt::<Int32Type>())
            .ok_or(RecoverError::Column { column })
    };
    let (topic, status, node, boot_id) = (text("topic")?, text("status")?, text("node")?, text("boot_id")?);
    let (partition, stream) = (int("kafka_partition")?, int("stream")?);
    let (offset, epoch, first_seq, rows) = (long("kafka_offset")?, long("epoch")?, long("first_seq")?, long("rows")?);
    let mut found = Vec::new();
    for i in (0..batch.num_rows()).filter(|i| status.value(*i) == ledger::LANDED) {
        let stream = StreamId {
            node: node.value(i).into(),
            boot_id: boot_id.value(i).into(),
            epoch: epoch.value(i),
            stream: stream.value(i),
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
