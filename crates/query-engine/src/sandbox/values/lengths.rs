//! The length of an interval of days and smaller units, by which intervals are compared. A month has none.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, DurationNanosecondType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit,
};
use datafusion::common::{Result, ScalarValue, exec_err, not_impl_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::text::answer;

const DAY_NS: i64 = 86_400_000_000_000;
const LENGTH: DataType = DataType::Duration(TimeUnit::Nanosecond);

pub(super) fn is_interval(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_))
}

/// Whether values of the type may have a length.
pub(super) fn has_length(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_))
}

/// The length of an interval, or of a difference of times, as an expression.
///
/// # Errors
/// The interval is written with months.
pub(super) fn length(expr: Expr, kind: &DataType) -> Result<Expr> {
    if !is_interval(kind) {
        return Ok(Expr::Cast(Cast::new(Box::new(expr), LENGTH)));
    }
    // A literal is refused while the statement is planned, a column when its values are read.
    let months = match &expr {
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => *months,
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => value.months,
        _ => 0,
    };
    if months != 0 {
        return not_impl_err!("{NO_LENGTH}");
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let func = Arc::new(ScalarUDF::new_from_impl(Length { signature }));
    Ok(Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] }))
}

const NO_LENGTH: &str = "an interval with months compared by its length: a month has no fixed length; write days, or add it to a \
                         time and compare times";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "interval_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(LENGTH)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [interval] = &args.args[..] else { return exec_err!("{} takes one interval", self.name()) };
        let is_constant = matches!(interval, ColumnarValue::Scalar(_));
        let intervals = interval.to_array(if is_constant { 1 } else { args.number_rows })?;
        answer(lengths(&intervals)?, is_constant)
    }
}

/// The length of an interval, nanoseconds.
fn length_of(months: i32, days: i32, nanos: i64) -> Result<i64> {
    if months != 0 {
        return exec_err!("{NO_LENGTH}");
    }
    // A day of an interval is 24 hours: there is no zone whose clock changes could count. 2^63 ns are 292 years.
    match i64::from(days).checked_mul(DAY_NS).and_then(|days| days.checked_add(nanos)) {
        Some(length) => Ok(length),
        None => exec_err!("an interval of {days} days is too long to be compared"),
    }
}

fn lengths(intervals: &ArrayRef) -> Result<ArrayRef> {
    let lengths: PrimitiveArray<DurationNanosecondType> = match intervals.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => intervals
            .as_primitive::<IntervalMonthDayNanoType>()
            .try_unary(|value| length_of(value.months, value.days, value.nanoseconds))?,
        DataType::Interval(IntervalUnit::DayTime) => intervals
            .as_primitive::<IntervalDayTimeType>()
            // 2^31 ms are less than 2^52 ns, so that the product fits.
            .try_unary(|value| length_of(0, value.days, i64::from(value.milliseconds) * 1_000_000))?,
        DataType::Interval(IntervalUnit::YearMonth) => {
            intervals.as_primitive::<IntervalYearMonthType>().try_unary(|months| length_of(months, 0, 0))?
        }
        _ => return Ok(cast_with_options(intervals, &LENGTH, &CastOptions { safe: false, ..CastOptions::default() })?),
    };
    Ok(Arc::new(lengths))
}
