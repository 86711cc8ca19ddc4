//! Cells as JSON. 64-bit integers are written with all their digits; a reader that keeps numbers as doubles rounds
//! them.

use std::io::Write;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Utc};

use super::unique_names;
use query_engine::QueryError;
use query_engine::types::digits;

/// Whose conventions cells follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Ours: RFC 3339 times.
    Native,
    /// The Trino client protocol: `2024-01-02 03:04:05.123456 UTC`.
    Trino,
}

/// Writes one cell of a column.
type Cell = Box<dyn Fn(usize, &mut Vec<u8>) + Send + Sync>;

/// Writes rows of a batch as JSON arrays.
pub(crate) struct Rows {
    cells: Vec<Cell>,
    len: usize,
}

impl Rows {
    pub(crate) fn new(batch: &RecordBatch, style: Style) -> Result<Self, ArrowError> {
        let cells = batch.columns().iter().map(|column| cell(column, style)).collect::<Result<_, _>>()?;
        Ok(Self { cells, len: batch.num_rows() })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// `[1,"a",null]`
    pub(crate) fn write_array(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, cell) in self.cells.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            cell(row, out);
        }
        out.push(b']');
    }

    /// `{"name":1,…}`; `names` are JSON strings with their colon.
    pub(crate) fn write_object(&self, row: usize, names: &[Vec<u8>], out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, cell)) in names.iter().zip(&self.cells).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            cell(row, out);
        }
        out.push(b'}');
    }
}

/// The error of an answer whose rows cannot be written.
pub(crate) fn cannot_encode(error: ArrowError) -> QueryError {
    QueryError::Internal { message: format!("rows cannot be written as JSON: {error}") }
}

/// A text as a JSON string.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    // A `Vec` never fails to take bytes and a `str` never fails to be JSON.
    let _ = serde_json::to_writer(out, text);
}

fn write(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // A `Vec` never fails to take bytes.
    let _ = out.write_fmt(arguments);
}

fn cell(array: &ArrayRef, style: Style) -> Result<Cell, ArrowError> {
    let inner = value_cell(array, style)?;
    // Arrow's null type has no validity bitmap: its `null_count` is 0 although each value is null.
    if array.data_type() == &DataType::Null {
        return Ok(Box::new(|_, out| out.extend_from_slice(b"null")));
    }
    if array.null_count() == 0 {
        return Ok(inner);
    }
    let array = Arc::clone(array);
    Ok(Box::new(move |row, out| if array.is_null(row) { out.extend_from_slice(b"null") } else { inner(row, out) }))
}

fn value_cell(array: &ArrayRef, style: Style) -> Result<Cell, ArrowError> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean().clone();
            Box::new(move |row, out| write(out, format_args!("{}", values.value(row))))
        }
        DataType::Int8 => integer::<Int8Type>(array),
        DataType::Int16 => integer::<Int16Type>(array),
        DataType::Int32 => integer::<Int32Type>(array),
        DataType::Int64 => integer::<Int64Type>(array),
        DataType::UInt8 => integer::<UInt8Type>(array),
        DataType::UInt16 => integer::<UInt16Type>(array),
        DataType::UInt32 => integer::<UInt32Type>(array),
        DataType::UInt64 => integer::<UInt64Type>(array),
        // Exact: a single holds every half.
        DataType::Float16 => return value_cell(&cast(array, &DataType::Float32)?, style),
        DataType::Float32 => {
            // Printed as `f32`: widened to `f64`, 0.1 would become 0.10000000149011612.
            let values = array.as_primitive::<Float32Type>().clone();
            Box::new(move |row, out| write_float(f64::from(values.value(row)), values.value(row), out))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().clone();
            Box::new(move |row, out| write_float(values.value(row), values.value(row), out))
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>().clone();
            Box::new(move |row, out| write_text(values.value(row), out))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>().clone();
            Box::new(move |row, out| write_text(values.value(row), out))
        }
        DataType::Utf8View => {
            let values = array.as_string_view().clone();
            Box::new(move |row, out| write_text(values.value(row), out))
        }
        // As text, in Trino's protocol too: a number would be rounded to a double by most readers (ADR 36).
        DataType::Decimal128(..) => {
            let values = array.as_primitive::<Decimal128Type>().clone();
            Box::new(move |row, out| write_text(&values.value_as_string(row), out))
        }
        DataType::Decimal256(..) => {
            let values = array.as_primitive::<Decimal256Type>().clone();
            Box::new(move |row, out| write_text(&values.value_as_string(row), out))
        }
        DataType::Timestamp(unit, zone) => timestamp(array, unit, zone.as_deref(), style)?,
        DataType::Dictionary(_, value) => return cell(&cast(array, value)?, style),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            return binary(array);
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => return list(array, style),
        DataType::Struct(_) => return structure(array, style),
        DataType::Map(..) => return map(array, style),
        _ => return displayed(array),
    })
}

