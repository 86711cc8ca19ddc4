//! Numbers in the wider types that totals are added up in, and totals brought back to the type of a result.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, make_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion::common::{Result, ScalarValue, exec_err};

use super::kinds::type_name;

/// Digits of the widest decimal of 128 bits, and of 256 bits.
pub(super) const NARROW_DIGITS: u8 = 38;
pub(super) const WIDE_DIGITS: u8 = 76;

/// The same numbers in the type they are added up in.
pub(super) fn widen_one(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Int64 => as_decimal::<Int64Type>(values, 0)?,
        DataType::UInt64 => as_decimal::<UInt64Type>(values, 0)?,
        DataType::Duration(TimeUnit::Second) => as_decimal::<DurationSecondType>(values, 0)?,
        DataType::Duration(TimeUnit::Millisecond) => as_decimal::<DurationMillisecondType>(values, 0)?,
        DataType::Duration(TimeUnit::Microsecond) => as_decimal::<DurationMicrosecondType>(values, 0)?,
        DataType::Duration(TimeUnit::Nanosecond) => as_decimal::<DurationNanosecondType>(values, 0)?,
        DataType::Decimal32(_, scale) => as_decimal::<Decimal32Type>(values, *scale)?,
        DataType::Decimal64(_, scale) => as_decimal::<Decimal64Type>(values, *scale)?,
        // 38 digits nearly fill 128 bits, so that their sum needs the next width.
        DataType::Decimal128(_, scale) => {
            let wide: PrimitiveArray<Decimal256Type> = values.as_primitive::<Decimal128Type>().unary(i256::from_i128);
            Arc::new(wide.with_precision_and_scale(WIDE_DIGITS, *scale)?)
        }
        other => return exec_err!("sum does not take {}", type_name(other)),
    })
}

fn as_decimal<T>(values: &ArrayRef, scale: i8) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    // Arrays have fewer than 2^63 rows, so that a sum of integers of 64 bits stays below 2^127.
    let wide: PrimitiveArray<Decimal128Type> = values.as_primitive::<T>().unary(Into::into);
    Ok(Arc::new(wide.with_precision_and_scale(NARROW_DIGITS, scale)?))
}

/// The numbers in the widest type there is.
pub(super) fn as_widest(values: &ArrayRef) -> Result<ArrayRef> {
    let wide = widen_one(values)?;
    match wide.data_type() {
        DataType::Decimal128(..) => widen_one(&wide),
        _ => Ok(wide),
    }
}

/// A total in the type of the result; `what` names the aggregate in an error.
pub(super) fn fitted_total(total: i256, to: &DataType, what: &str) -> Result<ScalarValue> {
    let wide = match to {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    };
    let total = ScalarValue::Decimal256(Some(total), WIDE_DIGITS, wide).to_array()?;
    // A safe cast gives NULL for what does not fit; the error below names the aggregate, which Arrow's would not.
    let narrow = cast_with_options(&total, &numbers_of(to), &CastOptions { safe: true, ..CastOptions::default() })?;
    if narrow.is_null(0) {
        return exec_err!("{what} overflow: the result is out of range of {}", type_name(to));
    }
    // The same bits under the type of the result: a duration is stored as its count.
    let narrow = make_array(narrow.to_data().into_builder().data_type(to.clone()).build()?);
    ScalarValue::try_from_array(&narrow, 0)
}

/// The type that a result is kept as: differences of times are counts of their unit.
fn numbers_of(kind: &DataType) -> DataType {
    match kind {
        DataType::Duration(_) => DataType::Int64,
        other => other.clone(),
    }
}
