//! Reads the messages, and the rows that were made of them, each table once.

use event_schema::identity::event_id;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::{ColumnRange, TableSnapshot, Value};
use tables::ops::ledger::{DEAD_LETTER, SKIPPED};
use tables::silver;

use super::{Snapshots, count};
use crate::columns::Columns;
use crate::error::FactsError;
use crate::facts::{Boot, Epoch, LedgerRow};
use crate::proof::{Proof, Suspects};
use crate::runs::Runs;

/// Reads all tables of messages and of records. What seems to differ is read a second time.
pub(super) async fn read(snapshots: &Snapshots, proof: &mut Proof) -> Result<(), FactsError> {
    if let Some(bronze) = snapshots.get("bronze.messages") {
        each_offset(bronze, |at, offset| proof.add_bronze(at, offset)).await?;
    }
    if let Some(dlq) = snapshots.get("ops.dlq") {
        each_offset(dlq, |at, offset| proof.add_dead_letter(at, offset)).await?;
    }
    for kind in RecordKind::ALL {
        if let Some(snapshot) = snapshots.get(&silver::name(kind).to_string()) {
            records(kind, snapshot, proof).await?;
        }
    }
    if let Some(ledger) = snapshots.get("ops.ledger") {
        let mut batches = ledger.scan_batches(&LEDGER, &[]).await?;
        let table = ledger.ident().to_string();
        while let Some(batch) = batches.try_next().await? {
            each_message(&Columns::of(&table, &batch), |entry| match entry {
                Entry::Message(row) => proof.add_ledger(&row),
                Entry::Skipped(range) => proof.add_skipped(&range),
            })?;
        }
    }
    for suspects in proof.take_suspects() {
        let suspects = read_again(snapshots, suspects, proof).await?;
        proof.look_at(suspects);
    }
    Ok(())
}

/// Reads the messages of some ranges of a table again, one by one.
async fn read_again(snapshots: &Snapshots, mut suspects: Suspects, proof: &Proof) -> Result<Suspects, FactsError> {
    let (first, last) = suspects.span();
    let ranges = [ColumnRange::between("log_offset", Some(Value::Long(first)), Some(Value::Long(last)))];
    if let Some(ledger) = snapshots.get("ops.ledger")
        && let Some(of_table) = proof.table(&suspects.table)
    {
        let table = ledger.ident().to_string();
        let mut batches = ledger.scan_batches(&LEDGER, &ranges).await?;
        while let Some(batch) = batches.try_next().await? {
            each_message(&Columns::of(&table, &batch), |entry| match entry {
                Entry::Message(row) => suspects.add_ledger(&row, of_table),
                Entry::Skipped(_) => {}
            })?;
        }
    }
    if let Some(snapshot) = snapshots.get(&suspects.table) {
        let table = suspects.table.clone();
        let mut batches = snapshot.scan_batches(&["log_name", "log_partition", "log_offset"], &ranges).await?;
        while let Some(batch) = batches.try_next().await? {
            each_run(&Columns::of(&table, &batch), |at, offset, rows| suspects.add_found(at, offset, rows))?;
        }
    }
    Ok(suspects)
}

/// Calls `take` with the place of each row of a table of messages.
async fn each_offset(snapshot: &TableSnapshot, mut take: impl FnMut(&TopicPartition, i64)) -> Result<(), FactsError> {
    let table = snapshot.ident().to_string();
    let mut batches = snapshot.scan_batches(&["log_name", "log_partition", "log_offset"], &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        each_run(&Columns::of(&table, &batch), |at, offset, rows| (0..rows).for_each(|_| take(at, offset)))?;
    }
    Ok(())
}

const LEDGER: [&str; 19] = [
    "log_name",
    "log_partition",
    "log_offset",
    "status",
    "node",
    "boot_id",
    "kind",
    "epoch",
    "stream",
    "first_seq",
    "rows",
    "landed_rows",
    "duplicate_rows",
    "emitted",
    "ring_drop",
    "shed",
    "sampled_out",
    "spool_drop",
    "skipped_offsets",
];

/// A row of the ledger.
enum Entry {
    Message(LedgerRow),
    /// Offsets at which the log holds no message.
    Skipped(OffsetRange),
}

