//! SQL names of Arrow types, in Trino's words: the one vocabulary of column types on every surface.

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde_json::{Value, json};

/// The length Trino gives a `varchar` without bound.
const UNBOUNDED: i64 = 2_147_483_647;

/// A type as Trino's protocol describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SqlType {
    /// As written in SQL: `timestamp(6) with time zone`.
    pub text: String,
    raw: &'static str,
    arguments: Vec<Value>,
}

impl SqlType {
    fn plain(name: &'static str) -> Self {
        Self { text: name.to_owned(), raw: name, arguments: Vec::new() }
    }

    fn varchar() -> Self {
        Self { text: "varchar".to_owned(), raw: "varchar", arguments: vec![long(UNBOUNDED)] }
    }

    /// The `typeSignature` of the Trino protocol.
    pub(crate) fn signature(&self) -> Value {
        json!({ "rawType": self.raw, "arguments": self.arguments })
    }
}

fn long(value: i64) -> Value {
    json!({ "kind": "LONG", "value": value })
}

/// The SQL type values of an Arrow type are shown as. Types without an SQL name are shown as text.
pub(crate) fn sql_type(data_type: &DataType) -> SqlType {
    match data_type {
        DataType::Null => SqlType::plain("unknown"),
        DataType::Boolean => SqlType::plain("boolean"),
        DataType::Int8 => SqlType::plain("tinyint"),
        DataType::Int16 | DataType::UInt8 => SqlType::plain("smallint"),
        DataType::Int32 | DataType::UInt16 => SqlType::plain("integer"),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => SqlType::plain("bigint"),
        DataType::Float16 | DataType::Float32 => SqlType::plain("real"),
        DataType::Float64 => SqlType::plain("double"),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => SqlType {
            text: format!("decimal({precision}, {scale})"),
            raw: "decimal",
            arguments: vec![long((*precision).into()), long((*scale).into())],
        },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            SqlType::plain("varbinary")
        }
        DataType::Date32 | DataType::Date64 => SqlType::plain("date"),
        DataType::Time32(unit) | DataType::Time64(unit) => with_precision("time", unit),
        DataType::Timestamp(unit, None) => with_precision("timestamp", unit),
        DataType::Timestamp(unit, Some(_)) => {
            let mut zoned = with_precision("timestamp", unit);
            zoned.text += " with time zone";
            zoned.raw = "timestamp with time zone";
            zoned
        }
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => array_of(field),
        DataType::Struct(fields) => row_of(fields),
        DataType::Map(entries, _) => map_of(entries),
        DataType::Dictionary(_, value) => sql_type(value),
        _ => SqlType::varchar(),
    }
}

/// Digits after the second of a time unit.
pub(crate) fn digits(unit: &TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn with_precision(raw: &'static str, unit: &TimeUnit) -> SqlType {
    let digits = digits(unit);
    SqlType { text: format!("{raw}({digits})"), raw, arguments: vec![json!({ "kind": "LONG", "value": digits })] }
}

fn nested(inner: &SqlType) -> Value {
    json!({ "kind": "TYPE", "value": inner.signature() })
}

fn array_of(field: &Field) -> SqlType {
    let inner = sql_type(field.data_type());
    SqlType { text: format!("array({})", inner.text), raw: "array", arguments: vec![nested(&inner)] }
}

fn row_of(fields: &Fields) -> SqlType {
    let inner: Vec<(&String, SqlType)> = fields.iter().map(|f| (f.name(), sql_type(f.data_type()))).collect();
    let text = inner.iter().map(|(name, kind)| format!("{name} {}", kind.text)).collect::<Vec<_>>().join(", ");
    let named = |(name, kind): &(&String, SqlType)| {
        let value = json!({ "fieldName": { "name": name }, "typeSignature": kind.signature() });
        json!({ "kind": "NAMED_TYPE", "value": value })
    };
    SqlType { text: format!("row({text})"), raw: "row", arguments: inner.iter().map(named).collect() }
}

fn map_of(entries: &Field) -> SqlType {
    let DataType::Struct(fields) = entries.data_type() else {
        return SqlType::varchar();
    };
    let inner: Vec<SqlType> = fields.iter().map(|f| sql_type(f.data_type())).collect();
    let text = inner.iter().map(|kind| kind.text.as_str()).collect::<Vec<_>>().join(", ");
    SqlType { text: format!("map({text})"), raw: "map", arguments: inner.iter().map(nested).collect() }
}
