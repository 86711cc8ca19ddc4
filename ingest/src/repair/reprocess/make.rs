//! Makes rows from messages, one day of arrival after another, and writes them in files of bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use event_schema::position::TopicPartition;
use event_schema::wire::Header;
use futures::TryStreamExt;
use lake::{DataFile, ScanFile, TableSnapshot, Value, WriteError};
use tables::arrival::Arrival;
use tables::bronze;
use tables::bronze::messages::{REMEMBERED, Remembered};

use super::ledger::{self, FilesByDay, Landed, by_day};
use super::messages::day_of;
use super::scope::{self, Scope};
use super::{ReprocessError, Target};
use crate::repair::letters::Coordinates;

/// Messages read at once: their values are of some kilobytes, and of 8 MiB at most.
const MESSAGES_AT_ONCE: usize = 128;
/// Messages and their decoded rows are made into files at this size in memory.
const CHUNK_BYTES: usize = 64 << 20;

/// Messages of which rows are to be made, by their place.
type Wanted = BTreeMap<(TopicPartition, i64), Message>;

/// What the ledger has of a message.
#[derive(Debug)]
struct Message {
    landed: Landed,
    /// The targets, by their place in the list.
    targets: Vec<usize>,
    /// The rows that were new; `None` when all were.
    fresh: Option<Vec<Range<u32>>>,
    /// Whether it was chosen by the days of its rows.
    is_by_day: bool,
}

impl Message {
    /// The message, if a target wants its rows.
    fn wanted(landed: Landed, targets: &[Target]) -> Option<Self> {
        let mut message = Self { landed, targets: Vec::new(), fresh: None, is_by_day: false };
        for (index, target) in targets.iter().enumerate() {
            if target.scope.wants(&message.landed, &target.messages) {
                message.targets.push(index);
                message.is_by_day |= !target.scope.is_of_messages();
            }
        }
        (!message.targets.is_empty()).then_some(message)
    }

    /// What the message must hold.
    fn facts(&self) -> Facts {
        let Landed { kind, stream, first_seq, rows, times_us, .. } = &self.landed;
        Facts {
            kind: kind.name(),
            node: stream.node.to_string(),
            seqs: *first_seq..first_seq.saturating_add(*rows),
            times_us: self.is_by_day.then_some(*times_us),
        }
    }
}

/// A message with its rows, and the targets that they are made for.
struct Decoded {
    arrival: Arrival,
    targets: Vec<usize>,
}

/// Makes the rows of all targets and writes their files.
pub(super) async fn make(
    bronze: &TableSnapshot,
    ledger: &TableSnapshot,
    targets: &mut [Target],
) -> Result<(), ReprocessError> {
    let of_ledger = scope::files(ledger, targets).await?;
    if of_ledger.is_empty() {
        return Ok(());
    }
    // Of all days: which files hold the messages is decided by the bounds of each (`may_hold`).
    let of_bronze = by_day(bronze.plan(&[]).await.map_err(ReprocessError::unread(bronze))?);
    let days: BTreeSet<Option<i32>> = of_ledger.keys().chain(of_bronze.keys()).copied().collect();
    let mut wanted = Wanted::new();
    for day in days {
        add_wanted(ledger, files_of(&of_ledger, day), targets, &mut wanted).await?;
        // A message that bronze got only after a restart has a later time there: then it is found on a later day.
        make_day(bronze, files_of(&of_bronze, day), targets, &mut wanted).await?;
    }
    match wanted.into_keys().next() {
        Some((at, offset)) => Err(ReprocessError::NotInBronze(Coordinates { at, offset })),
        None => Ok(()),
    }
}

fn files_of(files: &FilesByDay, day: Option<i32>) -> &[Arc<ScanFile>] {
    files.get(&day).map_or(&[], Vec::as_slice)
}

