//! What a table is: its name, columns with stable ids, partition, sort order and encodings. Turning a [`TableDef`] into an
//! Iceberg schema is `lake`'s job; here is only what the table means.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;

/// The Arrow metadata key under which Parquet and Iceberg carry a column's field id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// Column types a table may use: the Iceberg v2 primitives we need, each with one Arrow type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    String,
    Binary,
    /// `timestamptz`, microseconds, UTC.
    Timestamptz,
}

impl ColumnType {
    /// The Arrow type rows are made in. Strings are dictionaries in memory where they repeat (see [`Column::dictionary`]).
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        }
    }
}

/// How a column is laid out in Parquet. Measured by `causeway-loadtest bench ingest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Dictionary pages: values that repeat.
    Dictionary,
    /// `DELTA_BINARY_PACKED`: integers that rise or stay near each other.
    Delta,
    /// `DELTA_BYTE_ARRAY`: strings that share prefixes with their neighbour.
    DeltaBytes,
    /// Plain pages: opaque bytes, already compressed.
    Plain,
}

/// One column of a table. Ids are never reused and never renumbered (Iceberg spec, "Field IDs").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub id: i32,
    pub name: &'static str,
    pub kind: ColumnType,
    pub required: bool,
    pub encoding: Encoding,
    /// Rows carry this string column as an Arrow dictionary (`Int32` keys); the table still sees a plain string.
    pub dictionary: bool,
    pub doc: &'static str,
}

/// How a table is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    Unpartitioned,
    /// Iceberg `day` transform of a `timestamptz` column.
    Day(&'static str),
}

/// `namespace.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    pub namespace: &'static str,
    pub name: &'static str,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// The definition of one table.
#[derive(Debug, Clone)]
pub struct TableDef {
    pub name: TableName,
    pub doc: &'static str,
    pub columns: Vec<Column>,
    pub partition: Partition,
    /// Names of the columns rows of one file are sorted by, ascending, nulls first.
    pub sort: &'static [&'static str],
}

impl TableDef {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The Arrow schema rows of this table are made in. Each field carries its id under [`FIELD_ID_KEY`].
    pub fn arrow_schema(&self) -> Arc<Schema> {
        let fields = self.columns.iter().map(|c| {
            let kind = if c.dictionary {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(c.kind.arrow()))
            } else {
                c.kind.arrow()
            };
            Field::new(c.name, kind, !c.required)
                .with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), c.id.to_string())]))
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A required, dictionary-encoded column; change what differs with struct update syntax.
pub const fn column(id: i32, name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { id, name, kind, required: true, encoding: Encoding::Dictionary, dictionary: false, doc }
}
