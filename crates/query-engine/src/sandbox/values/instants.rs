//! Comparisons of times that are exact. The engine compares two times in the coarser of their units, which makes
//! `12:00:00.5` equal to `12:00:00`, and reads texts and dates as nanoseconds, which end in the year 2262.

use std::sync::Arc;

use chrono::{NaiveDateTime, Timelike};
use datafusion::arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampSecondType,
};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::{CastOptions, cast as arrow_cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, binary_expr, cast, lit,
};

use super::expressions::{MAX_REPEATED_NODES, nodes};
use super::promise::held;
use super::syntax::CAST as NAMED_CAST;
use super::text::answer;
use super::times::{Instant, literal_text, parse_timestamp};

/// The function that brings a time to a finer unit.
pub(super) const RAISED: &str = "time_in_unit";
/// The functions that round a time down and up to a coarser unit.
pub(super) const FLOOR: &str = "time_floor";
pub(super) const CEILING: &str = "time_ceiling";

/// Casts texts to microseconds in a list that is compared with a column of microseconds. The result is whether there
/// are any.
pub(super) fn exact_list(list: &mut InList, schema: &DFSchema) -> bool {
    let Ok(DataType::Timestamp(TimeUnit::Microsecond, zone)) = list.expr.get_type(schema) else { return false };
    let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
    let mut is_changed = false;
    for element in &mut list.list {
        // Casting the texts keeps the column free of casts, so that its statistics can still leave files out.
        if written(element).is_some_and(|instant| instant.fits_microseconds()) {
            *element = cast(element.clone(), to.clone());
            is_changed = true;
        }
    }
    is_changed
}

/// A time with a zone that is cast to one without, as what the clocks of its zone show. The engine gives what clocks in
/// UTC show.
pub(super) fn by_its_clock(expr: Box<Expr>, from: &DataType, to: &DataType) -> (Box<Expr>, bool) {
    match (from, to) {
        (DataType::Timestamp(_, Some(zone)), DataType::Timestamp(_, None))
            // In UTC the clocks show what is stored.
            if !["+00:00", "UTC", "Z"].contains(&zone.as_ref()) =>
        {
            let func = held(datafusion::functions::datetime::to_local_time());
            (Box::new(Expr::ScalarFunction(ScalarFunction { func, args: vec![*expr] })), true)
        }
        _ => (expr, false),
    }
}

/// A time in a finer unit. In a comparison of a cast the optimizer casts the other side to the coarser unit instead,
/// where that is a constant.
pub(super) fn raised(expr: Expr, unit: TimeUnit) -> Expr {
    let function = Raised { unit, signature: Signature::any(1, Volatility::Immutable) };
    let func = Arc::new(ScalarUDF::new_from_impl(function));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
}

/// A cast to a finer unit, of the statement itself, kept from the optimizer: see [`raised`]. `None` for another
/// expression, and where everything it is compared with is written and a whole number of the coarser unit.
pub(super) fn kept_raised<'a>(
    expr: &Expr,
    others: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Option<Expr> {
    let cast = match expr {
        Expr::Cast(cast) => cast,
        Expr::ScalarFunction(call) if call.func.name() == NAMED_CAST => match &call.args[..] {
            [Expr::Cast(cast)] => cast,
            _ => return None,
        },
        _ => return None,
    };
    // Only a cast between two times can be exchanged for a cast of the constant.
    let DataType::Timestamp(from, _) = cast.expr.get_type(schema).ok()? else { return None };
    let DataType::Timestamp(to, _) = cast.field.data_type() else { return None };
    let is_exact = others.into_iter().all(|other| {
        !other.column_refs().is_empty() || written(other).is_some_and(|instant| is_whole(&instant, &from))
    });
    if !is_finer(to, &from) || is_exact {
        return None;
    }
    // The optimizer does not rewrite the call; the cast around it, now of one type to itself, keeps the declared type.
    let inner = Box::new(raised(cast.expr.as_ref().clone(), *to));
    Some(Expr::Cast(Cast { expr: inner, field: Arc::clone(&cast.field) }))
}

