//! The SQL names of Arrow types, as Trino names them. Every surface shows these names.

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// The length of Trino's `varchar` without bound: the greatest 32-bit integer.
const UNBOUNDED: i64 = 2_147_483_647;

/// A type of a column: a name, and the arguments in parentheses after it.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlType {
    /// As written in SQL: `timestamp(6) with time zone`.
    pub text: String,
    /// The name alone: `timestamp with time zone`.
    pub raw: &'static str,
    /// The arguments: digits, lengths, types.
    pub arguments: Vec<TypeArgument>,
}

/// An argument of a type.
#[derive(Debug, Clone, PartialEq)]
pub enum TypeArgument {
    /// A length, or a number of digits.
    Number(i64),
    /// The type of elements, keys or values.
    Type(SqlType),
    /// A field of a row.
    Field { name: String, kind: SqlType },
}

impl SqlType {
    fn plain(name: &'static str) -> Self {
        Self { text: name.to_owned(), raw: name, arguments: Vec::new() }
    }

    fn varchar() -> Self {
        Self { text: "varchar".to_owned(), raw: "varchar", arguments: vec![TypeArgument::Number(UNBOUNDED)] }
    }
}

/// The SQL name of an Arrow type.
pub fn sql_type_name(data_type: &DataType) -> String {
    sql_type(data_type).text
}

/// The SQL type values of an Arrow type are shown as. Types without an SQL name are shown as text.
pub fn sql_type(data_type: &DataType) -> SqlType {
    match data_type {
        DataType::Null => SqlType::plain("unknown"),
        DataType::Boolean => SqlType::plain("boolean"),
        DataType::Int8 => SqlType::plain("tinyint"),
        // Trino has no unsigned integers: each gets the next wider signed type.
        DataType::Int16 | DataType::UInt8 => SqlType::plain("smallint"),
        DataType::Int32 | DataType::UInt16 => SqlType::plain("integer"),
        // UInt64 has no wider type: `values::check_writable` refuses an answer with a value beyond bigint.
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => SqlType::plain("bigint"),
        DataType::Float16 | DataType::Float32 => SqlType::plain("real"),
        DataType::Float64 => SqlType::plain("double"),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => SqlType {
            text: format!("decimal({precision}, {scale})"),
            raw: "decimal",
            arguments: vec![TypeArgument::Number((*precision).into()), TypeArgument::Number((*scale).into())],
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

/// The SQL name of a type that Arrow has printed, from its name and the text in parentheses after it; `None` when it is
/// not a type.
pub fn sql_type_named(name: &str, parameters: Option<&str>) -> Option<String> {
    Some(match (name, parameters) {
        ("Utf8" | "LargeUtf8" | "Utf8View", None) => "varchar".to_owned(),
        ("Binary" | "LargeBinary" | "BinaryView", None) => "varbinary".to_owned(),
        ("Boolean", None) => "boolean".to_owned(),
        ("Int8", None) => "tinyint".to_owned(),
        ("Int16" | "UInt8", None) => "smallint".to_owned(),
        ("Int32" | "UInt16", None) => "integer".to_owned(),
        ("Int64" | "UInt32" | "UInt64", None) => "bigint".to_owned(),
        ("Float16" | "Float32", None) => "real".to_owned(),
        ("Float64", None) => "double".to_owned(),
        ("Date32" | "Date64", None) => "date".to_owned(),
        // A literal of such a type: `Int64(5)`.
        (
            "Utf8" | "LargeUtf8" | "Utf8View" | "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32"
            | "UInt64" | "Float32" | "Float64" | "Boolean",
            Some(value),
        ) => value.replace('"', "'"),
        // Arrow prints the zone of a time in quotes.
        ("Timestamp", Some(parts)) if parts.contains('"') => "timestamp with time zone".to_owned(),
        ("Timestamp", Some(_)) => "timestamp".to_owned(),
        ("Time32" | "Time64", Some(_)) => "time".to_owned(),
        ("Interval" | "Duration", Some(_)) => "interval".to_owned(),
        ("Decimal32" | "Decimal64" | "Decimal128" | "Decimal256", Some(parts)) => format!("decimal({parts})"),
        ("List" | "LargeList" | "ListView" | "LargeListView", Some(element)) => {
            format!("array({})", inner_type(element))
        }
        // Arrow prints the number of elements before the type: `3 x Int32`.
        ("FixedSizeList", Some(element)) => {
            format!("array({})", inner_type(element.split_once(" x ").map_or(element, |(_, element)| element)))
        }
        ("Struct", Some(_)) => "row".to_owned(),
        ("Map", Some(_)) => "map".to_owned(),
        // The type of the keys, then that of the values. Dictionary encoding is invisible in SQL.
        ("Dictionary", Some(parts)) => inner_type(parts.split_once(", ").map_or(parts, |(_, value)| value)),
        _ => return None,
    })
}

/// The SQL name of a type inside another one that Arrow has printed; its text unchanged when it is not a type.
fn inner_type(text: &str) -> String {
    // Arrow prints `non-null` before the type of elements that are never NULL.
    let text = text.trim_start_matches("non-null ").trim();
    let (name, rest) = text.split_at(text.find('(').unwrap_or(text.len()));
    let parameters = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    sql_type_named(name, parameters).unwrap_or_else(|| text.to_owned())
}

/// Number of decimal digits of a second in a time unit.
pub fn digits(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn with_precision(raw: &'static str, unit: &TimeUnit) -> SqlType {
    let digits = digits(unit);
    SqlType { text: format!("{raw}({digits})"), raw, arguments: vec![TypeArgument::Number(digits.into())] }
}

fn array_of(field: &Field) -> SqlType {
    let inner = sql_type(field.data_type());
    SqlType { text: format!("array({})", inner.text), raw: "array", arguments: vec![TypeArgument::Type(inner)] }
}

fn row_of(fields: &Fields) -> SqlType {
    let mut texts = Vec::new();
    let mut arguments = Vec::new();
    for field in fields {
        let kind = sql_type(field.data_type());
        texts.push(format!("{} {}", field.name(), kind.text));
        arguments.push(TypeArgument::Field { name: field.name().clone(), kind });
    }
    SqlType { text: format!("row({})", texts.join(", ")), raw: "row", arguments }
}

fn map_of(entries: &Field) -> SqlType {
    // The entries of an Arrow map are structs of a key and a value.
    let DataType::Struct(fields) = entries.data_type() else {
        return SqlType::varchar();
    };
    let inner: Vec<SqlType> = fields.iter().map(|f| sql_type(f.data_type())).collect();
    let text = inner.iter().map(|kind| kind.text.as_str()).collect::<Vec<_>>().join(", ");
    SqlType { text: format!("map({text})"), raw: "map", arguments: inner.into_iter().map(TypeArgument::Type).collect() }
}
