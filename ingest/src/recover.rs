//! What the log held before the position reading resumes at, out of `ops.ledger`: the memory that decides duplicates must be
//! that of the whole log prefix, whoever read it.

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

/// The sequence numbers that messages of `at` below `next` carried.
pub(crate) async fn seen(
    snapshot: &TableSnapshot,
    at: &TopicPartition,
    next: NextOffset,
) -> Result<Seen, RecoverError> {
    let mut seen = Seen::new();
    if next.0 == 0 {
        return Ok(seen);
    }
    let before = [
        ColumnRange::equals("kafka_partition", Value::Int(at.partition)),
        ColumnRange::between("kafka_offset", None, Some(Value::Long(next.0 - 1))),
    ];
    let mut batches = snapshot.scan_batches(&COLUMNS, &before).await?;
    while let Some(batch) = batches.next().await {
        note(&mut seen, &batch?, at, next)?;
    }
    Ok(seen)
}

fn note(seen: &mut Seen, batch: &RecordBatch, at: &TopicPartition, next: NextOffset) -> Result<(), RecoverError> {
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
    for i in 0..batch.num_rows() {
        let is_before = topic.value(i) == &*at.topic && partition.value(i) == at.partition && offset.value(i) < next.0;
        if is_before && status.value(i) == ledger::LANDED {
            let id = StreamId {
                node: node.value(i).into(),
                boot_id: boot_id.value(i).into(),
                epoch: epoch.value(i),
                stream: stream.value(i),
            };
            seen.note(id, first_seq.value(i), first_seq.value(i).saturating_add(rows.value(i)));
        }
    }
    Ok(())
}
