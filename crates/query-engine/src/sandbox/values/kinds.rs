//! Types of values: their names in messages, and the scale of decimals.

use datafusion::arrow::datatypes::DataType;

use crate::types::sql_type_name;

/// A type as SQL writes it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        // `sql_type_name` names it bigint too, but these errors are about values that only one of the two holds.
        DataType::UInt64 => "bigint unsigned".to_owned(),
        other => sql_type_name(other),
    }
}

/// Whether values of a type are texts.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether a type is a decimal of any width.
pub(crate) fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// Digits after the point; `None` for what is not a decimal.
pub(crate) fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}
