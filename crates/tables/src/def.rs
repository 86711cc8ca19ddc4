//! The definition of a table: its name, columns with stable ids, partition, sort order and encodings. The crate `lake`
//! makes an Iceberg schema of a [`TableDef`].

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;

/// The Arrow metadata key under which Parquet and Iceberg carry a column's field id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// Column types a table may use: those of Iceberg v2's primitive types that Causeway needs, each with one Arrow type.
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
    /// The Arrow type rows are made in. Strings are dictionaries in memory where they repeat (see
    /// [`Column::dictionary`]).
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
    /// The Iceberg field id, from 1.
    pub id: i32,
    /// Name in SQL, in Parquet and in the Arrow schema.
    pub name: &'static str,
    /// Type of the values.
    pub kind: ColumnType,
    /// Whether every row has a value: Iceberg's `required`.
    pub required: bool,
    /// How Parquet lays the values out.
    pub encoding: Encoding,
    /// Rows carry this string column as an Arrow dictionary (`Int32` keys); the table still sees a plain string.
    pub dictionary: bool,
    /// Description, which becomes the `doc` of the Iceberg field.
    pub doc: &'static str,
}

impl Column {
    /// The same column, whose values rise or stay near each other.
    pub const fn delta(self) -> Self {
        Self { encoding: Encoding::Delta, ..self }
    }

    /// The same column, whose values are opaque bytes.
    pub const fn plain(self) -> Self {
        Self { encoding: Encoding::Plain, ..self }
    }

    /// The same column, whose values are words that repeat: a dictionary in memory.
    pub const fn word(self) -> Self {
        Self { dictionary: true, ..self }
    }

    /// The same column, in which a row may have no value.
    pub const fn optional(self) -> Self {
        Self { required: false, ..self }
    }
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
    /// `bronze`, `silver`, `gold` or `ops`.
    pub namespace: &'static str,
    /// Name within the namespace.
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
    /// Its name in the catalog.
    pub name: TableName,
    /// Description, in a few words.
    pub doc: &'static str,
    /// In the order of the schema.
    pub columns: Vec<Column>,
    /// Which rows share a data file.
    pub partition: Partition,
    /// Names of the columns rows of one file are sorted by, ascending, nulls first.
    pub sort: &'static [&'static str],
    /// Whether its old files may move to cheaper storage classes, from which they come back within hours. Only where
    /// rows are asked for by their time: what rows of other tables refer to is read at any time.
    pub tiers: bool,
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
            // By id and not by name: Iceberg resolves columns by field id, so that a renamed column keeps its data.
            Field::new(c.name, kind, !c.required)
                .with_metadata(HashMap::from([(FIELD_ID_KEY.to_owned(), c.id.to_string())]))
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A required, dictionary-encoded column; [`Column::delta`] and the like change that.
pub const fn column(id: i32, name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { id, name, kind, required: true, encoding: Encoding::Dictionary, dictionary: false, doc }
}
