//! What `ops.ledger` has of messages whose rows landed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use event_schema::identity::StreamId;
use event_schema::kind::RecordKind;
use event_schema::position::TopicPartition;
use event_schema::stream::Stream;
use futures::TryStreamExt;
use lake::{ColumnRange, ScanFile, TableSnapshot, Value};
use tables::ops::ledger::LANDED;
use tables::seen::Seen;

use super::ReprocessError;
use super::messages::{Messages, day_of};
use crate::recover::around;
use crate::repair::columns::{ColumnError, Places, numbers, text};
use crate::repair::letters::Coordinates;

/// Rows of the ledger read at once.
const ROWS_AT_ONCE: usize = 16_384;

const COLUMNS: [&str; 14] = [
    "log_name",
    "log_partition",
    "log_offset",
    "status",
    "kind",
    "node",
    "boot_id",
    "epoch",
    "stream",
    "first_seq",
    "rows",
    "landed_rows",
    "first_ts",
    "last_ts",
];

/// A message of which rows landed where it lies.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) kind: RecordKind,
    pub(crate) stream: StreamId,
    pub(crate) first_seq: i64,
    /// Rows that its header announced.
    pub(crate) rows: i64,
    /// Those that were new; at least one.
    pub(crate) landed: i64,
    /// Wall time of its earliest and its latest row, unix microseconds.
    pub(crate) times_us: (i64, i64),
}

impl Landed {
    pub(super) fn place(&self) -> Coordinates {
        Coordinates { at: self.at.clone(), offset: self.offset }
    }

    /// The days that its rows lie in.
    pub(super) fn days(&self) -> RangeInclusive<i32> {
        let first = day_of(self.times_us.0);
        // Not before the first, whatever the table holds: such a range has no days.
        first..=day_of(self.times_us.1).max(first)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.landed == self.rows
    }

    fn end_seq(&self) -> i64 {
        self.first_seq.saturating_add(self.rows)
    }
}

/// Calls `take` with each message of a batch that left rows; dead letters, forwarded ones and whole repetitions did not.
fn each(batch: &RecordBatch, mut take: impl FnMut(Landed)) -> Result<(), ColumnError> {
    let places = Places::of(batch)?;
    let [status, kind] = [text(batch, "status")?, text(batch, "kind")?];
    let [node, boot_id] = [text(batch, "node")?, text(batch, "boot_id")?];
    let stream = numbers::<Int32Type>(batch, "stream")?;
    let epoch = numbers::<Int64Type>(batch, "epoch")?;
    let first_seq = numbers::<Int64Type>(batch, "first_seq")?;
    let rows = numbers::<Int64Type>(batch, "rows")?;
    let landed = numbers::<Int64Type>(batch, "landed_rows")?;
    let first_ts = numbers::<TimestampMicrosecondType>(batch, "first_ts")?;
    let last_ts = numbers::<TimestampMicrosecondType>(batch, "last_ts")?;
    for row in (0..batch.num_rows()).filter(|row| status.value(*row) == LANDED && landed.value(*row) > 0) {
        // Of a newer version: none of the tables of this one holds its rows.
        let Some(kind) = RecordKind::ALL.into_iter().find(|known| known.name() == kind.value(row)) else { continue };
        let Some(stream) = Stream::from_number(stream.value(row)) else { continue };
        let stream = StreamId {
            node: node.value(row).into(),
            boot_id: boot_id.value(row).into(),
            epoch: epoch.value(row),
            stream,
        };
        take(Landed {
            at: places.at(row),
            offset: places.offset(row),
            kind,
            stream,
            first_seq: first_seq.value(row),
            rows: rows.value(row),
            landed: landed.value(row),
            times_us: (first_ts.value(row), last_ts.value(row)),
        });
    }
    Ok(())
}

/// The days in which these messages have events.
pub(super) async fn days(ledger: &TableSnapshot, messages: &Messages) -> Result<BTreeSet<i32>, ReprocessError> {
    let mut days = BTreeSet::new();
    if messages.is_empty() {
        return Ok(days);
    }
    let mut batches =
        ledger.scan_batches(&COLUMNS, &around(&messages.spans())).await.map_err(ReprocessError::unread(ledger))?;
    while let Some(batch) = batches.try_next().await.map_err(ReprocessError::unread(ledger))? {
        each(&batch, |landed| {
            if landed.kind == RecordKind::Event && messages.contains(&landed.at, landed.offset) {
                days.extend(landed.days());
            }
        })
        .map_err(ReprocessError::misread(ledger))?;
    }
    Ok(days)
}

/// Files by the day of their partition.
pub(super) type FilesByDay = BTreeMap<Option<i32>, Vec<Arc<ScanFile>>>;

