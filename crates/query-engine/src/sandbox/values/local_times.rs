//! Casts to times with a zone. The engine has no value for a local time that comes twice, where the clocks are set back;
//! here it is the earlier of the two, as under `AT TIME ZONE`.

use std::sync::Arc;

use chrono::{NaiveDateTime, Utc};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TryCast, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::expressions::with_expressions;
use super::kinds::is_text;
use super::text::answer;
use super::times::{in_utc, parse_zone, to_utc};

/// How `arrow-cast` ends the message of a local time that does not come once in its zone.
pub(crate) const NO_OFFSET: &str = "error computing timezone offset";
/// The function that stands for such a cast.
const AS_INSTANT: &str = "as_instant";

/// Puts a function in the place of each cast that reads local times.
#[derive(Debug)]
pub(crate) struct LocalTimes;

impl AnalyzerRule for LocalTimes {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            let schema = match &node.inputs()[..] {
                // The expressions of a node without input read columns of its own.
                [] => node.schema().as_ref().clone(),
                inputs => merge_schema(inputs),
            };
            with_expressions(node, |expr| as_function(expr, &schema))
        })
        .data()
    }

    fn name(&self) -> &str {
        "local_times"
    }
}

fn as_function(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (value, field, is_try) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr, field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, true),
        _ => return Ok(Transformed::no(expr)),
    };
    let DataType::Timestamp(unit, Some(zone)) = field.data_type() else { return Ok(Transformed::no(expr)) };
    if !value.get_type(schema).is_ok_and(|from| may_come_twice(&from, zone)) {
        return Ok(Transformed::no(expr));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let function = LocalTime { unit: *unit, zone: Arc::clone(zone), is_try, signature };
    let func = Arc::new(ScalarUDF::new_from_impl(function));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![value.as_ref().clone()] })))
}

/// Whether values of the type may be local times of the zone that come twice, or not at all.
pub(super) fn may_come_twice(from: &DataType, zone: &str) -> bool {
    match from {
        DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => {
            // Clocks at a fixed offset are never set back.
            !zone.starts_with(['+', '-'])
        }
        // A text may name a zone of its own.
        from => is_text(from),
    }
}

/// A cast to a time with a zone.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LocalTime {
    unit: TimeUnit,
    zone: Arc<str>,
    /// NULL in place of an error.
    is_try: bool,
    signature: Signature,
}

impl LocalTime {
    /// The cast that an expression stands for, and its value.
    pub(super) fn of(expr: &Expr) -> Option<(&Self, &Expr)> {
        match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                func.inner().downcast_ref::<Self>().zip(args.first())
            }
            _ => None,
        }
    }

    pub(super) fn is_try(&self) -> bool {
        self.is_try
    }

    /// The type that values are cast to.
    pub(super) fn to(&self) -> DataType {
        DataType::Timestamp(self.unit, Some(Arc::clone(&self.zone)))
    }

    fn to_instants<T: ArrowTimestampType>(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let (name, zone) = match parse_zone(&self.zone) {
            Ok(parsed) => parsed,
            Err(problem) => return exec_err!("{problem}"),
        };
        let times: Vec<Option<i64>> = if is_text(values.data_type()) {
            let texts = cast(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>().iter();
            texts.map(|text| self.or_null(text, |text| parse::<T>(text, &zone, &name))).collect::<Result<_>>()?
        } else {
            let locals = self.without_zone(values)?;
            let locals = locals.as_primitive::<T>().iter();
            locals.map(|local| self.or_null(local, |local| in_utc::<T>(local, &zone, &name))).collect::<Result<_>>()?
        };
        Ok(Arc::new(PrimitiveArray::<T>::from_iter(times).with_timezone(Arc::clone(&self.zone))))
    }

    /// Dates and local times as local times of the unit.
    fn without_zone(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let to = DataType::Timestamp(self.unit, None);
        let options = CastOptions { safe: self.is_try, ..CastOptions::default() };
        if !self.is_try {
            // The cast of the engine and not Arrow's, which multiplies dates without a check of the range.
            return ColumnarValue::Array(Arc::clone(values)).cast_to(&to, Some(&options))?.into_array(values.len());
        }
        // The engine's check refuses all rows for one. Every date fits the coarser unit, and from one unit to another
        // Arrow checks each row.
        let coarse = match values.data_type() {
            DataType::Date32 => cast(values, &DataType::Timestamp(TimeUnit::Second, None))?,
            DataType::Date64 => cast(values, &DataType::Timestamp(TimeUnit::Millisecond, None))?,
            _ => Arc::clone(values),
        };
        Ok(cast_with_options(&coarse, &to, &options)?)
    }

    /// The instant of a value; NULL in place of an error where that is asked for.
    fn or_null<V>(&self, value: Option<V>, to_instant: impl FnOnce(V) -> Result<i64>) -> Result<Option<i64>> {
        match value.map(to_instant) {
            Some(Err(_)) if self.is_try => Ok(None),
            instant => instant.transpose(),
        }
    }
}

/// A text as a time in UTC.
fn parse<T: ArrowTimestampType>(text: &str, zone: &Tz, name: &str) -> Result<i64> {
    let utc = match string_to_datetime(zone, text) {
        Ok(time) => time.naive_utc(),
        // It comes twice or not at all, which the engine does not distinguish.
        Err(ArrowError::ParseError(problem)) if problem.ends_with(NO_OFFSET) => earlier(text, zone, name)?,
        Err(error) => return Err(error.into()),
    };
    match T::from_naive_datetime(utc, None) {
        Some(time) => Ok(time),
        None => exec_err!("the time `{text}` lies beyond the range of its type"),
    }
}

/// The text of a local time that comes twice as the earlier time in UTC.
fn earlier(text: &str, zone: &Tz, name: &str) -> Result<NaiveDateTime> {
    // Clocks at an offset are never set back, so that a zone of its own is a name, which begins with a letter. The 11th
    // character may be the `T` between date and time.
    let name_at = text.char_indices().skip(11).find(|(_, c)| c.is_ascii_alphabetic());
    let (local, own) = text.split_at(name_at.map_or(text.len(), |(at, _)| at));
    // In UTC every local time comes once. Read by the engine, which takes further forms than literals have.
    let local = string_to_datetime(&Utc, local.trim_end())?.naive_utc();
    let utc = if own.is_empty() {
        to_utc(local, zone, name)
    } else {
        parse_zone(own).and_then(|(name, zone)| to_utc(local, &zone, &name))
    };
    utc.or_else(|problem| exec_err!("{problem}"))
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        AS_INSTANT
    }

    /// The planner leaves casts out of names. With another name a key inside ROLLUP would get an alias, which counts as
    /// one more column.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|value| value.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // As the cast, so that the types of the nodes above remain true.
        let is_nullable = self.is_try || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(AS_INSTANT, self.to(), is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = &args.args[..] else { return exec_err!("{AS_INSTANT} takes one value") };
        let is_constant = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_constant { 1 } else { args.number_rows })?;
        let instants = match self.unit {
            TimeUnit::Second => self.to_instants::<TimestampSecondType>(&values)?,
            TimeUnit::Millisecond => self.to_instants::<TimestampMillisecondType>(&values)?,
            TimeUnit::Microsecond => self.to_instants::<TimestampMicrosecondType>(&values)?,
            TimeUnit::Nanosecond => self.to_instants::<TimestampNanosecondType>(&values)?,
        };
        answer(instants, is_constant)
    }
}
