//! Rows to data files: split by day, sorted, encoded to Parquet column by column as the table's definition says, and
//! uploaded under unique names. Sorted inputs that do not fit into memory are merged as a stream. Nothing here is
//! visible to readers until it is committed.

mod fold;
mod merge;
mod order;
mod parquet;
mod partition;
mod sink;
mod stream;

pub use fold::FoldRows;
pub use sink::EncodedFile;
pub(crate) use sink::FileWriter;
pub use stream::{MergeError, MergeOptions, SortedRows};

use tables::def::{TableDef, TableName};

use objects::{Damage, StoreError};

/// The position of a column among those of a table.
fn column_position(def: &TableDef, name: &str) -> Option<usize> {
    def.columns.iter().position(|column| column.name == name)
}

/// Why rows did not become data files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("rows for table {table} have no column {column}")]
    MissingColumn { table: TableName, column: &'static str },
    #[error("rows for table {table} do not fit its schema")]
    Rows { table: TableName, source: arrow::error::ArrowError },
    #[error("rows for table {table} have no time in column {column}, by which it is partitioned")]
    NoDay { table: TableName, column: &'static str },
    #[error("cannot encode rows for table {table}")]
    Encode { table: TableName, source: ::parquet::errors::ParquetError },
    #[error("cannot put checksums into a data file of table {table}")]
    Seal { table: TableName, source: Damage },
    #[error("cannot describe a data file of table {table}: {problem}")]
    Describe { table: TableName, problem: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}
