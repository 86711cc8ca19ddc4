//! Casts to times with a zone. The engine has no value for a local time that comes twice, where the clocks are set back;
//! here it is the earlier of the two, as under `AT TIME ZONE`.

use std::sync::Arc;

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
use super::times::{in_utc, parse_timestamp, parse_zone, to_utc};

/// How `arrow-cast` ends the message of a local time that does not come once in its zone.
pub(crate) const NO_OFFSET: &str = "error computing timezone offset";
/// The function that stands for such a cast.
const LOCAL_TIME: &str = "local_time";

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
            with_expressions(node, |expr| called(expr, &schema))
        })
        .data()
    }

    fn name(&self) -> &str {
        "local_times"
    }
}

fn called(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (value, field, is_try) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr, field, false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, true),
        _ => return Ok(Transformed::no(expr)),
    };
    let DataType::Timestamp(unit, Some(zone)) = field.data_type() else { return Ok(Transformed::no(expr)) };
    if !value.get_type(schema).is_ok_and(|from| is_local(&from, zone)) {
        return Ok(Transformed::no(expr));
    }
    let signature = Signature::any(1, Volatility::Immutable);
    let function = LocalTime { unit: *unit, zone: Arc::clone(zone), is_try, signature };
    let func = Arc::new(ScalarUDF::new_from_impl(function));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![value.as_ref().clone()] })))
}

/// Whether values of the type may be local times that come twice.
fn is_local(from: &DataType, zone: &str) -> bool {
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
struct LocalTime {
    unit: TimeUnit,
    zone: Arc<str>,
    /// NULL in place of an error.
    is_try: bool,
    signature: Signature,
}

impl LocalTime {
    fn placed<T: ArrowTimestampType>(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let (name, zone) = match parse_zone(&self.zone) {
            Ok(parsed) => parsed,
            Err(problem) => return exec_err!("{problem}"),
        };
        let times: Vec<Option<i64>> = if is_text(values.data_type()) {
            let texts = cast(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>().iter();
            texts.map(|text| self.row(text, |text| read::<T>(text, &zone, &name))).collect::<Result<_>>()?
        } else {
            let options = CastOptions { safe: self.is_try, ..CastOptions::default() };
            let locals = cast_with_options(values, &DataType::Timestamp(self.unit, None), &options)?;
            let locals = locals.as_primitive::<T>().iter();
            locals.map(|local| self.row(local, |local| in_utc::<T>(local, &zone, &name))).collect::<Result<_>>()?
        };
        Ok(Arc::new(PrimitiveArray::<T>::from_iter(times).with_timezone(Arc::clone(&self.zone))))
    }

    fn row<V>(&self, value: Option<V>, place: impl FnOnce(V) -> Result<i64>) -> Result<Option<i64>> {
        match value.map(place) {
            Some(Err(_)) if self.is_try => Ok(None),
            placed => placed.transpose(),
        }
    }
}

/// A text as a time in UTC.
fn read<T: ArrowTimestampType>(text: &str, zone: &Tz, name: &str) -> Result<i64> {
    let utc = match string_to_datetime(zone, text) {
        Ok(time) => Ok(time.naive_utc()),
        // It comes twice or not at all, which the engine does not distinguish.
        Err(ArrowError::ParseError(problem)) if problem.ends_with(NO_OFFSET) => parse_timestamp(text)
            .and_then(|time| if time.zone().is_some() { Ok(time.stored()) } else { to_utc(time.stored(), zone, name) }),
        Err(error) => return Err(error.into()),
    };
    match utc.map(|utc| T::from_naive_datetime(utc, None)) {
        Ok(Some(time)) => Ok(time),
        Ok(None) => exec_err!("the time `{text}` lies beyond the range of its type"),
        Err(problem) => exec_err!("{problem}"),
    }
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        LOCAL_TIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(self.unit, Some(Arc::clone(&self.zone))))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let to = DataType::Timestamp(self.unit, Some(Arc::clone(&self.zone)));
        // As the cast, so that the types of the nodes above remain true.
        let is_nullable = self.is_try || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(LOCAL_TIME, to, is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = &args.args[..] else { return exec_err!("{LOCAL_TIME} takes one value") };
        let is_constant = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if is_constant { 1 } else { args.number_rows })?;
        let placed = match self.unit {
            TimeUnit::Second => self.placed::<TimestampSecondType>(&values)?,
            TimeUnit::Millisecond => self.placed::<TimestampMillisecondType>(&values)?,
            TimeUnit::Microsecond => self.placed::<TimestampMicrosecondType>(&values)?,
            TimeUnit::Nanosecond => self.placed::<TimestampNanosecondType>(&values)?,
        };
        answer(placed, is_constant)
    }
}
