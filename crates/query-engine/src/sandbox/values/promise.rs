//! Functions of the engine that keep a promise: no NULL where no argument is one, no NaN from a rounded number, and an
//! error that names the pattern it is about.

use std::sync::Arc;

use chrono::format::{Item, StrftimeItems};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use datafusion::arrow::compute::{cast, max, min};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::kinds::type_name;
use crate::sandbox::wrapped::{Wrapping, wrapped};

/// What a function promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Promise {
    /// NULL only where an argument is NULL: the engine gives it also where a result is out of range.
    Value,
    /// A finite number rounds to a finite number.
    Finite,
    /// The pattern is a valid one.
    Pattern,
}

const PROMISES: &[(&str, Promise)] = &[
    ("date_bin", Promise::Value),
    ("date_trunc", Promise::Value),
    ("factorial", Promise::Value),
    ("from_unixtime", Promise::Value),
    ("gcd", Promise::Value),
    ("lcm", Promise::Value),
    ("make_date", Promise::Value),
    ("make_time", Promise::Value),
    ("power", Promise::Value),
    ("round", Promise::Finite),
    ("to_char", Promise::Pattern),
    ("to_date", Promise::Value),
    ("to_local_time", Promise::Value),
    ("to_time", Promise::Value),
    ("to_timestamp", Promise::Value),
    ("to_timestamp_micros", Promise::Value),
    ("to_timestamp_millis", Promise::Value),
    ("to_timestamp_nanos", Promise::Value),
    ("to_timestamp_seconds", Promise::Value),
    ("to_unixtime", Promise::Value),
    ("trunc", Promise::Finite),
];

/// The longest year, nanoseconds.
const YEAR_NS: i64 = 366 * 86_400 * 1_000_000_000;

/// The function, wrapped where it has a promise.
pub(crate) fn held(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match PROMISES.iter().find(|(name, _)| *name == function.name()) {
        Some((_, promise)) => wrapped(function, *promise),
        None => function,
    }
}

impl Wrapping for Promise {
    const IS_TRANSPARENT: bool = true;

    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self {
            Self::Value => call_whole(inner, args),
            Self::Finite => call_finite(inner, args),
            Self::Pattern => call_pattern(inner, args),
        }
    }
}

fn call_whole(function: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let name = function.name();
    if matches!(name, "date_bin" | "date_trunc") {
        args.args.iter().try_for_each(|arg| in_range(name, arg))?;
    }
    // The arguments are needed after the call, which consumes them. Arrow arrays are shared, so that a clone copies
    // no values.
    let given = args.args.clone();
    let rows = args.number_rows;
    let result = function.invoke_with_args(args)?;
    if let ColumnarValue::Scalar(value) = &result
        && !value.is_null()
    {
        return Ok(result);
    }
    let made = result.to_array(rows)?;
    if made.null_count() == 0 {
        return Ok(result);
    }
    let given = given.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
    // A NULL out of values that are not NULL is an error that the engine has swallowed.
    if (0..made.len()).any(|row| made.is_null(row) && given.iter().all(|arg| !arg.is_null(row))) {
        return exec_err!("{name}: the result is out of range of {}", type_name(made.data_type()));
    }
    Ok(result)
}

