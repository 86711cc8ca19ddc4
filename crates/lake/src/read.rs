//! Reading a table: one pinned snapshot, the files that can hold the answer, and their rows.
//!
//! [`TableReader::snapshot`] costs one catalog lookup while nothing was committed. A [`TableSnapshot`] never changes;
//! [`TableSnapshot::plan`] prunes by manifest, partition and file bounds. The query engine builds its scans from
//! [`ScanFile`]s; [`TableSnapshot::scan_batches`] is the plain way for audit and recovery.

mod batches;
mod manifest_cache;
mod pruning;
mod reachable;
mod snapshot;
mod value;

use std::sync::Arc;

pub(crate) use batches::{FileAt, read_file};
pub use pruning::ColumnRange;
pub use reachable::{Hashed, Reached};
pub use snapshot::{PastSnapshot, TableReader, TableSnapshot, VerifiedFile};
pub use value::Value;

pub(crate) use manifest_cache::ManifestCache;

use crate::catalog::HeadError;
use crate::table::TableIdent;
use crate::table::manifests::ManifestError;
use objects::StoreError;

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("table {table} has no snapshot {what}")]
    NoSnapshot { table: TableIdent, what: String },
    #[error("table {table} has no branch or tag {name:?}; it has {names:?}")]
    NoReference { table: TableIdent, name: String, names: Vec<String> },
    #[error(
        "table {table} no longer has its state of unix time {asked_ms} ms: the oldest it keeps is of {oldest_ms} ms"
    )]
    Expired { table: TableIdent, asked_ms: i64, oldest_ms: i64 },
    #[error(
        "table {table} has rows but not all of its causeway.offset properties: another program removed them; restore them \
         before going on"
    )]
    OffsetsMissing { table: TableIdent },
    #[error("column {column} of table {table} has the Iceberg type {kind}, which is not read")]
    ColumnType { table: TableIdent, column: String, kind: String },
    #[error("table {table} has no column {column}")]
    NoColumn { table: TableIdent, column: String },
    #[error(
        "table {table} has row-level deletes, which are not applied here: compact it with the program that wrote them, \
         Spark's rewrite_data_files for instance"
    )]
    Deletes { table: TableIdent },
    #[error("data file {location} is {format}, not Parquet")]
    FileFormat { location: String, format: String },
    #[error("manifest {location} is damaged")]
    Manifest { location: String, source: iceberg::Error },
    #[error("statistics file {location} is damaged")]
    Attachment { location: String, source: iceberg::Error },
    #[error("statistics file {location} does not hold what the table lists of {log}")]
    NoAttachment { location: String, log: String },
    #[error("data file {location} is damaged: {problem}")]
    CorruptFile { location: String, problem: String },
}

impl From<ManifestError> for ReadError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Store(error) => Self::Store(error),
            ManifestError::Damaged { location, source } => Self::Manifest { location, source },
        }
    }
}

impl ReadError {
    /// The object whose content is not what was written to it, and what is wrong with it.
    pub fn damage(&self) -> Option<(&str, String)> {
        match self {
            // Damage comes from decoders (Parquet, Avro, JSON) and from checksums.
            Self::CorruptFile { location, problem } => Some((location, problem.clone())),
            Self::Manifest { location, source } => Some((location, source.to_string())),
            Self::Store(StoreError::Damaged { location, problem })
            | Self::Head(HeadError::Store(StoreError::Damaged { location, problem })) => {
                Some((location, problem.to_string()))
            }
            Self::Head(HeadError::Damaged { location, source }) => Some((location, source.to_string())),
            Self::Head(HeadError::Compressed { location, source }) => Some((location, source.to_string())),
            _ => None,
        }
    }

    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Head(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// One Parquet file of a snapshot and what the manifests record of it. Everything is exact but the bounds of strings,
/// binaries and floats, see [`ColumnStats::exact`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScanFile {
    /// Full location, `file://…` or `s3://…`.
    pub location: String,
    /// The path in [`objects::Store::objects`], relative to the warehouse.
    pub path: object_store::path::Path,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Rows of the file.
    pub record_count: u64,
    /// Days since 1970-01-01 of the day partition; `None` when the table is not partitioned by day.
    pub day: Option<i32>,
    /// Statistics by field id, in ascending order of id.
    pub columns: Vec<(i32, ColumnStats)>,
    /// Where row groups start, bytes from the file's start.
    pub split_offsets: Vec<i64>,
    /// The table's sort order the rows are in; `None` when unknown.
    pub sort_order_id: Option<i32>,
    /// The data sequence number: files with a higher one are newer.
    pub sequence_number: i64,
    /// The snapshot that added the file.
    pub snapshot_id: i64,
}

impl ScanFile {
    pub(crate) fn at(&self) -> FileAt {
        FileAt { location: self.location.clone(), size_bytes: self.size_bytes }
    }

    /// The statistics of one column, by field id.
    pub fn column(&self, id: i32) -> Option<&ColumnStats> {
        // Sorted by id when the manifest was read (`manifest_cache::column_stats`).
        self.columns.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|i| self.columns.get(i)).map(|(_, s)| s)
    }
}

/// What the manifests record of one column of one file. What is absent is unknown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ColumnStats {
    /// No value but NaN is below.
    pub lower: Option<Value>,
    /// No value but NaN is above.
    pub upper: Option<Value>,
    /// The bounds are the smallest and largest values themselves (strings may be cut, NaN is not counted).
    pub exact: bool,
    /// Rows without a value.
    pub null_count: Option<u64>,
    /// Rows, nulls included.
    pub value_count: Option<u64>,
    /// Compressed size in the file.
    pub size_bytes: Option<u64>,
}

/// The files of one manifest, shared by all plans that use it.
pub(crate) type ManifestFiles = Arc<[Arc<ScanFile>]>;
