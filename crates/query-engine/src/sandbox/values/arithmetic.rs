//! `+`, `-`, `*` and the sign of integers and decimals as functions that fail where the result does not fit its type.
//! The engine's own operators wrap round.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;
use sqlparser::ast::BinaryOperator;

use super::expressions::with_expressions;
use super::kinds::{is_decimal, type_name};
use super::multiples;

/// Most digits of a decimal of 128 bits, and of one of 256 bits.
const WIDEST: [u8; 2] = [38, 76];

/// Plans the operators between integers and decimals as functions. Floats do not wrap; times are checked by the engine
/// itself.
#[derive(Debug)]
pub(crate) struct ExactArithmetic {
    plus: Arc<ScalarUDF>,
    minus: Arc<ScalarUDF>,
    times: Arc<ScalarUDF>,
}

impl ExactArithmetic {
    pub(crate) fn new() -> Self {
        Self {
            plus: Checked::function(Operator::Plus),
            minus: Checked::function(Operator::Minus),
            times: Checked::function(Operator::Multiply),
        }
    }
}

impl ExprPlanner for ExactArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (function, operator) = match expr.op {
            BinaryOperator::Plus => (&self.plus, Operator::Plus),
            BinaryOperator::Minus => (&self.minus, Operator::Minus),
            BinaryOperator::Multiply => (&self.times, Operator::Multiply),
            // For lengths of time only: the engine's division of numbers fails at zero and at overflow by itself.
            BinaryOperator::Divide => (&self.times, Operator::Divide),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let Ok(left) = expr.left.get_type(schema) else { return Ok(PlannerResult::Original(expr)) };
        let Ok(right) = expr.right.get_type(schema) else { return Ok(PlannerResult::Original(expr)) };
        if matches!(operator, Operator::Multiply | Operator::Divide)
            && let Some(product) = multiples::product(&expr.left, operator, &expr.right, [&left, &right], &self.times)?
        {
            return Ok(PlannerResult::Planned(product));
        }
        if operator == Operator::Divide {
            return Ok(PlannerResult::Original(expr));
        }
        // Before times are left to the engine, which would drop the hours of such a sum.
        match [&left, &right] {
            [DataType::Date32, DataType::Interval(_)] => whole_days(&expr.right)?,
            [DataType::Interval(_), DataType::Date32] => whole_days(&expr.left)?,
            _ => {}
        }
        if left.is_temporal() || right.is_temporal() {
            return Ok(PlannerResult::Original(expr));
        }
        match BinaryTypeCoercer::new(&left, &operator, &right).get_result_type() {
            // By the type of the result: a bigint plus a double is a double, which does not wrap.
            Ok(result) if wraps(&result) => {
                let args = vec![expr.left, expr.right];
                let call = ScalarFunction { func: Arc::clone(function), args };
                Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
            }
            _ => Ok(PlannerResult::Original(expr)),
        }
    }
}

/// Refuses an interval that is not whole days beside a date. A date has no hours, and the engine drops what is less
/// than a day. An interval in a column may have hours.
fn whole_days(interval: &Expr) -> Result<()> {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) if value.nanoseconds != 0 => not_whole_days(),
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) if value.milliseconds != 0 => not_whole_days(),
        // Months and days end on a day of the calendar; NULL gives NULL.
        Expr::Literal(..) => Ok(()),
        Expr::Negative(inner) => whole_days(inner),
        Expr::Alias(alias) => whole_days(&alias.expr),
        Expr::BinaryExpr(sum) if matches!(sum.op, Operator::Plus | Operator::Minus) => {
            whole_days(&sum.left)?;
            whole_days(&sum.right)
        }
        product if let Some(interval) = multiples::interval_of(product) => whole_days(interval),
        _ => plan_err!(
            "a date takes an interval of whole days that is written out; cast the date to TIMESTAMP to add any other"
        ),
    }
}

fn not_whole_days() -> Result<()> {
    plan_err!("a date takes an interval of whole days; cast the date to TIMESTAMP for hours, minutes and seconds")
}

/// Types whose operators wrap round in the engine.
pub(super) fn wraps(data_type: &DataType) -> bool {
    data_type.is_integer() || is_decimal(data_type)
}

/// One operator.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    operator: Operator,
    signature: Signature,
}

