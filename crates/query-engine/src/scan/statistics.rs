//! Converts what the manifests record about a file to DataFusion's statistics. DataFusion answers `min` and `max` from
//! an exact statistic, so a bound is exact only when the lake guarantees that it is the extreme value itself.

use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use lake::{ScanFile, Value};

use crate::scan::field_ids::field_id;

/// The statistics of one file for the columns of the schema.
pub(crate) fn of(file: &ScanFile, schema: &SchemaRef) -> Statistics {
    Statistics {
        num_rows: Precision::Exact(to_usize(file.record_count)),
        // The size in memory, which is unknown: the size of the file is that of compressed pages.
        total_byte_size: Precision::Absent,
        column_statistics: schema.fields().iter().map(|field| column(file, field)).collect(),
    }
}

fn column(file: &ScanFile, field: &Field) -> ColumnStatistics {
    let unknown = ColumnStatistics::new_unknown();
    let Some(stats) = field_id(field).and_then(|id| file.column(id)) else {
        return unknown;
    };
    // Iceberg's bounds leave NaN out (spec, `lower_bounds`), so that they are not the least and the greatest of
    // floating numbers.
    let bounds =
        if field.data_type().is_floating() { [None, None] } else { [stats.lower.as_ref(), stats.upper.as_ref()] };
    let [min_value, max_value] = bounds.map(|bound| match bound.and_then(|value| scalar(value, field.data_type())) {
        Some(value) if stats.exact => Precision::Exact(value),
        Some(value) => Precision::Inexact(value),
        None => Precision::Absent,
    });
    ColumnStatistics {
        null_count: stats.null_count.map_or(Precision::Absent, |count| Precision::Exact(to_usize(count))),
        min_value,
        max_value,
        // Iceberg counts compressed bytes on disk; good enough for an estimate.
        byte_size: stats.size_bytes.map_or(Precision::Absent, |size| Precision::Inexact(to_usize(size))),
        ..unknown
    }
}

fn to_usize(count: u64) -> usize {
    // Saturates on 32-bit targets only.
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A value of the lake as a value of the column's Arrow type; `None` when the file was written under a type whose
/// bounds cannot be converted safely.
pub(crate) fn scalar(value: &Value, kind: &DataType) -> Option<ScalarValue> {
    Some(match (value, kind) {
        (Value::Boolean(v), DataType::Boolean) => ScalarValue::Boolean(Some(*v)),
        (Value::Int(v), DataType::Int32) => ScalarValue::Int32(Some(*v)),
        // Iceberg may promote a column from int to long; older files keep bounds of the old type (spec, Schema
        // Evolution).
        (Value::Int(v), DataType::Int64) => ScalarValue::Int64(Some((*v).into())),
        (Value::Long(v), DataType::Int64) => ScalarValue::Int64(Some(*v)),
        (Value::Float(v), DataType::Float32) => ScalarValue::Float32(Some(*v)),
        (Value::Double(v), DataType::Float64) => ScalarValue::Float64(Some(*v)),
        (Value::String(v), DataType::Utf8View) => ScalarValue::Utf8View(Some(v.to_string())),
        (Value::Timestamptz(v), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            ScalarValue::TimestampMicrosecond(Some(*v), zone.clone())
        }
        _ => return None,
    })
}

/// A literal as a value of the lake; `None` unless it has exactly the column's type, because a literal under a cast
/// compares differently.
pub(crate) fn value(literal: &ScalarValue, kind: &DataType) -> Option<Value> {
    Some(match (literal, kind) {
        (ScalarValue::Int32(Some(v)), DataType::Int32) => Value::Int(*v),
        (ScalarValue::Int64(Some(v)), DataType::Int64) => Value::Long(*v),
        (
            ScalarValue::Utf8View(Some(v)) | ScalarValue::Utf8(Some(v)) | ScalarValue::LargeUtf8(Some(v)),
            DataType::Utf8View,
        ) => Value::String(v.as_str().into()),
        (ScalarValue::TimestampMicrosecond(Some(v), Some(_)), DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => {
            Value::Timestamptz(*v)
        }
        _ => return None,
    })
}
