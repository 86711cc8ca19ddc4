//! What was seen of a log, attached to `ops.ledger` now and then: recovery begins there, and reads of the ledger only what
//! came later. A checkpoint that cannot be read costs time and nothing else: the ledger has everything.

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
    let long = |of: fn(&(&StreamId, std::ops::Range<i64>)) -> i64| Int64Array::from_iter_values(rows.iter().map(of));
    let text = |of: fn(&StreamId) -> &str| StringArray::from_iter_values(rows.iter().map(|(id, _)| of(id)));
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(text(|id| &id.node)),
            Arc::new(text(|id| &id.boot_id)),
            Arc::new(long(|(id, _)| id.epoch)),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(id, _)| id.stream.number()))),
            Arc::new(long(|(_, range)| range.start)),
            Arc::new(long(|(_, range)| range.end)),
        ],
    )?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner().map(Bytes::from)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Seen, ArrowError> {
    let mut seen = Seen::new();
    for batch in StreamReader::try_new(bytes, None)? {
        let batch = batch?;
        if batch.schema() != schema() {
            return Err(ArrowError::SchemaError("the columns are not those of a checkpoint".to_owned()));
        }
        let text = |at: usize| batch.column(at).as_string::<i32>();
        let long = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        let (node, boot_id, epoch, first, end) = (text(0), text(1), long(2), long(4), long(5));
        let stream = batch.column(3).as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            let number = stream.value(row);
            let unknown = || ArrowError::SchemaError(format!("a checkpoint has stream {number}, which no build knows"));
            let id = StreamId {
                node: node.value(row).into(),
                boot_id: boot_id.value(row).into(),
                epoch: epoch.value(row),
                stream: Stream::from_number(number).ok_or_else(unknown)?,
            };
            seen.note(id, first.value(row), end.value(row));
        }
    }
    Ok(seen)
}

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind: DataType| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        column("node", DataType::Utf8),
        column("boot_id", DataType::Utf8),
        column("epoch", DataType::Int64),
        column("stream", DataType::Int32),
        column("first_seq", DataType::Int64),
        column("end_seq", DataType::Int64),
    ]))
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
