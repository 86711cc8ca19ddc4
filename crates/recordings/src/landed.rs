//! What has landed, read from the tables: the rows of recordings, and messages of the log.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use event_schema::batch::Value;
use event_schema::identity::{StreamId, is_recording};
use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use event_schema::stream::Stream;
use futures::TryStreamExt;
use lake::{HeadError, Lake, ReadError};
use tables::seen::Seen;

use crate::compare::{COMPARED, Content, Landed, Sample};

/// The rows of recordings that have landed, by `ops.ledger`. Where the table does not exist, none have.
///
/// # Errors
/// The lake cannot be read.
pub async fn rows(lake: &Lake) -> Result<Seen, ReadError> {
    let mut seen = Seen::new();
    let snapshot = match lake.table("ops", "ledger").snapshot().await {
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(seen),
        snapshot => snapshot?,
    };
    // The ledger has a row per message, far fewer than the tables have rows. Columns are read by position below.
    let columns = ["node", "boot_id", "epoch", "stream", "first_seq", "rows"];
    let mut batches = snapshot.scan_batches(&columns, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        note_rows(&batch, &mut seen);
    }
    Ok(seen)
}

/// Records the rows of messages. All rows of a message count as landed: those that it did not add had landed before it.
fn note_rows(batch: &RecordBatch, seen: &mut Seen) {
    let [nodes, boot_ids] = [0, 1].map(|at| batch.column(at).as_string::<i32>());
    let [epochs, first_seqs, rows] = [2, 4, 5].map(|at| batch.column(at).as_primitive::<Int64Type>().values());
    let streams = batch.column(3).as_primitive::<Int32Type>().values();
    for row in (0..batch.num_rows()).filter(|row| is_recording(boot_ids.value(*row))) {
        // A stream of a newer version: no table of recordings is imported into it here.
        let Some(stream) = Stream::from_number(streams[row]) else { continue };
        let stream =
            StreamId { node: nodes.value(row).into(), boot_id: boot_ids.value(row).into(), epoch: epochs[row], stream };
        // Saturating: the ledger is data, and an overflow must not end the import.
        seen.note(stream, first_seqs[row], first_seqs[row].saturating_add(rows[row]));
    }
}

/// Whether `bronze.messages`, `ops.ledger` and every table that gets rows of these kinds hold a partition of the log up
/// to `end`. Other tables follow; what they are made of has landed.
///
/// # Errors
/// The lake cannot be read.
pub async fn has_passed(
    lake: &Lake,
    kinds: &BTreeSet<RecordKind>,
    at: &TopicPartition,
    end: NextOffset,
) -> Result<bool, ReadError> {
    // A partition that never held a message: no table gets an offset of it, and the wait would not end.
    if end == NextOffset::default() {
        return Ok(true);
    }
    let silver = kinds.iter().map(|kind| tables::silver::name(*kind)).map(|name| (name.namespace, name.name));
    for (namespace, name) in silver.chain([("bronze", "messages"), ("ops", "ledger")]) {
        let offsets = match lake.table(namespace, name).offsets().await {
            // Ingest makes the tables when it first opens the lake.
            Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(false),
            offsets => offsets?,
        };
        // Under a name of its own where the topic was made anew (ADR 19): the newest log is the one that is written.
        let newest = offsets.iter().filter(|(of, _)| of.without_generation() == at.without_generation());
        let landed = newest.max_by_key(|(of, _)| of.generation()).map(|(_, next)| *next);
        if landed.is_none_or(|next| next < end) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the events of `silver.events` with the keys of a sample hold.
///
/// # Errors
/// The lake cannot be read.
pub async fn events(lake: &Lake, sample: &Sample) -> Result<Landed, ReadError> {
    let mut landed = Landed::default();
    // A first test by the number alone (prefilter): most rows fail it, and for those no key is allocated.
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
                // Behind the five columns of the key, in the order of `COMPARED`: `Content::of` splits them by
                // position.
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
        // None of the columns in `COMPARED` has another type.
        _ => Value::Null,
    }
}
