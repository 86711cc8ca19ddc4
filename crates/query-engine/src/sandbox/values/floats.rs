//! One zero and one NaN. The engine compares floats by their bits: `0 = -0` is false, and a NaN with a sign is another
//! NaN that sorts below every number. Wherever floats are compared, grouped, joined or ordered they pass through
//! [`Canonical`] first, which makes `-0` zero and every NaN the same one. Order and equality of NaN are then those of
//! PostgreSQL: equal to itself, above all numbers. Since no bound of a file is compared with a canonical column, a NaN
//! that a file's statistics leave out cannot lose its row.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, make_array};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{Alias, Case, InSubquery, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Cast, ColumnarValue, Distinct, Expr, ExprSchemable, Join, JoinConstraint,
    LogicalPlan, Operator, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Sort,
    SortExpr, Volatility, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

use super::expressions::with_expressions;

/// Functions that compare their arguments, or elements of them.
const COMPARING: &[&str] = &[
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_max",
    "array_min",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_sort",
    "array_union",
    "greatest",
    "least",
    "map_extract",
    "nullif",
];

/// Aggregates that compare what they take in.
const COMPARING_AGGREGATES: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "max",
    "median",
    "min",
    "mode",
    "percentile_cont",
];

/// Puts [`Canonical`] around every float that is compared.
#[derive(Debug)]
pub(crate) struct OneZeroOneNan {
    canonical: Arc<ScalarUDF>,
}

impl OneZeroOneNan {
    pub(crate) fn new() -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        Self { canonical: Arc::new(ScalarUDF::new_from_impl(Canonical { signature })) }
    }

    /// The expression itself where it holds no float.
    fn of(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        if !holds_float(&expr.get_type(schema)?) || self.is_canonical(&expr, schema) {
            return Ok(expr);
        }
        Ok(match expr {
            // It remains a literal, which rules of the optimizer and checks of arguments require.
            Expr::Literal(value, metadata) => Expr::Literal(canonical_scalar(value)?, metadata),
            Expr::Alias(alias) => Expr::Alias(Alias { expr: Box::new(self.of(*alias.expr, schema)?), ..alias }),
            other => self.call(other),
        })
    }

    fn call(&self, expr: Expr) -> Expr {
        Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&self.canonical), args: vec![expr] })
    }

    /// Whether the value can be neither `-0` nor NaN, or has been through here.
    fn is_canonical(&self, expr: &Expr, schema: &DFSchema) -> bool {
        match expr {
            Expr::Cast(Cast { expr, .. }) => {
                // No integer is converted to `-0` or NaN.
                expr.get_type(schema).is_ok_and(|from| from.is_integer() || from == DataType::Boolean)
            }
            Expr::ScalarFunction(call) => call.func.inner().is::<Canonical>(),
            _ => false,
        }
    }

    fn boxed(&self, expr: Expr, schema: &DFSchema) -> Result<Box<Expr>> {
        self.of(expr, schema).map(Box::new)
    }

    fn all(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
        exprs.into_iter().map(|expr| self.of(expr, schema)).collect()
    }

    fn sorted(&self, exprs: Vec<SortExpr>, schema: &DFSchema) -> Result<Vec<SortExpr>> {
        exprs.into_iter().map(|sort| Ok(SortExpr { expr: self.of(sort.expr, schema)?, ..sort })).collect()
    }

    /// What one expression compares, not what is inside its operands.
    fn operands(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => Expr::BinaryExpr(BinaryExpr {
                left: self.boxed(*left, schema)?,
                op,
                right: self.boxed(*right, schema)?,
            }),
            Expr::Between(Between { expr, negated, low, high }) => Expr::Between(Between {
                expr: self.boxed(*expr, schema)?,
                negated,
                low: self.boxed(*low, schema)?,
                high: self.boxed(*high, schema)?,
            }),
            Expr::InList(mut list) => {
                list.expr = self.boxed(*list.expr, schema)?;
                list.list = self.all(list.list, schema)?;
                Expr::InList(list)
            }
            Expr::InSubquery(InSubquery { expr, mut subquery, negated }) => {
                // Both sides are compared, so that both are made canonical.
                subquery.subquery = self.output(subquery.subquery)?;
                Expr::InSubquery(InSubquery { expr: self.boxed(*expr, schema)?, subquery, negated })
            }
            Expr::SetComparison(mut set) => {
                set.expr = self.boxed(*set.expr, schema)?;
                set.subquery.subquery = self.output(set.subquery.subquery)?;
                Expr::SetComparison(set)
            }
            Expr::Case(Case { expr: Some(base), mut when_then_expr, else_expr }) => {
                for (when, _) in &mut when_then_expr {
                    **when = self.of(std::mem::take(when.as_mut()), schema)?;
                }
                Expr::Case(Case { expr: Some(self.boxed(*base, schema)?), when_then_expr, else_expr })
            }
            Expr::ScalarFunction(mut call) if COMPARING.contains(&call.func.name()) => {
                call.args = self.all(call.args, schema)?;
                Expr::ScalarFunction(call)
            }
            Expr::AggregateFunction(mut call) => {
                // A sum keeps the sign of a zero; only distinct values and extremes compare their arguments.
                if call.params.distinct || COMPARING_AGGREGATES.contains(&call.func.name()) {
                    call.params.args = self.all(call.params.args, schema)?;
                }
                call.params.order_by = self.sorted(call.params.order_by, schema)?;
                Expr::AggregateFunction(call)
            }
            Expr::WindowFunction(call) => Expr::WindowFunction(Box::new(self.window(*call, schema)?)),
            other => other,
        })
    }

    fn window(&self, mut call: WindowFunction, schema: &DFSchema) -> Result<WindowFunction> {
        if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
            && (call.params.distinct || COMPARING_AGGREGATES.contains(&function.name()))
        {
            call.params.args = self.all(call.params.args, schema)?;
        }
        call.params.partition_by = self.all(call.params.partition_by, schema)?;
        call.params.order_by = self.sorted(call.params.order_by, schema)?;
        Ok(call)
    }

    /// The plan with its float columns canonical, under the same names.
    fn output(&self, plan: Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
        let schema = plan.schema();
        if !schema.fields().iter().any(|field| holds_float(field.data_type())) {
            return Ok(plan);
        }
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (qualifier, field) in schema.iter() {
            let column = Expr::Column(Column::from((qualifier, field)));
            columns.push(if holds_float(field.data_type()) {
                self.call(column).alias_qualified(qualifier.cloned(), field.name())
            } else {
                column
            });
        }
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, plan)?)))
    }

    fn aggregate(&self, aggregate: Aggregate) -> Result<Aggregate> {
        let schema = aggregate.input.schema();
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            // The sets name their keys by columns, which stay as they are over an input that is canonical.
            let input = self.output(Arc::clone(&aggregate.input))?;
            return Aggregate::try_new(input, aggregate.group_expr, aggregate.aggr_expr);
        }
        let names = NamePreserver::new_for_projection();
        let mut keys = Vec::with_capacity(aggregate.group_expr.len());
        for key in aggregate.group_expr {
            // The result is named after the key of the statement, by which the operators above refer to it.
            let name = names.save(&key);
            keys.push(name.restore(self.of(key, schema)?));
        }
        Aggregate::try_new(Arc::clone(&aggregate.input), keys, aggregate.aggr_expr)
    }

    /// The keys of one node: what it compares by itself.
    fn keys(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        Ok(match plan {
            LogicalPlan::Aggregate(aggregate) => LogicalPlan::Aggregate(self.aggregate(aggregate)?),
            LogicalPlan::Sort(Sort { expr, input, fetch }) => {
                let expr = self.sorted(expr, input.schema())?;
                LogicalPlan::Sort(Sort { expr, input, fetch })
            }
            LogicalPlan::Distinct(Distinct::All(input)) => LogicalPlan::Distinct(Distinct::All(self.output(input)?)),
            LogicalPlan::Distinct(Distinct::On(mut on)) => {
                on.on_expr = self.all(on.on_expr, on.input.schema())?;
                on.sort_expr = on.sort_expr.map(|sort| self.sorted(sort, on.input.schema())).transpose()?;
                LogicalPlan::Distinct(Distinct::On(on))
            }
            LogicalPlan::Join(join) => {
                let mut on = Vec::with_capacity(join.on.len());
                for (left, right) in join.on {
                    on.push((self.of(left, join.left.schema())?, self.of(right, join.right.schema())?));
                }
                // USING makes one column of two for the planner, which has resolved all names by now; its keys must be
                // plain columns, and these are not.
                LogicalPlan::Join(Join { on, join_constraint: JoinConstraint::On, ..join })
            }
            other => other,
        })
    }

    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        // Conditions move into scans later, in the optimizer, and are canonical by then.
        if matches!(plan, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema: DFSchemaRef = match &plan.inputs()[..] {
            [one] => Arc::clone(one.schema()),
            inputs => Arc::new(merge_schema(inputs)),
        };
        // What expressions compare first, then what the operator itself compares.
        let plan = with_expressions(plan, |expr| self.operands(expr, &schema).map(Transformed::yes)).data()?;
        Ok(Transformed::yes(self.keys(plan)?.recompute_schema()?))
    }
}