fn integer<T>(array: &ArrayRef) -> Cell
where
    T: ArrowPrimitiveType,
    T::Native: std::fmt::Display,
{
    let values = array.as_primitive::<T>().clone();
    Box::new(move |row, out| write(out, format_args!("{}", values.value(row))))
}

/// JSON has no NaN and no infinities; Trino writes them as these texts, and its clients read them back.
fn write_float(class: f64, shortest: impl serde::Serialize, out: &mut Vec<u8>) {
    if class.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if class.is_infinite() {
        out.extend_from_slice(if class > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        // Cannot fail: a finite number is always JSON. `serde_json` prints a point or an exponent, which JDBC clients
        // require of a double.
        let _ = serde_json::to_writer(out, &shortest);
    }
}

fn timestamp(array: &ArrayRef, unit: &TimeUnit, zone: Option<&str>, style: Style) -> Result<Cell, ArrowError> {
    let zone: Option<(Tz, String)> = match zone {
        Some(name) => Some((name.parse()?, name.to_owned())),
        None => None,
    };
    Ok(match unit {
        TimeUnit::Second => instants::<TimestampSecondType>(array, zone, style, 1),
        TimeUnit::Millisecond => instants::<TimestampMillisecondType>(array, zone, style, 1_000),
        TimeUnit::Microsecond => instants::<TimestampMicrosecondType>(array, zone, style, 1_000_000),
        TimeUnit::Nanosecond => instants::<TimestampNanosecondType>(array, zone, style, 1_000_000_000),
    })
}

fn instants<T: ArrowTimestampType>(array: &ArrayRef, zone: Option<(Tz, String)>, style: Style, per_s: i64) -> Cell {
    let values = array.as_primitive::<T>().clone();
    let digits = digits(&T::UNIT);
    Box::new(move |row, out| {
        let value = values.value(row);
        // Floor division: before 1970 the fraction counts up as well. It stays below 10^9, so the cast cannot fail.
        let nanos = u32::try_from(value.rem_euclid(per_s) * (1_000_000_000 / per_s)).unwrap_or(0);
        match DateTime::from_timestamp(value.div_euclid(per_s), nanos) {
            Some(instant) => write_text(&instant_text(instant, zone.as_ref(), style, digits), out),
            // Beyond the years that the calendar of `chrono` has.
            None => out.extend_from_slice(b"null"),
        }
    })
}

fn instant_text(instant: DateTime<Utc>, zone: Option<&(Tz, String)>, style: Style, digits: u8) -> String {
    let fraction = match digits {
        0 => "",
        3 => "%.3f",
        6 => "%.6f",
        _ => "%.9f",
    };
    let separator = if style == Style::Native { 'T' } else { ' ' };
    let pattern = format!("%Y-%m-%d{separator}%H:%M:%S{fraction}");
    let Some((zone, name)) = zone else {
        return instant.format(&pattern).to_string();
    };
    let utc = matches!(name.as_str(), "+00:00" | "UTC" | "Z" | "Etc/UTC");
    match style {
        // RFC 3339 writes UTC as `Z`; Trino's clients read the name of a zone behind a space.
        Style::Native if utc => format!("{}Z", instant.format(&pattern)),
        Style::Native => instant.with_timezone(zone).format(&format!("{pattern}%:z")).to_string(),
        Style::Trino if utc => format!("{} UTC", instant.format(&pattern)),
        Style::Trino => format!("{} {name}", instant.with_timezone(zone).format(&pattern)),
    }
}

fn binary(array: &ArrayRef) -> Result<Cell, ArrowError> {
    let array = cast(array, &DataType::LargeBinary)?;
    let values = array.as_binary::<i64>().clone();
    Ok(Box::new(move |row, out| write_text(&base64(values.value(row)), out)))
}

/// Standard base64 with padding (RFC 4648 section 4), as Trino's `varbinary` has it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        // Missing bytes are zero bits. A chunk of n bytes has n + 1 symbols; the rest is padding.
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let symbol = ALPHABET[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

fn list(array: &ArrayRef, style: Style) -> Result<Cell, ArrowError> {
    let (DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)) = array.data_type()
    else {
        return displayed(array);
    };
    // One code path for three layouts: the cast changes offsets and leaves the values.
    let array = cast(array, &DataType::LargeList(Arc::clone(field)))?;
    let values = array.as_list::<i64>().clone();
    let inner = cell(values.values(), style)?;
    Ok(Box::new(move |row, out| {
        // One offset more than rows, into the values of the whole array: those of a slice begin further on.
        let offsets = values.value_offsets();
        out.push(b'[');
        for (nth, index) in (offsets[row]..offsets[row + 1]).enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            inner(index.as_usize(), out);
        }
        out.push(b']');
    }))
}

