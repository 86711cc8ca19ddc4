//! A table in which every offset of the log is one row, and how its batches land.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::{CommitOutcome, CommitRequest, ReadError, TableHandle, Token};
use tables::columns::{int, long, timestamp};
use tables::def::{ColumnType, Partition, TableDef, TableName, column};

use crate::place::Place;

/// 2026-01-01T00:00:00Z in microseconds.
pub(crate) const NEW_YEAR: i64 = 1_767_225_600_000_000;

/// How long anything may take on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn def() -> TableDef {
    TableDef {
        name: TableName { namespace: "silver", name: "t" },
        doc: "one row per offset",
        columns: vec![
            column(1, "part", ColumnType::Int, "partition"),
            column(2, "seq", ColumnType::Long, "offset"),
            column(3, "ts", ColumnType::Timestamptz, "time"),
        ],
        partition: Partition::Day("ts"),
        sort: &["part", "seq"],
        tiers: false,
    }
}

pub(crate) fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(TopicPartition::new("topic", partition), start, end)
}

fn rows(range: &OffsetRange) -> RecordBatch {
    let offsets = || range.start..range.end;
    let columns: Vec<ArrayRef> = vec![
        int(offsets().map(|_| range.at.partition)),
        long(offsets()),
        timestamp(offsets().map(|offset| NEW_YEAR + offset)),
    ];
    RecordBatch::try_new(def().arrow_schema(), columns).unwrap()
}

/// One row at a time of choice.
pub(crate) fn row(partition: i32, offset: i64, ts: i64) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![int([partition]), long([offset]), timestamp([ts])];
    RecordBatch::try_new(def().arrow_schema(), columns).unwrap()
}

/// The batch that holds these offsets, its files uploaded.
pub(crate) async fn batch(table: &TableHandle, ranges: &[OffsetRange]) -> CommitRequest {
    let rows: Vec<_> = ranges.iter().map(rows).collect();
    let files = table.write(&rows).await.unwrap();
    CommitRequest::new(ranges.to_vec(), Token::random(), files)
}

/// Lands a batch that nothing is in the way of; how many swaps that took.
pub(crate) async fn land(table: &TableHandle, ranges: &[OffsetRange]) -> u32 {
    settle(table, &batch(table, ranges).await).await
}

#[track_caller]
pub(crate) fn swaps(outcome: CommitOutcome) -> u32 {
    match outcome {
        CommitOutcome::Committed(committed) => committed.swaps,
        other => panic!("not committed: {other:?}"),
    }
}

/// Commits the same request until what was in the way is gone; how many swaps the last call took.
pub(crate) async fn settle(table: &TableHandle, request: &CommitRequest) -> u32 {
    let deadline = tokio::time::Instant::now() + TIME_LIMIT;
    loop {
        match table.commit(request.clone()).await {
            CommitOutcome::Unreachable(error) | CommitOutcome::Unknown(error) => {
                assert!(tokio::time::Instant::now() < deadline, "{}", report(&error));
            }
            outcome => return swaps(outcome),
        }
    }
}

/// The table's offsets of the partitions 0, 1, …
pub(crate) async fn offsets(table: &TableHandle) -> Vec<i64> {
    let offsets: BTreeMap<TopicPartition, NextOffset> = table.offsets().await.unwrap();
    offsets.into_values().map(|next| next.0).collect()
}

/// Partition and offset of every row that the current snapshot has, sorted.
pub(crate) async fn read(place: &Place) -> Result<Vec<(i32, i64)>, ReadError> {
    let snapshot = place.lake().await.table("silver", "t").snapshot().await?;
    let batches: Vec<_> = snapshot.scan_batches(&["part", "seq"], &[]).await?.try_collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        let part = batch.column(0).as_primitive::<Int32Type>().values();
        let seq = batch.column(1).as_primitive::<Int64Type>().values();
        rows.extend(part.iter().copied().zip(seq.iter().copied()));
    }
    rows.sort_unstable();
    Ok(rows)
}

/// The rows of ranges, as [`read`] returns them.
pub(crate) fn rows_of(ranges: &[OffsetRange]) -> Vec<(i32, i64)> {
    let mut rows: Vec<_> = ranges.iter().flat_map(|r| (r.start..r.end).map(|seq| (r.at.partition, seq))).collect();
    rows.sort_unstable();
    rows
}

/// What the protocol has recorded in the properties of the table.
pub(crate) async fn recorded(place: &Place) -> BTreeMap<String, String> {
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let ours = snapshot.properties().iter().filter(|(key, _)| key.starts_with("causeway."));
    ours.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An error and its causes in one line, as a program prints it.
pub(crate) fn report(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