/// Adds the messages of a day of the ledger.
async fn add_wanted(
    ledger: &TableSnapshot,
    files: &[Arc<ScanFile>],
    targets: &[Target],
    wanted: &mut Wanted,
) -> Result<(), ReprocessError> {
    let mut partial = Vec::new();
    for file in files {
        ledger::read(ledger, file, |landed| {
            let Some(message) = Message::wanted(landed, targets) else { return };
            if !message.landed.is_whole() {
                partial.push(message.landed.clone());
            }
            wanted.insert((message.landed.at.clone(), message.landed.offset), message);
        })
        .await?;
    }
    // Together for a day: each decision reads the ledger from its beginning, and partial messages are few.
    for (place, fresh) in ledger::decide(ledger, &partial).await? {
        if let Some(message) = wanted.get_mut(&place) {
            message.fresh = Some(fresh);
        }
    }
    Ok(())
}

/// Makes the rows of those messages that lie in these files of bronze.
async fn make_day(
    bronze: &TableSnapshot,
    files: &[Arc<ScanFile>],
    targets: &mut [Target],
    wanted: &mut Wanted,
) -> Result<(), ReprocessError> {
    let mut chunk: Vec<Decoded> = Vec::new();
    let mut bytes = 0;
    for file in files {
        if !may_hold(file, wanted) {
            // Not opened: values are most of the bytes of bronze.
            continue;
        }
        let mut batches =
            bronze.read_file(file, &REMEMBERED, MESSAGES_AT_ONCE).map_err(ReprocessError::unread(bronze))?;
        while let Some(batch) = batches.try_next().await.map_err(ReprocessError::unread(bronze))? {
            bytes += decode(&batch, wanted, &mut chunk)?;
            if bytes >= CHUNK_BYTES {
                write(&mut chunk, targets).await?;
                bytes = 0;
            }
        }
    }
    write(&mut chunk, targets).await
}

/// Whether a file of bronze may hold one of the messages, by the bounds of its offsets.
fn may_hold(file: &ScanFile, wanted: &Wanted) -> bool {
    let offsets = bounds(file, "log_offset").unwrap_or(i64::MIN..=i64::MAX);
    let partitions = bounds(file, "log_partition").unwrap_or(i64::MIN..=i64::MAX);
    let mut next = wanted.keys().next();
    // From partition to partition, each looked up in the map.
    while let Some((at, _)) = next {
        let of_partition = (at.clone(), *offsets.start())..=(at.clone(), *offsets.end());
        if partitions.contains(&i64::from(at.partition)) && wanted.range(of_partition).next().is_some() {
            return true;
        }
        next = wanted.range((at.clone(), i64::MAX)..).map(|(key, _)| key).find(|(other, _)| other != at);
    }
    false
}

/// The least and the greatest value of a column of bronze in a file; `None` when unknown.
fn bounds(file: &ScanFile, column: &str) -> Option<std::ops::RangeInclusive<i64>> {
    let def = bronze::messages::def();
    let stats = file.column(def.column(column)?.id)?;
    let lower = number(stats.lower.as_ref()?)?;
    // Not below the least, whatever the manifest says: such a range cannot be looked up.
    Some(lower..=number(stats.upper.as_ref()?)?.max(lower))
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(i64::from(*number)),
        Value::Long(number) => Some(*number),
        _ => None,
    }
}

/// Decodes those messages of a batch that are wanted, and takes them off the list. Returns the bytes that they hold.
fn decode(batch: &RecordBatch, wanted: &mut Wanted, chunk: &mut Vec<Decoded>) -> Result<usize, ReprocessError> {
    let rows = Remembered::of(batch).map_err(ReprocessError::Message)?;
    let mut bytes = 0;
    for row in 0..rows.len() {
        // Looked up before the value is copied: other kinds of messages lie between those that are wanted.
        let Some(expected) = wanted.remove(&(rows.at(row), rows.offset(row))) else { continue };
        let message = rows.message(row).map_err(ReprocessError::Message)?;
        let arrival = decided(Arrival::decode(message, rows.arrived_us(row)), &expected)?;
        let decoded = arrival.outcome.as_ref().map_or(0, |decoded| decoded.batch_bytes);
        bytes += arrival.message.held_bytes() + decoded;
        chunk.push(Decoded { arrival, targets: expected.targets });
    }
    Ok(bytes)
}

