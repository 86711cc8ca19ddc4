//! Reads what the two tables of events count by node, minute and operation, a day at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use event_schema::position::OffsetRange;
use futures::TryStreamExt;
use lake::{ColumnRange, TableSnapshot, Value};
use tables::gold::op_minute::{events_of, minute_of};

use super::count;
use crate::columns::Columns;
use crate::error::FactsError;
use crate::facts::{Counts, OpMinute, is_in_any};
use crate::proof::Proof;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// A day of UTC, or all of time. No minute lies in two days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Day {
    All,
    /// Days since 1970-01-01.
    Of(i32),
}

impl Day {
    /// Leaves out the files that have no row of the day.
    fn filter(self, column: &str) -> Vec<ColumnRange> {
        let Self::Of(day) = self else { return Vec::new() };
        let first = i64::from(day) * DAY_US;
        let last = first + DAY_US - 1;
        vec![ColumnRange::between(column, Some(Value::Timestamptz(first)), Some(Value::Timestamptz(last)))]
    }

    fn has(self, time_us: i64) -> bool {
        match self {
            Self::All => true,
            Self::Of(day) => time_us.div_euclid(DAY_US) == i64::from(day),
        }
    }
}

/// Compares the two tables of events, a day at a time.
pub(super) async fn add(events: &TableSnapshot, gold: &TableSnapshot, proof: &mut Proof) -> Result<(), FactsError> {
    let gaps = gold.gaps();
    for day in days(events, gold).await? {
        let held = events_per_minute(events, &gaps, day).await?;
        let aggregated = aggregated(gold, day).await?;
        proof.add_minutes(&held, &aggregated);
    }
    Ok(())
}

/// The days that the tables have rows of, by the partitions of their files. All of time where another program has partitioned a table
/// in another way.
async fn days(events: &TableSnapshot, gold: &TableSnapshot) -> Result<BTreeSet<Day>, FactsError> {
    let mut days = BTreeSet::new();
    for table in [events, gold] {
        for file in table.plan(&[]).await? {
            let Some(day) = file.day else { return Ok(BTreeSet::from([Day::All])) };
            days.insert(Day::Of(day));
        }
    }
    Ok(days)
}

/// Counts the events of all messages but those in gaps of the aggregates.
async fn events_per_minute(snapshot: &TableSnapshot, unseen: &[OffsetRange], day: Day) -> Result<Counts, FactsError> {
    let names = ["node", "ts", "source", "op", "sample_weight", "log_name", "log_partition", "log_offset"];
    let table = snapshot.ident().to_string();
    let mut counts = BTreeMap::new();
    let mut batches = snapshot.scan_batches(&names, &day.filter("ts")).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let weights = columns.float(4)?;
        let logs = columns.text(5)?;
        let partitions = columns.int(6)?;
        let offsets = columns.long(7)?;
        let mut events = Vec::with_capacity(columns.rows());
        for row in 0..columns.rows() {
            let is_unseen = is_in_any(unseen, logs[row], partitions[row], offsets[row]);
            events.push(if is_unseen { 0 } else { events_of(weights[row]) });
        }
        count_minutes(&columns, &events, day, &mut counts)?;
    }
    Ok(counts)
}

async fn aggregated(snapshot: &TableSnapshot, day: Day) -> Result<Counts, FactsError> {
    let table = snapshot.ident().to_string();
    let mut counts = BTreeMap::new();
    let mut batches =
        snapshot.scan_batches(&["node", "minute", "source", "op", "count"], &day.filter("minute")).await?;
    while let Some(batch) = batches.try_next().await? {
        let columns = Columns::of(&table, &batch);
        let events: Vec<u64> = columns.long(4)?.iter().map(|events| count(*events)).collect();
        count_minutes(&columns, &events, day, &mut counts)?;
    }
    Ok(counts)
}

/// Adds the rows of a batch whose first columns are node, time, source and op; `events` is the number of events of each row.
fn count_minutes(columns: &Columns<'_>, events: &[u64], day: Day, counts: &mut Counts) -> Result<(), FactsError> {
    let node = columns.text(0)?;
    let ts = columns.micros(1)?;
    let source = columns.int(2)?;
    let op = columns.int(3)?;
    // Few keys beside many rows: the batch is summed by borrowed keys first.
    let mut sums: HashMap<(&str, i64, i32, i32), u64> = HashMap::new();
    for row in (0..node.len()).filter(|row| day.has(ts[*row])) {
        let sum = sums.entry((node[row], minute_of(ts[row]), source[row], op[row])).or_default();
        *sum = sum.saturating_add(events[row]);
    }
    sums.retain(|_, sum| *sum > 0);
    for ((node, minute_us, source, op), sum) in sums {
        let count = counts.entry(OpMinute { node: node.to_owned(), minute_us, source, op }).or_default();
        *count = count.saturating_add(sum);
    }
    Ok(())
}
