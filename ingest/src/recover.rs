//! What the log held before the position reading resumes at, out of `ops.ledger`: the memory that decides duplicates must be
//! that of the whole log prefix, whoever read it.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::identity::StreamId;
use event_schema::position::{NextOffset, TopicPartition};
use futures::StreamExt;
use lake::{ColumnRange, ReadError, TableSnapshot, Value};
use tables::ops::ledger;
use tables::seen::Seen;

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

/// The sequence numbers that the messages of each partition carried, below its next offset. One pass over the table.
pub(crate) async fn seen(
    snapshot: &TableSnapshot,
    next: &BTreeMap<TopicPartition, NextOffset>,
) -> Result<HashMap<TopicPartition, Seen>, RecoverError> {
    let mut seen = HashMap::new();
    let numbers = || next.iter().filter(|(_, next)| next.0 > 0).map(|(at, next)| (at.partition, next.0));
    let (Some(first), Some(last)) = (numbers().map(|(p, _)| p).min(), numbers().map(|(p, _)| p).max()) else {
        return Ok(seen);
    };
    let end = numbers().map(|(_, next)| next).max().unwrap_or_default();
    let before = [
        ColumnRange::between("kafka_partition", Some(Value::Int(first)), Some(Value::Int(last))),
        ColumnRange::between("kafka_offset", None, Some(Value::Long(end - 1))),
    ];
    let mut batches = snapshot.scan_batches(&COLUMNS, &before).await?;
    while let Some(batch) = batches.next().await {
        note(&mut seen, &batch?, next)?;
    }
    Ok(seen)
}

fn note(
    seen: &mut HashMap<TopicPartition, Seen>,
    batch: &RecordBatch,
    next: &BTreeMap<TopicPartition, NextOffset>,
) -> Result<(), RecoverError> {
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
    let ours =
        |i: usize| next.iter().find(|(at, _)| at.partition == partition.value(i) && *at.topic == *topic.value(i));
    for i in 0..batch.num_rows() {
        let Some((at, next)) = ours(i) else { continue };
        if offset.value(i) < next.0 && status.value(i) == ledger::LANDED {
            let id = StreamId {
                node: node.value(i).into(),
                boot_id: boot_id.value(i).into(),
                epoch: epoch.value(i),
                stream: stream.value(i),
            };
            let seen = seen.entry(at.clone()).or_default();
            seen.note(id, first_seq.value(i), first_seq.value(i).saturating_add(rows.value(i)));
        }
    }
    Ok(())
}