/// The arrival with the rows that were new when it landed, if it is the message that the ledger has.
fn decided(arrival: Arrival, expected: &Message) -> Result<Arrival, ReprocessError> {
    let landed = &expected.landed;
    let decoded = match &arrival.outcome {
        Ok(decoded) => decoded,
        Err(rejection) => {
            let (cause, detail) = (rejection.cause, rejection.detail.clone());
            return Err(ReprocessError::NotDecoded { message: landed.place(), cause, detail });
        }
    };
    // Bronze and ledger are two tables: another program may have changed one of them.
    let says = expected.facts();
    let found = Facts::of(&decoded.header, expected.is_by_day);
    if found != says {
        let message = landed.place();
        return Err(ReprocessError::Differs { message, found: found.to_string(), expected: says.to_string() });
    }
    let all = std::iter::once(0..decoded.header.rows);
    let fresh = expected.fresh.clone().unwrap_or_else(|| all.collect());
    Ok(Arrival { fresh, ..arrival })
}

/// What message and ledger must agree on.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: &'static str,
    node: String,
    seqs: Range<i64>,
    /// Of the earliest and the latest row, unix microseconds; only where the message was chosen by its days.
    times_us: Option<(i64, i64)>,
}

impl Facts {
    fn of(header: &Header, is_by_day: bool) -> Self {
        let [first_us, last_us] = [header.first_boot_ns, header.last_boot_ns]
            .map(|boot_ns| header.beacon.wall_ns_of(boot_ns).div_euclid(1_000));
        Self {
            kind: header.kind.name(),
            node: header.node.clone(),
            seqs: header.first_seq..header.end_seq(),
            times_us: is_by_day.then_some((first_us, last_us)),
        }
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, node, seqs, times_us } = self;
        write!(f, "rows {}-{} of kind {kind} and node {node}", seqs.start, seqs.end)?;
        match times_us {
            Some((first, last)) => write!(f, " from unix time {first} to {last} us"),
            None => Ok(()),
        }
    }
}

/// Makes the rows of a chunk for every target, and writes them. The chunk is empty then.
async fn write(chunk: &mut Vec<Decoded>, targets: &mut [Target]) -> Result<(), ReprocessError> {
    if chunk.is_empty() {
        return Ok(());
    }
    for (index, target) in targets.iter_mut().enumerate() {
        let arrivals = chunk.iter().filter(|decoded| decoded.targets.contains(&index));
        let arrivals: Vec<&Arrival> = arrivals.map(|decoded| &decoded.arrival).collect();
        // One target after another, so that the rows of one at a time are in memory beside the messages.
        let rows = target.rows(&arrivals)?;
        target.made.messages += arrivals.len() as u64;
        target.made.rows += rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let files = target.write(rows).await?;
        target.files.extend(files);
    }
    chunk.clear();
    Ok(())
}

impl Target {
    fn rows(&self, arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ReprocessError> {
        let rows = self.table.rows(arrivals).map_err(|source| self.not_made(source))?;
        match &self.scope {
            Scope::Messages { .. } => Ok(rows),
            Scope::Days { days, .. } => {
                let of_days = rows.iter().map(|batch| filter_record_batch(batch, &of_days(batch, days)));
                of_days.collect::<Result<_, _>>().map_err(|source| self.not_made(source))
            }
        }
    }

    pub(super) fn not_made(&self, source: ArrowError) -> ReprocessError {
        ReprocessError::Rows { table: self.name(), source }
    }

    /// Writes rows into files that nothing names yet.
    pub(super) async fn write(&self, rows: Vec<RecordBatch>) -> Result<Vec<DataFile>, ReprocessError> {
        if rows.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Vec::new());
        }
        let files = self.handle.encode(rows).map_err(|source| self.not_written(source))?;
        self.handle.upload(files).await.map_err(|source| self.not_written(source))
    }

    fn not_written(&self, source: WriteError) -> ReprocessError {
        ReprocessError::Write { table: self.name(), source }
    }
}

/// Of each partial aggregate, whether its minute lies in one of the days.
fn of_days(batch: &RecordBatch, days: &BTreeSet<i32>) -> BooleanArray {
    let minutes =
        batch.column_by_name("minute").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let minutes = minutes.map(|minutes| minutes.values().iter().map(|us| Some(days.contains(&day_of(*us)))));
    // The table is partitioned by the column, so that it is there.
    minutes.map(Iterator::collect).unwrap_or_else(|| BooleanArray::from(vec![false; batch.num_rows()]))
}