/// The comparison over operands of one type; `None` where another way is exact.
pub(super) fn compared(left: &Expr, op: Operator, right: &Expr, types: (&DataType, &DataType)) -> Option<Expr> {
    match types {
        (DataType::Timestamp(one, zone), DataType::Timestamp(other, _)) if is_finer(other, one) => {
            against_finer(left, one, zone.clone(), op, right)
        }
        (DataType::Timestamp(one, _), DataType::Timestamp(other, zone)) if is_finer(one, other) => {
            // `a < b` is `b > a`.
            against_finer(right, other, zone.clone(), op.swap()?, left)
        }
        (DataType::Timestamp(TimeUnit::Microsecond, zone), other) if is_day_or_text(other) => {
            Some(binary_expr(left.clone(), op, in_microseconds(right, other, zone.clone())?))
        }
        (other, DataType::Timestamp(TimeUnit::Microsecond, zone)) if is_day_or_text(other) => {
            Some(binary_expr(in_microseconds(left, other, zone.clone())?, op, right.clone()))
        }
        _ => None,
    }
}

/// Whether the engine's way, which brings both sides to the coarser unit, loses nothing: the finer side is written in
/// the statement and is a whole number of the coarser unit, or the finer is nanoseconds and the coarser is written and
/// lies beyond their years.
pub(super) fn is_exact_as_it_is(left: &Expr, op: Operator, right: &Expr, types: (&DataType, &DataType)) -> bool {
    let (DataType::Timestamp(l, _), DataType::Timestamp(r, _)) = types else { return false };
    let (coarse, unit, fine, finer) = if is_finer(r, l) { (left, l, right, r) } else { (right, r, left, l) };
    match (written(fine), written(coarse)) {
        // A difference needs the finer unit even where both are whole.
        (Some(instant), _) if op != Operator::Minus => is_whole(&instant, unit),
        // A column of nanoseconds lies on one side of such a literal, so that rounding changes no outcome. The other
        // units reach further, to where a column may be within one coarser unit of the literal.
        (None, Some(instant)) => *finer == TimeUnit::Nanosecond && !instant.fits_nanoseconds(),
        _ => false,
    }
}

fn is_finer(one: &TimeUnit, other: &TimeUnit) -> bool {
    per_second(one) > per_second(other)
}

pub(crate) fn per_second(unit: &TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn is_day_or_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// A date, or a text that microseconds hold.
fn in_microseconds(expr: &Expr, kind: &DataType, zone: Option<Arc<str>>) -> Option<Expr> {
    let holds = *kind == DataType::Date32 || written(expr).is_some_and(|instant| instant.fits_microseconds());
    holds.then(|| cast(expr.clone(), DataType::Timestamp(TimeUnit::Microsecond, zone)))
}

/// A comparison with a time of a finer unit; `None` to bring the coarser side to that unit.
fn against_finer(coarse: &Expr, unit: &TimeUnit, zone: Option<Arc<str>>, op: Operator, fine: &Expr) -> Option<Expr> {
    let is_written_twice = matches!(op, Operator::Eq | Operator::NotEq);
    if is_written_twice && nodes(coarse) > MAX_REPEATED_NODES {
        return None;
    }
    if let Some(instant) = written(fine) {
        // A literal that lies between two values of the column is its floor with another operator.
        return match floor(instant.stored(), unit) {
            // A literal on a value of the column needs nothing: it is cast without loss.
            Some(floor) if floor != instant.stored() => between_values(coarse, op, &literal(&floor, unit, &instant)),
            _ => None,
        };
    }
    // A constant is rounded and keeps the column free of casts, by which files are left out.
    if coarse.column_refs().is_empty() || !is_constant(fine) {
        return None;
    }
    // For x in whole units, `x < t` is `x < ceil(t)` and `x <= t` is `x <= floor(t)`. Floor and ceiling are equal
    // where t is such a unit itself, and only there some x equals t.
    let below = rounded(fine, false, *unit, zone.clone());
    let above = rounded(fine, true, *unit, zone);
    let coarse = coarse.clone();
    match op {
        Operator::Lt => Some(coarse.lt(above)),
        Operator::LtEq => Some(coarse.lt_eq(below)),
        Operator::Gt => Some(coarse.gt(below)),
        Operator::GtEq => Some(coarse.gt_eq(above)),
        Operator::Eq => Some(coarse.clone().gt_eq(above).and(coarse.lt_eq(below))),
        Operator::NotEq => Some(coarse.clone().lt(above).or(coarse.gt(below))),
        _ => None,
    }
}

/// A time rounded to a coarser unit.
fn rounded(time: &Expr, is_up: bool, unit: TimeUnit, zone: Option<Arc<str>>) -> Expr {
    let function = Rounded { is_up, unit, signature: Signature::any(1, Volatility::Immutable) };
    let func = Arc::new(ScalarUDF::new_from_impl(function));
    cast(Expr::ScalarFunction(ScalarFunction { func, args: vec![time.clone()] }), DataType::Timestamp(unit, zone))
}

/// Whether an expression has one value for a whole statement.
fn is_constant(expr: &Expr) -> bool {
    let has_subquery = expr.exists(|part| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    });
    expr.column_refs().is_empty() && !expr.contains_outer() && !expr.is_volatile() && !has_subquery.unwrap_or(true)
}

