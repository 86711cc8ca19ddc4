//! What has landed of recordings, as the tables have it.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use event_schema::batch::Value;
use event_schema::identity::{StreamId, is_recording};
use event_schema::stream::Stream;
use futures::TryStreamExt;
use lake::{HeadError, Lake, ReadError};
use tables::seen::Seen;

use crate::compare::{COMPARED, Content, Landed, Sample};

/// Which rows of recordings have landed, by `ops.ledger`. None have where the table does not exist.
///
/// # Errors
/// The lake cannot be read.
pub async fn rows(lake: &Lake) -> Result<Seen, ReadError> {
    let mut seen = Seen::new();
    let snapshot = match lake.table("ops", "ledger").snapshot().await {
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(seen),
        snapshot => snapshot?,
    };
    let columns = ["node", "boot_id", "epoch", "stream", "first_seq", "rows"];
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        note_rows(&batch, &mut seen);
    }
    Ok(seen)
}

/// A message of which a part had landed before leaves all of it landed.
fn note_rows(batch: &RecordBatch, seen: &mut Seen) {
    let [nodes, boot_ids] = [0, 1].map(|at| batch.column(at).as_string::<i32>());
    let [epochs, first_seqs, rows] = [2, 4, 5].map(|at| batch.column(at).as_primitive::<Int64Type>().values());
    let streams = batch.column(3).as_primitive::<Int32Type>().values();
    for row in (0..batch.num_rows()).filter(|row| is_recording(boot_ids.value(*row))) {
        // A stream that this build does not know has no row that it could import.
        let Some(stream) = Stream::from_number(streams[row]) else { continue };
        let stream =
            StreamId { node: nodes.value(row).into(), boot_id: boot_ids.value(row).into(), epoch: epochs[row], stream };
        seen.note(stream, first_seqs[row], first_seqs[row].saturating_add(rows[row]));
    }
}

/// What the events of `silver.events` with the keys of a sample hold.
///
/// # Errors
/// The lake cannot be read.
pub async fn events(lake: &Lake, sample: &Sample) -> Result<Landed, ReadError> {
    let mut landed = Landed::default();
    // Most rows of the table have none of these numbers, and then need no key to be made.
    let wanted = sample.seqs();
    let snapshot = match lake.table("silver", "events").snapshot().await {
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(landed),
        snapshot => snapshot?,
    };
    let columns: Vec<&str> = ["node", "boot_id", "epoch", "stream", "seq"].into_iter().chain(COMPARED).collect();
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let [nodes, boot_ids] = [0, 1].map(|at| batch.column(at).as_string::<i32>());
        let [epochs, seqs] = [2, 4].map(|at| batch.column(at).as_primitive::<Int64Type>());
        let streams = batch.column(3).as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            if !wanted.contains(&seqs.value(row)) || !is_recording(boot_ids.value(row)) {
                continue;
            }
            let Some(stream) = Stream::from_number(streams.value(row)) else { continue };
            let stream = StreamId {
                node: nodes.value(row).into(),
                boot_id: boot_ids.value(row).into(),
                epoch: epochs.value(row),
                stream,
            };
            let key = (stream, seqs.value(row));
            if sample.has(&key) {
                let cells: Vec<Value> = batch.columns()[5..].iter().map(|column| cell(column, row)).collect();
                landed.add(key, Content::of(&cells.iter().collect::<Vec<_>>()));
            }
        }
    }
    Ok(landed)
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int32 => Value::Long(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Long(column.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        _ => Value::Null,
    }
}