impl AnalyzerRule for OneZeroOneNan {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| self.node(node)).data()
    }

    fn name(&self) -> &str {
        "one_zero_one_nan"
    }
}

/// Whether the operator compares its sides.
pub(super) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Whether values of the type are floats, or hold some.
pub(super) fn holds_float(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_float(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_float(field.data_type())),
        _ => false,
    }
}

/// A value with `-0` made zero and every NaN the same one, also inside lists and rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => exec_err!("canonical takes one value"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [of] => Ok(Arc::clone(of)),
            _ => exec_err!("canonical takes one value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(canonical(&array)?)),
            Some(ColumnarValue::Scalar(scalar)) => Ok(ColumnarValue::Scalar(canonical_scalar(scalar)?)),
            None => exec_err!("canonical takes one value"),
        }
    }
}

fn canonical_scalar(value: ScalarValue) -> Result<ScalarValue> {
    Ok(match value {
        ScalarValue::Float32(Some(v)) => ScalarValue::Float32(Some(one_single(v))),
        ScalarValue::Float64(Some(v)) => ScalarValue::Float64(Some(one_double(v))),
        other if holds_float(&other.data_type()) => ScalarValue::try_from_array(&canonical(&other.to_array()?)?, 0)?,
        other => other,
    })
}

// IEEE 754: `-0 + 0` is `+0` when rounding to nearest; every other number stays what it is.
fn one_single(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

fn one_double(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn canonical(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(one_single)),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(one_double)),
        nested if holds_float(nested) => {
            let data = array.to_data();
            // The numbers are in child arrays (Arrow columnar format); offsets and the bitmap of NULLs are shared.
            let children = data.child_data().iter().map(|child| Ok(canonical(&make_array(child.clone()))?.to_data()));
            let children = children.collect::<Result<Vec<_>>>()?;
            make_array(data.into_builder().child_data(children).build()?)
        }
        _ => Arc::clone(array),
    })
}
