//! Looks at a table: pins its snapshot, describes the files, and plans. A table that a rewrite would damage is left
//! alone, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lake::{ReadError, ScanFile, TableHandle, TableSnapshot, Value};
use tables::def::{ColumnType, Encoding, FIELD_ID_KEY, Partition, TableDef};

use crate::plan::{FileFacts, Plan, TableFacts, plan};
use crate::policy::Policy;
use crate::task::{Input, Rewrite};

/// How a table was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Survey {
    /// What is to be done, and how its files are laid out.
    Planned(Plan),
    /// It is not to be rewritten.
    LeftAlone(LeftAlone),
    /// Nothing was committed to it yet.
    Empty,
}

/// Why a table is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftAlone {
    #[error(
        "it has row-level deletes of another program, which a rewrite would not apply: compact it with the program that wrote them"
    )]
    RowLevelDeletes,
    #[error("it has columns that this version does not know and would drop: {}; upgrade, or drop the columns", .0.join(", "))]
    UnknownColumns(Vec<String>),
    #[error(
        "it lists the file {0} more than once, so that its rows are read as often: take the entries away with the program that          added them"
    )]
    ListedTwice(String),
}

/// Looks at a table.
///
/// # Errors
/// The table is gone, or the catalog or the store cannot be read.
pub async fn survey(table: &TableHandle, policy: &Policy, now_ms: i64) -> Result<Survey, ReadError> {
    let snapshot = table.reader().snapshot().await?;
    let Some(base) = snapshot.snapshot_id() else { return Ok(Survey::Empty) };
    // Before the files: a table that is left alone costs no manifests.
    let unknown = unknown_columns(table.def(), &snapshot);
    if !unknown.is_empty() {
        return Ok(Survey::LeftAlone(LeftAlone::UnknownColumns(unknown)));
    }
    let files = match snapshot.plan(&[]).await {
        Ok(files) => files,
        Err(ReadError::Deletes { .. }) => return Ok(Survey::LeftAlone(LeftAlone::RowLevelDeletes)),
        Err(error) => return Err(error),
    };
    // A replacement would be refused, and the rewrite begun again and again.
    if let Some(file) = listed_twice(&files) {
        return Ok(Survey::LeftAlone(LeftAlone::ListedTwice(file)));
    }
    let facts = TableFacts {
        table: table.def().name,
        base,
        is_by_day: table.def().partition != Partition::Unpartitioned,
        files: facts(table, &snapshot, &files),
    };
    Ok(Survey::Planned(plan(&facts, policy, now_ms)))
}

/// Whether all inputs of a rewrite are still in the table: another process may have done it meanwhile.
///
/// # Errors
/// As [`survey`].
pub async fn is_current(table: &TableHandle, rewrite: &Rewrite) -> Result<bool, ReadError> {
    let files = table.reader().snapshot().await?.plan(&[]).await?;
    // By name: data files are immutable, and a name is never used twice.
    let live: BTreeSet<&str> = files.iter().map(|file| file.location.as_str()).collect();
    Ok(rewrite.inputs.iter().all(|input| live.contains(input.location.as_str())))
}

fn listed_twice(files: &[Arc<ScanFile>]) -> Option<String> {
    let mut known = BTreeSet::new();
    let twice = files.iter().find(|file| !known.insert(file.location.as_str()));
    twice.map(|file| file.location.clone())
}

/// Columns of the table that the definition does not have: a rewrite would leave out their values.
fn unknown_columns(def: &TableDef, snapshot: &TableSnapshot) -> Vec<String> {
    let known: BTreeSet<String> = def.columns.iter().map(|column| column.id.to_string()).collect();
    let fields = snapshot.schema().fields().iter();
    let unknown = fields.filter(|field| field.metadata().get(FIELD_ID_KEY).is_none_or(|id| !known.contains(id)));
    unknown.map(|field| field.name().clone()).collect()
}

fn facts(table: &TableHandle, snapshot: &TableSnapshot, files: &[Arc<ScanFile>]) -> Vec<FileFacts> {
    // A rewrite brings no rows: it does not keep a day open.
    let brought = snapshot.history().into_iter().filter(|past| past.operation != "replace");
    let added: BTreeMap<i64, i64> = brought.map(|past| (past.snapshot_id, past.committed_ms)).collect();
    let time = time_column(table.def());
    let order = table.sort_order_id();
    let facts = files.iter().map(|file| FileFacts {
        input: Input {
            location: file.location.clone(),
            size_bytes: file.size_bytes,
            rows: file.record_count,
            // Where the catalog has no such order, no file can say that it is in it: the merge finds out.
            is_sorted: order.is_none() || file.sort_order_id == order,
            row_group_bytes: largest_row_group(file),
            row_bytes: row_bytes(table.def(), file),
        },
        day: file.day,
        first_us: time.and_then(|id| first(file, id)),
        added_ms: added.get(&file.snapshot_id).copied(),
    });
    facts.collect()
}

/// The field id of the column by which files follow one another in time.
fn time_column(def: &TableDef) -> Option<i32> {
    let mut sorted = def.sort.iter().filter_map(|name| def.column(name));
    let column = match def.partition {
        Partition::Day(name) => def.column(name),
        Partition::Unpartitioned => sorted.find(|column| column.kind == ColumnType::Timestamptz),
    };
    column.map(|column| column.id)
}

fn first(file: &ScanFile, id: i32) -> Option<i64> {
    match file.column(id)?.lower {
        Some(Value::Timestamptz(micros)) => Some(micros),
        _ => None,
    }
}

/// Bytes of the largest row group of a file; of the whole file when the manifests do not say where they begin.
fn largest_row_group(file: &ScanFile) -> u64 {
    // A row group ends where the next one begins, the last one at the footer: a little too large is on the safe side.
    let starts: Vec<u64> = file.split_offsets.iter().filter_map(|at| u64::try_from(*at).ok()).collect();
    let ends = starts.iter().skip(1).copied().chain([file.size_bytes]);
    starts.iter().zip(ends).map(|(start, end)| end.saturating_sub(*start)).max().unwrap_or(file.size_bytes)
}

/// Text and opaque values take about so many times their compressed size.
const EXPANSION: u64 = 6;

/// Bytes of a decoded row, from the types of the columns and the compressed size of those without a fixed width.
fn row_bytes(def: &TableDef, file: &ScanFile) -> u64 {
    let rows = file.record_count.max(1);
    let widths = def.columns.iter().map(|column| match column.kind {
        ColumnType::Boolean => 1,
        ColumnType::Int | ColumnType::Float => 4,
        ColumnType::Long | ColumnType::Double | ColumnType::Timestamptz => 8,
        ColumnType::String if column.dictionary => 4,
        ColumnType::String | ColumnType::Binary => {
            let stored = file.column(column.id).and_then(|stats| stats.size_bytes).unwrap_or(0) / rows;
            // Plain columns are not compressed.
            let expanded = if column.encoding == Encoding::Plain { stored } else { stored.saturating_mul(EXPANSION) };
            expanded.max(32)
        }
    });
    widths.sum()
}