/// Calls `take` with each row of a batch of the ledger.
fn each_message(columns: &Columns<'_>, mut take: impl FnMut(Entry)) -> Result<(), FactsError> {
    let topic = columns.text(0)?;
    let partition = columns.int(1)?;
    let offset = columns.long(2)?;
    let status = columns.text(3)?;
    let node = columns.text(4)?;
    let boot_id = columns.text(5)?;
    let kind = columns.text(6)?;
    let epoch = columns.long(7)?;
    let stream = columns.int(8)?;
    let first_seq = columns.long(9)?;
    let announced = columns.long(10)?;
    let landed = columns.long(11)?;
    let duplicates = columns.long(12)?;
    let emitted = columns.long(13)?;
    let ring_drop = columns.long(14)?;
    let shed = columns.long(15)?;
    let sampled_out = columns.long(16)?;
    let spool_drop = columns.long(17)?;
    let skipped_offsets = columns.long(18)?;
    for row in 0..columns.rows() {
        let at = TopicPartition::new(topic[row], partition[row]);
        if status[row] == SKIPPED {
            let end = offset[row].saturating_add(skipped_offsets[row]);
            take(Entry::Skipped(OffsetRange::new(at, offset[row], end)));
            continue;
        }
        let is_dead_letter = status[row] == DEAD_LETTER;
        take(Entry::Message(LedgerRow {
            at,
            offset: offset[row],
            is_dead_letter,
            kind: Some(kind[row].to_owned()).filter(|_| !is_dead_letter),
            epoch: Epoch { node: node[row].to_owned(), boot_id: boot_id[row].to_owned(), epoch: epoch[row] },
            stream: columns.stream(stream[row])?,
            first_seq: first_seq[row],
            rows: announced[row],
            landed: landed[row],
            duplicates: duplicates[row],
            losses: LossCounters {
                emitted: count(emitted[row]),
                ring_drop: count(ring_drop[row]),
                shed: count(shed[row]),
                sampled_out: count(sampled_out[row]),
                spool_drop: count(spool_drop[row]),
            },
        }));
    }
    Ok(())
}

/// Reads a table of records.
async fn records(kind: RecordKind, snapshot: &TableSnapshot, proof: &mut Proof) -> Result<(), FactsError> {
    let table = silver::name(kind).to_string();
    let mut names = vec!["log_name", "log_partition", "log_offset", "node", "boot_id", "seq"];
    if kind == RecordKind::Event {
        names.push("event_id");
    }
    let mut batches = snapshot.scan_batches(&names, &[]).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        each_run(&columns, |at, offset, rows| proof.add_rows(&table, at, offset, rows))?;
        let node = columns.text(3)?;
        let boot_id = columns.text(4)?;
        let seq = columns.long(5)?;
        let mut row = 0;
        // Rows are sorted by node: a run of them has one boot.
        while row < columns.rows() {
            let boot = Boot { node: node[row], boot_id: boot_id[row] };
            let mut numbers = Runs::default();
            while row < columns.rows() && boot == (Boot { node: node[row], boot_id: boot_id[row] }) {
                numbers.add(seq[row]);
                row += 1;
            }
            // Merged before: two streams come in turns, and their numbers are two ranges.
            numbers.merge();
            proof.add_numbers(&table, boot, &numbers);
        }
        if kind == RecordKind::Event {
            let ids = columns.text(6)?.into_iter().enumerate();
            let misnamed = ids.filter(|(row, id)| *id != event_id(node[*row], boot_id[*row], seq[*row]));
            misnamed.for_each(|(_, id)| proof.add_misnamed(&table, id));
        }
    }
    Ok(())
}

/// Calls `take` with the place and the number of consecutive rows of one message, for all rows of a batch whose first columns are
/// log, partition and offset. Rows of one message lie mostly together.
fn each_run(columns: &Columns<'_>, mut take: impl FnMut(&TopicPartition, i64, i64)) -> Result<(), FactsError> {
    let logs = columns.text(0)?;
    let partitions = columns.int(1)?;
    let offsets = columns.long(2)?;
    let mut begin = 0;
    let mut at = TopicPartition::new("", 0);
    while begin < logs.len() {
        if (&*at.topic, at.partition) != (logs[begin], partitions[begin]) {
            at = TopicPartition::new(logs[begin], partitions[begin]);
        }
        let mut end = begin;
        while end < logs.len()
            && (logs[end], partitions[end], offsets[end]) == (logs[begin], partitions[begin], offsets[begin])
        {
            end += 1;
        }
        take(&at, offsets[begin], i64::try_from(end - begin).unwrap_or(i64::MAX));
        begin = end;
    }
    Ok(())
}