impl Checked {
    fn function(operator: Operator) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { operator, signature }))
    }

    fn coercer<'a>(&'a self, types: &'a [DataType]) -> Result<BinaryTypeCoercer<'a>> {
        match types {
            [left, right] => Ok(BinaryTypeCoercer::new(left, &self.operator, right)),
            _ => exec_err!("{} takes two operands", self.operator),
        }
    }

    fn binds_tighter_than(&self, operand: &Expr) -> bool {
        let inner = match operand {
            // The operators that this module has planned are calls by now.
            Expr::ScalarFunction(call) => match call.func.inner().downcast_ref::<Self>() {
                Some(inner) => inner.operator,
                None => return false,
            },
            Expr::BinaryExpr(inner) => inner.op,
            _ => return false,
        };
        inner.precedence() < self.operator.precedence()
    }

    /// The call as it is written, with the parentheses that keep two different expressions from having one name.
    fn written(&self, args: &[Expr]) -> Result<String> {
        let [left, right] = args else {
            return exec_err!("{} takes two operands", self.operator);
        };
        let left = operand(left, self.binds_tighter_than(left));
        // Always in parentheses on the right: `a - (b - c)` is not `a - b - c`.
        let right = operand(right, is_operation(right));
        Ok(format!("{left} {} {right}", self.operator))
    }
}

/// The name of an operand.
fn operand(expr: &Expr, is_in_parentheses: bool) -> String {
    let name = expr.schema_name();
    if is_in_parentheses { format!("({name})") } else { name.to_string() }
}

fn is_operation(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(_) => true,
        Expr::ScalarFunction(call) => call.func.inner().is::<Checked>(),
        _ => false,
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "+",
            Operator::Minus => "-",
            _ => "*",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.written(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.coercer(types)?.get_result_type()
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, is_nullable)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (left, right) = self.coercer(types)?.get_input_types()?;
        Ok(vec![left, right])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            return exec_err!("{} takes two operands", self.operator);
        };
        // The checked kernels of Arrow; those whose names end in `_wrapping` are what the engine calls.
        let kernel = match self.operator {
            Operator::Plus => numeric::add,
            Operator::Minus => numeric::sub,
            _ => numeric::mul,
        };
        // The kernels fail for a value out of range only; the types were coerced before.
        apply(left, right, |left, right| fits(kernel(left, right)?)).or_else(|_| overflow(args.return_type()))
    }
}

/// A decimal that is as wide as decimals get may hold more digits than it shows.
fn fits(array: ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        // 128 and 256 bits hold some numbers of 39 and 77 digits. A narrower result was given a precision that holds
        // every value of its operands.
        DataType::Decimal128(precision, _) if WIDEST.contains(precision) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
        }
        DataType::Decimal256(precision, _) if WIDEST.contains(precision) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)?;
        }
        _ => {}
    }
    Ok(array)
}

/// The error of a result that does not fit.
///
/// # Errors
/// Always.
pub(super) fn overflow<T>(data_type: &DataType) -> Result<T> {
    exec_err!("arithmetic overflow: a result is out of range of {}", type_name(data_type))
}

/// The sign of an integer or a decimal.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Negated {
    signature: Signature,
}

impl ScalarUDFImpl for Negated {
    fn name(&self) -> &str {
        "negated"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(format!("(- {})", args.iter().map(|arg| arg.schema_name().to_string()).collect::<String>()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => exec_err!("a sign has one operand"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[..] {
            [ColumnarValue::Scalar(value)] => match numeric::neg(&value.to_array()?) {
                Ok(negated) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?)),
                Err(_) => overflow(args.return_type()),
            },
            [ColumnarValue::Array(values)] => match numeric::neg(values) {
                Ok(negated) => Ok(ColumnarValue::Array(negated)),
                Err(_) => overflow(args.return_type()),
            },
            _ => exec_err!("a sign has one operand"),
        }
    }
}

/// Puts [`Negated`] in the place of the engine's sign.
#[derive(Debug)]
pub(super) struct ExactSigns {
    negated: Arc<ScalarUDF>,
}

impl ExactSigns {
    pub(super) fn new() -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        Self { negated: Arc::new(ScalarUDF::new_from_impl(Negated { signature })) }
    }

    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        with_expressions(plan, |expr| match expr {
            // The least integer of a type has no positive counterpart in two's complement.
            Expr::Negative(of) if of.get_type(&schema).is_ok_and(|kind| wraps(&kind)) => {
                let call = ScalarFunction { func: Arc::clone(&self.negated), args: vec![*of] };
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

impl AnalyzerRule for ExactSigns {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| self.node(node)).data()
    }

    fn name(&self) -> &str {
        "exact_signs"
    }
}