fn between_values(coarse: &Expr, op: Operator, floor: &Expr) -> Option<Expr> {
    let at_most = coarse.clone().lt_eq(floor.clone());
    let above = coarse.clone().gt(floor.clone());
    // The column has no value between floor and literal. Equality is written as a condition that is never true, and not
    // as false: NULL must stay NULL.
    match op {
        Operator::Lt | Operator::LtEq => Some(at_most),
        Operator::Gt | Operator::GtEq => Some(above),
        Operator::Eq => Some(at_most.and(above)),
        Operator::NotEq => Some(at_most.or(above)),
        _ => None,
    }
}

fn floor(time: NaiveDateTime, unit: &TimeUnit) -> Option<NaiveDateTime> {
    let step = 1_000_000_000 / per_second(unit);
    // Within the second and never negative, so that it rounds down before 1970 too.
    time.with_nanosecond(time.nanosecond() / step * step)
}

/// Whether a time is a whole number of the unit.
fn is_whole(instant: &Instant, unit: &TimeUnit) -> bool {
    floor(instant.stored(), unit) == Some(instant.stored())
}

fn literal(time: &NaiveDateTime, unit: &TimeUnit, of: &Instant) -> Expr {
    match of.zone() {
        // With `Z`, so that it is not read as a local time of the session's zone.
        Some(_) => cast(lit(literal_text(time) + "Z"), DataType::Timestamp(*unit, Some("+00:00".into()))),
        None => cast(lit(literal_text(time)), DataType::Timestamp(*unit, None)),
    }
}

/// The time that is written in the statement.
fn written(expr: &Expr) -> Option<Instant> {
    match expr {
        Expr::Cast(Cast { expr, .. }) => written(expr),
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => parse_timestamp(text).ok(),
        _ => None,
    }
}

/// A time rounded to a coarser unit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounded {
    is_up: bool,
    unit: TimeUnit,
    signature: Signature,
}

impl ScalarUDFImpl for Rounded {
    fn name(&self) -> &str {
        if self.is_up { CEILING } else { FLOOR }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(self.unit, zone.clone())),
            _ => exec_err!("{} takes one time", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time] = &args.args[..] else { return exec_err!("{} takes one time", self.name()) };
        let is_constant = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if is_constant { 1 } else { args.number_rows })?;
        let DataType::Timestamp(from, zone) = times.data_type() else {
            return exec_err!("{} takes one time", self.name());
        };
        // At least 1, for a time that has the unit already.
        let steps = i64::from(per_second(from) / per_second(&self.unit)).max(1);
        let numbers = arrow_cast(&times, &DataType::Int64)?;
        let rounded: PrimitiveArray<Int64Type> = numbers
            .as_primitive::<Int64Type>()
            // Euclidean division rounds towards the past also for negative numbers, the times before 1970.
            .unary(|time| time.div_euclid(steps) + i64::from(self.is_up && time.rem_euclid(steps) != 0));
        let rounded: ArrayRef = match self.unit {
            TimeUnit::Second => of_unit::<TimestampSecondType>(&rounded, zone.clone()),
            TimeUnit::Millisecond => of_unit::<TimestampMillisecondType>(&rounded, zone.clone()),
            _ => of_unit::<TimestampMicrosecondType>(&rounded, zone.clone()),
        };
        answer(rounded, is_constant)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Raised {
    unit: TimeUnit,
    signature: Signature,
}

impl ScalarUDFImpl for Raised {
    fn name(&self) -> &str {
        RAISED
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|time| time.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(self.unit, zone.clone())),
            _ => exec_err!("{RAISED} takes one time"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time] = &args.args[..] else { return exec_err!("{RAISED} takes one time") };
        let is_constant = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if is_constant { 1 } else { args.number_rows })?;
        // A safe cast would give NULL for a time that nanoseconds do not hold.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        match cast_with_options(&times, args.return_type(), &options) {
            Ok(raised) => answer(raised, is_constant),
            Err(_) => exec_err!("a time lies beyond the years 1678 to 2261, which nanoseconds hold"),
        }
    }
}

fn of_unit<T: ArrowTimestampType>(numbers: &PrimitiveArray<Int64Type>, zone: Option<Arc<str>>) -> ArrayRef {
    Arc::new(numbers.reinterpret_cast::<T>().with_timezone_opt(zone))
}