/// The engine multiplies by a power of ten that may be infinite.
fn call_finite(function: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = args.args.clone();
    let rows = args.number_rows;
    let result = function.invoke_with_args(args)?;
    let [value, places] = &given[..] else { return Ok(result) };
    let kind = result.data_type();
    if !kind.is_floating() {
        return Ok(result);
    }
    let is_constant = matches!(result, ColumnarValue::Scalar(_));
    let rows = if is_constant { 1 } else { rows };
    let made = cast(&result.to_array(rows)?, &DataType::Float64)?;
    let made = made.as_primitive::<Float64Type>();
    // The usual case; only a batch with another result is computed again.
    if made.iter().flatten().all(f64::is_finite) {
        return Ok(result);
    }
    let values = cast(&value.to_array(rows)?, &DataType::Float64)?;
    let places = cast(&places.to_array(rows)?, &DataType::Int64)?;
    let cut = function.name() == "trunc";
    let rounded = values.as_primitive::<Float64Type>().iter().zip(places.as_primitive::<Int64Type>());
    let rounded = rounded.zip(made).map(|((value, places), made)| match (value, places, made) {
        // An infinity or a NaN that came in goes out unchanged.
        (Some(value), Some(places), Some(made)) if value.is_finite() && !made.is_finite() => {
            rounded_to(value, places, cut).map(Some)
        }
        (.., made) => Ok(made),
    });
    let rounded: ArrayRef = Arc::new(rounded.collect::<Result<Float64Array>>()?);
    super::text::answer(cast(&rounded, &kind)?, is_constant)
}

fn call_pattern(function: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let name = function.name();
    if let Some(pattern) = args.args.get(1) {
        // A literal is checked once for all rows.
        let rows = if matches!(pattern, ColumnarValue::Scalar(_)) { 1 } else { args.number_rows };
        let patterns = cast(&pattern.to_array(rows)?, &DataType::Utf8View)?;
        for pattern in patterns.as_string_view().iter().flatten() {
            // chrono reports an invalid specifier as an item, and writing it fails without naming the pattern.
            if StrftimeItems::new(pattern).any(|item| matches!(item, Item::Error)) {
                return exec_err!("{name} does not support the pattern `{pattern}`");
            }
        }
    }
    let kinds: Vec<String> = args.args.iter().take(1).map(|arg| type_name(&arg.data_type())).collect();
    let pattern = match args.args.get(1) {
        Some(ColumnarValue::Scalar(pattern)) => format!("the pattern `{pattern}`"),
        _ => "its pattern".to_owned(),
    };
    let written = function.invoke_with_args(args);
    written.or_else(|_| exec_err!("{name} cannot write a {} by {pattern}", kinds.join(", ")))
}

/// Refuses times that bins cannot hold. The engine computes bins in nanoseconds whatever the unit of a time is, and
/// checks neither that they hold the time nor that they hold the start of its year.
fn in_range(name: &str, arg: &ColumnarValue) -> Result<()> {
    let scale: i64 = match arg.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        _ => return Ok(()),
    };
    let times = cast(&arg.to_array(1)?, &DataType::Int64)?;
    let times = times.as_primitive::<Int64Type>();
    // The range is an interval, so that its ends decide for all times.
    for time in [min(times), max(times)].into_iter().flatten() {
        if time.checked_mul(scale).and_then(|nanos| nanos.checked_sub(YEAR_NS)).is_none() {
            return exec_err!("{name}: a time is out of range: it takes the years 1679 to 2261");
        }
    }
    Ok(())
}

/// A number rounded, or cut, to so many places after the point, or before it.
fn rounded_to(value: f64, places: i64, cut: bool) -> Result<f64> {
    if places > 0 {
        // So many places hold every digit that the number has.
        return Ok(value);
    }
    // A unit beyond the doubles is greater than twice any of them: every number rounds to zero of it.
    let unit = 10_f64.powf(places.unsigned_abs() as f64);
    if !unit.is_finite() {
        return Ok(0.0);
    }
    let units = value / unit;
    let rounded = if cut { units.trunc() } else { units.round() } * unit;
    if rounded.is_finite() { Ok(rounded) } else { exec_err!("round: the result is out of range of double") }
}

#[cfg(test)]
mod tests {
    use super::rounded_to;

    #[test]
    fn rounding_far_from_the_point_keeps_the_number_or_leaves_nothing() {
        assert_eq!(rounded_to(1.25, 350, false).unwrap(), 1.25);
        assert_eq!(rounded_to(0.25, -400, false).unwrap(), 0.0);
        assert_eq!(rounded_to(1.7e308, -307, true).unwrap(), 1.7e308);
        assert!(rounded_to(1.7e308, -308, false).is_err());
    }
}
