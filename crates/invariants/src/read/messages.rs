//! Reads the messages of a window, and the rows that were made of them.

use std::collections::BTreeMap;

use event_schema::identity::event_id;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::TableSnapshot;
use tables::ops::ledger::{DEAD_LETTER, SKIPPED};
use tables::silver;

use super::window::Offsets;
use super::{Snapshots, count};
use crate::columns::Columns;
use crate::error::FactsError;
use crate::facts::{Epoch, LedgerRow, RecordFacts, Window};
use crate::runs::Runs;

/// Misnamed rows of a table that are listed, in a window.
const MISNAMED_MAX: usize = 10;

/// Reads the messages of a window of offsets.
pub(super) async fn read(snapshots: &Snapshots, offsets: Offsets) -> Result<Window, FactsError> {
    let mut window = Window::default();
    if let Some(bronze) = snapshots.get("bronze.messages") {
        window.bronze = offsets_of(bronze, offsets).await?;
    }
    if let Some(dlq) = snapshots.get("ops.dlq") {
        window.dead_letters = offsets_of(dlq, offsets).await?;
    }
    for kind in RecordKind::ALL {
        if let Some(snapshot) = snapshots.get(&silver::name(kind).to_string()) {
            window.records.push(records(kind, snapshot, offsets).await?);
        }
    }
    if let Some(ledger) = snapshots.get("ops.ledger") {
        ledger_rows(ledger, offsets, &mut window).await?;
    }
    Ok(window)
}

/// The offsets that a table of messages holds of a window.
async fn offsets_of(snapshot: &TableSnapshot, window: Offsets) -> Result<BTreeMap<TopicPartition, Runs>, FactsError> {
    let table = snapshot.ident().to_string();
    let mut found: BTreeMap<TopicPartition, Runs> = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&["log_name", "log_partition", "log_offset"], &window.filter()).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let partitions = columns.int(1)?;
        let offsets = columns.long(2)?;
        for (row, topic) in columns.text(0)?.into_iter().enumerate().filter(|(row, _)| window.has(offsets[*row])) {
            let at = TopicPartition::new(topic, partitions[row]);
            found.entry(at).or_default().add(offsets[row]);
        }
    }
    Ok(found)
}

/// The rows of messages, and the offsets at which the log holds none.
async fn ledger_rows(snapshot: &TableSnapshot, offsets: Offsets, window: &mut Window) -> Result<(), FactsError> {
    const COLUMNS: [&str; 19] = [
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
    let table = snapshot.ident().to_string();
    let mut batches = snapshot.scan_batches(&COLUMNS, &offsets.filter()).await?;
    while let Some(batch) = batches.try_next().await? {
        add_ledger(&Columns::of(&table, &batch), offsets, window)?;
    }
    Ok(())
}

/// Adds the rows of a batch of the ledger.
fn add_ledger(columns: &Columns<'_>, offsets: Offsets, window: &mut Window) -> Result<(), FactsError> {
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
    for row in (0..columns.rows()).filter(|row| offsets.has(offset[*row])) {
        let at = TopicPartition::new(topic[row], partition[row]);
        if status[row] == SKIPPED {
            window.skipped.push(OffsetRange::new(at, offset[row], offset[row].saturating_add(skipped_offsets[row])));
            continue;
        }
        let is_dead_letter = status[row] == DEAD_LETTER;
        window.ledger.push(LedgerRow {
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
        });
    }
    Ok(())
}

/// The rows of a table of records whose messages are in a window.
async fn records(kind: RecordKind, snapshot: &TableSnapshot, window: Offsets) -> Result<RecordFacts, FactsError> {
    let mut facts =
        RecordFacts { table: silver::name(kind).to_string(), kind: kind.name().to_owned(), ..RecordFacts::default() };
    let mut columns = vec!["log_name", "log_partition", "log_offset", "node", "boot_id", "seq"];
    if kind == RecordKind::Event {
        columns.push("event_id");
    }
    let mut batches = snapshot.scan_batches(&columns, &window.filter()).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&facts.table, &batch);
        count_rows(&columns, window, &mut facts.rows)?;
        add_numbers(&columns, window, &mut facts.seqs)?;
        if kind == RecordKind::Event {
            add_misnamed(&columns, window, &mut facts.misnamed)?;
        }
    }
    Ok(facts)
}

/// Adds the sequence numbers of a batch whose third to sixth columns are offset, node, boot and number. Rows come sorted by node: the
/// entry is looked up once per run of a node.
fn add_numbers(
    columns: &Columns<'_>,
    window: Offsets,
    numbers: &mut BTreeMap<(String, String), Runs>,
) -> Result<(), FactsError> {
    let offset = columns.long(2)?;
    let node = columns.text(3)?;
    let boot_id = columns.text(4)?;
    let seq = columns.long(5)?;
    let mut row = 0;
    while row < columns.rows() {
        let seqs = numbers.entry((node[row].to_owned(), boot_id[row].to_owned())).or_default();
        let begin = row;
        while row < columns.rows() && (node[row], boot_id[row]) == (node[begin], boot_id[begin]) {
            if window.has(offset[row]) {
                seqs.add(seq[row]);
            }
            row += 1;
        }
    }
    Ok(())
}

/// Adds the ids of a batch, its seventh column, that are not made of the row's node, boot and number.
fn add_misnamed(columns: &Columns<'_>, window: Offsets, misnamed: &mut Vec<String>) -> Result<(), FactsError> {
    let offset = columns.long(2)?;
    let node = columns.text(3)?;
    let boot_id = columns.text(4)?;
    let seq = columns.long(5)?;
    for (row, id) in columns.text(6)?.into_iter().enumerate().filter(|(row, _)| window.has(offset[*row])) {
        if misnamed.len() < MISNAMED_MAX && id != event_id(node[row], boot_id[row], seq[row]) {
            misnamed.push(id.to_owned());
        }
    }
    Ok(())
}

/// Adds the rows of each message of a batch whose first columns are log, partition and offset. Rows of one message lie mostly
/// together: the message is looked up once per run of them.
fn count_rows(
    columns: &Columns<'_>,
    window: Offsets,
    rows: &mut BTreeMap<TopicPartition, BTreeMap<i64, i64>>,
) -> Result<(), FactsError> {
    let logs = columns.text(0)?;
    let partitions = columns.int(1)?;
    let offsets = columns.long(2)?;
    let mut begin = 0;
    while begin < logs.len() {
        let message = (logs[begin], partitions[begin], offsets[begin]);
        let mut end = begin;
        while end < logs.len() && (logs[end], partitions[end], offsets[end]) == message {
            end += 1;
        }
        if window.has(offsets[begin]) {
            let at = TopicPartition::new(logs[begin], partitions[begin]);
            let count = rows.entry(at).or_default().entry(offsets[begin]).or_default();
            *count = count.saturating_add(i64::try_from(end - begin).unwrap_or(i64::MAX));
        }
        begin = end;
    }
    Ok(())
}