/// Puts files together by the day of their partition.
pub(super) fn by_day(files: impl IntoIterator<Item = Arc<ScanFile>>) -> FilesByDay {
    let mut days = FilesByDay::new();
    files.into_iter().for_each(|file| days.entry(file.day).or_default().push(file));
    days
}

/// Calls `take` with each message of a file of the ledger that left rows.
pub(super) async fn read(
    ledger: &TableSnapshot,
    file: &Arc<ScanFile>,
    mut take: impl FnMut(Landed),
) -> Result<(), ReprocessError> {
    let mut batches = ledger.read_file(file, &COLUMNS, ROWS_AT_ONCE).map_err(ReprocessError::unread(ledger))?;
    while let Some(batch) = batches.try_next().await.map_err(ReprocessError::unread(ledger))? {
        each(&batch, &mut take).map_err(ReprocessError::misread(ledger))?;
    }
    Ok(())
}

/// The rows of messages, as ranges of row numbers, that were new when they landed.
pub(super) type FreshRows = HashMap<(TopicPartition, i64), Vec<Range<u32>>>;

/// Finds which rows were new of messages that had landed in part. What was seen before a message follows from the
/// messages before it: all of their streams are read, from the beginning of the log (`tables::seen`).
pub(super) async fn decide(ledger: &TableSnapshot, partial: &[Landed]) -> Result<FreshRows, ReprocessError> {
    let mut fresh = FreshRows::new();
    if partial.is_empty() {
        return Ok(fresh);
    }
    let wanted: HashMap<_, _> =
        partial.iter().map(|landed| ((landed.at.clone(), landed.offset), landed.landed)).collect();
    for landed in history(ledger, partial).await? {
        let Noted { landed, new } = landed;
        let key = (landed.at.clone(), landed.offset);
        if let Some(count) = wanted.get(&key) {
            fresh.insert(key, row_numbers(&landed, &new, *count)?);
        }
    }
    // A message of the plan that the scan does not find: nothing is known of what was before it.
    match partial.iter().find(|landed| !fresh.contains_key(&(landed.at.clone(), landed.offset))) {
        Some(landed) => Err(undecided(landed, 0)),
        None => Ok(fresh),
    }
}

/// A message, and the sequence numbers that no message before it had.
struct Noted {
    landed: Landed,
    new: Vec<Range<i64>>,
}

/// All messages of the streams of these, in the order in which ingest met them.
async fn history(ledger: &TableSnapshot, partial: &[Landed]) -> Result<Vec<Noted>, ReprocessError> {
    let streams: HashSet<&StreamId> = partial.iter().map(|landed| &landed.stream).collect();
    let nodes: BTreeSet<&Arc<str>> = streams.iter().map(|stream| &stream.node).collect();
    let of_nodes = [ColumnRange::between("node", nodes.first().map(word), nodes.last().map(word))];
    let mut found = Vec::new();
    let mut batches = ledger.scan_batches(&COLUMNS, &of_nodes).await.map_err(ReprocessError::unread(ledger))?;
    while let Some(batch) = batches.try_next().await.map_err(ReprocessError::unread(ledger))? {
        each(&batch, |landed| found.extend(Some(landed).filter(|landed| streams.contains(&landed.stream))))
            .map_err(ReprocessError::misread(ledger))?;
    }
    // Duplicates are found across the logs of a partition, of which the later ones have higher generations.
    found.sort_by_cached_key(|landed| (landed.at.without_generation(), landed.at.generation(), landed.offset));
    let mut seen: HashMap<TopicPartition, Seen> = HashMap::new();
    // Per partition and not per stream: what is new depends on the messages before it there only.
    let noted = found.into_iter().map(|landed| {
        let seen = seen.entry(landed.at.without_generation()).or_default();
        let new = seen.note(landed.stream.clone(), landed.first_seq, landed.end_seq());
        Noted { landed, new }
    });
    Ok(noted.collect())
}

/// The row numbers of sequence numbers of a message, of which `landed` must have been new.
fn row_numbers(message: &Landed, new: &[Range<i64>], landed: i64) -> Result<Vec<Range<u32>>, ReprocessError> {
    // The ledger has the number alone; the same number from the same messages is the same rows.
    let found: i64 = new.iter().map(|range| range.end - range.start).sum();
    if found != landed {
        return Err(undecided(message, found));
    }
    Ok(new.iter().map(|range| row_number(message, range.start)..row_number(message, range.end)).collect())
}

fn row_number(message: &Landed, seq: i64) -> u32 {
    // In range: what is new lies within the message.
    u32::try_from(seq.saturating_sub(message.first_seq)).unwrap_or(u32::MAX)
}

fn word(node: &&Arc<str>) -> Value {
    Value::String(Arc::clone(node))
}

fn undecided(message: &Landed, found: i64) -> ReprocessError {
    ReprocessError::Undecided {
        message: message.place(),
        found: found.unsigned_abs(),
        landed: message.landed.unsigned_abs(),
    }
}
