//! What was seen of a log, attached to `ops.ledger` at intervals. Recovery begins at the newest checkpoint and reads
//! only the later rows of the ledger. Without a readable checkpoint it reads all rows.

use std::sync::Arc;

use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use event_schema::identity::StreamId;
use event_schema::position::{NextOffset, TopicPartition};
use event_schema::stream::Stream;
use lake::Attachment;
use tables::seen::Seen;

/// The blob type of checkpoints: an Arrow IPC stream of [`schema`].
pub(crate) const KIND: &str = "causeway-seen-v1";

/// What was seen of `at` below `next`, to be attached by the commit of `ops.ledger` that reaches `next`.
pub(crate) fn draft(at: &TopicPartition, next: NextOffset, seen: &Seen) -> Result<Attachment, ArrowError> {
    Ok(Attachment { kind: KIND, at: at.clone(), next, bytes: encode(seen)? })
}

/// One row per range of sequence numbers.
fn encode(seen: &Seen) -> Result<Bytes, ArrowError> {
    let rows: Vec<_> = seen.ranges().collect();
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, _)| &*id.node))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(id, _)| &*id.boot_id))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| id.epoch))),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(id, _)| id.stream.number()))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, range)| range.start))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, range)| range.end))),
        ],
    )?;
    // The stream format of Arrow IPC carries its schema, which `decode` compares with its own.
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner().map(Bytes::from)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Seen, ArrowError> {
    let mut seen = Seen::new();
    for batch in StreamReader::try_new(bytes, None)? {
        let batch = batch?;
        // Written by another version: recovery passes it over and reads more of the ledger.
        if batch.schema() != schema() {
            return Err(ArrowError::SchemaError("the columns are not those of a checkpoint".to_owned()));
        }
        let node = batch.column(0).as_string::<i32>();
        let boot_id = batch.column(1).as_string::<i32>();
        let epoch = batch.column(2).as_primitive::<Int64Type>();
        let number = batch.column(3).as_primitive::<Int32Type>();
        let first = batch.column(4).as_primitive::<Int64Type>();
        let end = batch.column(5).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let number = number.value(row);
            let Some(stream) = Stream::from_number(number) else {
                let unknown = format!("a checkpoint has stream {number}, which this version does not know");
                return Err(ArrowError::SchemaError(unknown));
            };
            let id = StreamId {
                node: node.value(row).into(),
                boot_id: boot_id.value(row).into(),
                epoch: epoch.value(row),
                stream,
            };
            // An empty range stands for a message without rows (`Seen::ranges`).
            seen.note(id, first.value(row), end.value(row));
        }
    }
    Ok(seen)
}

fn schema() -> Arc<Schema> {
    let columns = [
        ("node", DataType::Utf8),
        ("boot_id", DataType::Utf8),
        ("epoch", DataType::Int64),
        ("stream", DataType::Int32),
        ("first_seq", DataType::Int64),
        ("end_seq", DataType::Int64),
    ];
    Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, false)).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_reads_back_as_it_was_kept() {
        let stream = |node: &str, stream| StreamId { node: node.into(), boot_id: "b".into(), epoch: 3, stream };
        let mut seen = Seen::new();
        seen.note(stream("a", Stream::Data), 0, 10);
        seen.note(stream("a", Stream::Data), 15, 20);
        seen.note(stream("b", Stream::Critical), 7, 7);
        let read = decode(&encode(&seen).unwrap()).unwrap();
        assert_eq!(read, seen);
        assert_eq!(decode(&encode(&Seen::new()).unwrap()).unwrap(), Seen::new());
        assert!(decode(b"something else").is_err());
    }
}