/// Trino writes a row as an array of its fields; ours keeps their names.
fn structure(array: &ArrayRef, style: Style) -> Result<Cell, ArrowError> {
    let values = array.as_struct();
    let cells = values.columns().iter().map(|column| cell(column, style)).collect::<Result<_, _>>()?;
    let rows = Rows { cells, len: values.len() };
    let names = unique_names(values.column_names().into_iter());
    let names: Vec<Vec<u8>> = names.iter().map(|name| object_key(name)).collect();
    Ok(match style {
        Style::Trino => Box::new(move |row, out| rows.write_array(row, out)),
        Style::Native => Box::new(move |row, out| rows.write_object(row, &names, out)),
    })
}

/// A JSON object key with its colon.
pub(crate) fn object_key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    write_text(name, &mut key);
    key.push(b':');
    key
}

fn map(array: &ArrayRef, style: Style) -> Result<Cell, ArrowError> {
    let values = array.as_map().clone();
    let options = FormatOptions::default();
    let keys = Arc::clone(values.keys());
    let formatter = ArrayFormatter::try_new(keys.as_ref(), &options)?;
    // Keys of JSON are texts: others are written as their text.
    let keys: Vec<Vec<u8>> = (0..keys.len()).map(|index| object_key(&formatter.value(index).to_string())).collect();
    let inner = cell(values.values(), style)?;
    Ok(Box::new(move |row, out| {
        let offsets = values.value_offsets();
        out.push(b'{');
        for (nth, index) in (offsets[row]..offsets[row + 1]).map(ArrowNativeType::as_usize).enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&keys[index]);
            inner(index, out);
        }
        out.push(b'}');
    }))
}

/// Dates, times, intervals and what else has one obvious text.
fn displayed(array: &ArrayRef) -> Result<Cell, ArrowError> {
    let options = FormatOptions::default().with_display_error(true);
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    // Made at once, because a formatter borrows the array and a cell must own what it writes.
    let texts: Vec<String> = (0..array.len()).map(|row| formatter.value(row).to_string()).collect();
    Ok(Box::new(move |row, out| write_text(&texts[row], out)))
}

#[cfg(test)]
mod tests;
