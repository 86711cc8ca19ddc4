//! The product of an interval and an integer, and the product or quotient of a difference of times and an integer,
//! which the engine does not support: `n * INTERVAL '1' HOUR`, `(max(ts) - min(ts)) / 2`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::{Result, exec_err, not_impl_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr,
    cast,
};

use super::lengths::has_length;
use super::text::answer;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The product of an interval or a difference of times and an integer, or the quotient of a difference by one, `times`
/// being the checked product of integers; `None` where neither or both operands are lengths of time.
///
/// # Errors
/// The other operand is no integer, or an interval is divided.
pub(super) fn product(
    left: &Expr,
    operator: Operator,
    right: &Expr,
    types: [&DataType; 2],
    times: &Arc<ScalarUDF>,
) -> Result<Option<Expr>> {
    let (length, number, of, kind) = match types {
        [one, other] if has_length(one) && other.is_numeric() => (left, right, one, other),
        [other, one] if has_length(one) && other.is_numeric() => (right, left, one, other),
        _ => return Ok(None),
    };
    let is_interval = matches!(of, DataType::Interval(_));
    // A length of time may be divided by a number, not a number by it; an interval has months, which do not divide
    // into days.
    if operator != Operator::Multiply && (is_interval || !has_length(types[0])) {
        return not_impl_err!(
            "an interval is multiplied by an integer only, and `{left} {operator} {right}` is a division"
        );
    }
    if !kind.is_integer() {
        return plan_err!("an interval takes an integer, and `{number}` is none: cast it to BIGINT");
    }
    if !is_interval {
        // A difference of times is a count of its unit: checked integer arithmetic on the count, in the same unit.
        let units = cast(length.clone(), DataType::Int64);
        let number = cast(number.clone(), DataType::Int64);
        let units = match operator {
            Operator::Divide => binary_expr(units, Operator::Divide, number),
            _ => Expr::ScalarFunction(ScalarFunction { func: Arc::clone(times), args: vec![units, number] }),
        };
        return Ok(Some(cast(units, of.clone())));
    }
    // One form for all intervals, so that the function has a single type.
    let func = Arc::new(ScalarUDF::new_from_impl(Product { signature: Signature::any(2, Volatility::Immutable) }));
    let args = vec![cast(length.clone(), INTERVAL), cast(number.clone(), DataType::Int64)];
    Ok(Some(Expr::ScalarFunction(ScalarFunction { func, args })))
}

/// The interval in a product.
pub(super) fn interval_of(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<Product>() => match call.args.first() {
            Some(Expr::Cast(cast)) => Some(&cast.expr),
            other => other,
        },
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Product {
    signature: Signature,
}

impl ScalarUDFImpl for Product {
    fn name(&self) -> &str {
        "interval_product"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        // A constant stays one row, so that it can be folded into the plan.
        let rows = if is_constant { 1 } else { args.number_rows };
        let [interval, number] = &args.args[..] else { return exec_err!("{} takes two operands", self.name()) };
        answer(products(&interval.to_array(rows)?, &number.to_array(rows)?)?, is_constant)
    }
}

fn products(intervals: &ArrayRef, numbers: &ArrayRef) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let intervals = cast_with_options(intervals, &INTERVAL, &options)?;
    let numbers = cast_with_options(numbers, &DataType::Int64, &options)?;
    let pairs = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(numbers.as_primitive::<Int64Type>());
    let products = pairs.map(|pair| match pair {
        (Some(interval), Some(number)) => match times(interval, number) {
            Some(product) => Ok(Some(product)),
            None => exec_err!("arithmetic overflow: {number} times an interval is out of range of interval"),
        },
        _ => Ok(None),
    });
    Ok(Arc::new(products.collect::<Result<PrimitiveArray<IntervalMonthDayNanoType>>>()?))
}

fn times(interval: IntervalMonthDayNano, number: i64) -> Option<IntervalMonthDayNano> {
    Some(IntervalMonthDayNano {
        // Each field by itself: a month has no fixed number of days, nor is a day converted to hours.
        months: times_short(interval.months, number)?,
        days: times_short(interval.days, number)?,
        nanoseconds: interval.nanoseconds.checked_mul(number)?,
    })
}

fn times_short(part: i32, number: i64) -> Option<i32> {
    i64::from(part).checked_mul(number)?.try_into().ok()
}
