//! Guards: a condition before a division in `AND`, `OR`, `CASE` or `FILTER` keeps it from failing (short-circuit
//! evaluation). The engine computes both sides of `AND` for whole batches, and moves conditions about. So the finished
//! plan is rewritten: a condition that may fail for a row is computed only where the conditions before it hold, and
//! conditions that never fail come first.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable, JoinType, LogicalPlan, Operator, WindowFunctionDefinition, binary_expr, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::arithmetic::{Checked, wraps};
use super::expressions::{MAX_REPEATED_NODES, nodes, with_expressions};
use super::instants::RAISED;
use super::kinds::{is_decimal, is_text};
use super::local_times::{LocalTime, may_come_twice};
use super::syntax::under_a_name;

/// Functions that give a value for every value of their types. An allow-list: others are taken to fail.
const NEVER_FAILING: &[&str] = &[
    "bit_length",
    "btrim",
    "canonical",
    "cast_as",
    "ceil",
    "character_length",
    "coalesce",
    "contains",
    "date_part",
    "date_trunc",
    "ends_with",
    "floor",
    "get_field",
    "greatest",
    "isnan",
    "iszero",
    "least",
    "left",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "op_name",
    "reverse",
    "right",
    "rtrim",
    "source_name",
    "starts_with",
    "strpos",
    "time_ceiling",
    "time_floor",
    "trunc",
    "upper",
];

/// Whether an expression can fail for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Risk {
    Never,
    /// Only when a number or a time leaves its range.
    Overflow,
    /// For values that are not unusual: a division, a cast of a text.
    Fails,
}

/// Whether an expression gives a value for every row, but for numbers and times that leave their range.
pub(crate) fn is_safe(expr: &Expr, schema: &DFSchema) -> bool {
    risk(expr, schema) < Risk::Fails
}

fn risk(expr: &Expr, schema: &DFSchema) -> Risk {
    let mut worst = Risk::Never;
    // The visit itself never fails.
    let _ = expr.apply(|expr| {
        worst = worst.max(own_risk(expr, schema));
        Ok(if worst == Risk::Fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    worst
}

/// The risk of one operation, without its operands.
fn own_risk(expr: &Expr, schema: &DFSchema) -> Risk {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, right, .. }) => match op {
            Operator::Plus | Operator::Minus | Operator::Multiply if is_float(expr, schema) => Risk::Never,
            Operator::Plus | Operator::Minus | Operator::Multiply => Risk::Overflow,
            // IEEE 754: the result is an infinity or NaN.
            Operator::Divide | Operator::Modulo if is_float(expr, schema) => Risk::Never,
            Operator::Divide | Operator::Modulo => divisor_risk(right),
            Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch
                // A literal was checked by `Patterns`; one from a column is compiled for each row.
                if !matches!(right.as_ref(), Expr::Literal(..)) =>
            {
                Risk::Fails
            }
            _ => Risk::Never,
        },
        // The least integer has no positive counterpart.
        Expr::Negative(of) if !is_float(of, schema) => Risk::Overflow,
        Expr::Cast(Cast { expr, field }) => match expr.get_type(schema) {
            Ok(from) => cast_risk(&from, field.data_type()),
            // Without a type the cast counts as one that may fail.
            Err(_) => Risk::Fails,
        },
        Expr::ScalarFunction(call) if call.func.inner().is::<Checked>() || call.func.name() == RAISED => Risk::Overflow,
        // Any other such cast may fail, as the cast that it stands for.
        Expr::ScalarFunction(_) if LocalTime::of(expr).is_some_and(|(cast, _)| cast.is_try()) => Risk::Never,
        Expr::ScalarFunction(call) if NEVER_FAILING.contains(&call.func.name()) => Risk::Never,
        Expr::ScalarFunction(_) => Risk::Fails,
        _ => Risk::Never,
    }
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_floating())
}

fn divisor_risk(divisor: &Expr) -> Risk {
    let Expr::Literal(value, _) = divisor else { return Risk::Fails };
    let kind = value.data_type();
    match ScalarValue::new_zero(&kind) {
        Ok(zero) if *value == zero => Risk::Fails,
        // The dividend is brought to the scale of the result first, which may take more digits than there are.
        Ok(_) if is_decimal(&kind) => Risk::Overflow,
        // The least integer has no positive counterpart.
        Ok(_) if ScalarValue::new_negative_one(&kind).is_ok_and(|minus_one| *value == minus_one) => Risk::Overflow,
        Ok(_) => Risk::Never,
        Err(_) => Risk::Fails,
    }
}

fn cast_risk(from: &DataType, to: &DataType) -> Risk {
    match (from, to) {
        (from, to) if from == to => Risk::Never,
        (DataType::Null, _) => Risk::Never,
        // Bytes need not be UTF-8.
        (DataType::Binary | DataType::BinaryView | DataType::LargeBinary, to) if is_text(to) => Risk::Fails,
        (_, to) if is_text(to) => Risk::Never,
        (from, to) if is_text(from) && !is_text(to) => Risk::Fails,
        (from, to) if wraps(from) && to.is_floating() => Risk::Never,
        (from, to) if from.is_integer() && to.is_integer() => {
            // A wider integer with the same kind of sign holds every value.
            if from.primitive_width() < to.primitive_width() && from.is_signed_integer() == to.is_signed_integer() {
                Risk::Never
            } else {
                Risk::Overflow
            }
        }
        (from, to) if (from.is_numeric() || is_decimal(from)) && (to.is_numeric() || is_decimal(to)) => Risk::Overflow,
        // The clocks may skip the local time.
        (from, DataType::Timestamp(_, Some(zone))) if may_come_twice(from, zone) => Risk::Fails,
        (from, to) if from.is_temporal() && (to.is_temporal() || to.is_integer()) => Risk::Overflow,
        _ => Risk::Fails,
    }
}

/// Plans the finished logical plan with its guards in force.
#[derive(Debug)]
pub(crate) struct GuardedPlanner;

#[async_trait]
impl QueryPlanner for GuardedPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
        // After the optimizer, which would move conditions apart again.
        let plan = plan.clone().transform_up_with_subqueries(guarded).data()?;
        DefaultPhysicalPlanner::default().create_physical_plan(&plan, state).await
    }
}

/// One node with the guards of its expressions in force.
fn guarded(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = match &plan.inputs()[..] {
        [] => return Ok(Transformed::no(plan)),
        inputs => merge_schema(inputs),
    };
    let plan = with_expressions(plan, |expr| lazy(expr, &schema))?;
    Ok(plan.update_data(|mut plan| {
        match &mut plan {
            // Conditions on rows may be reordered, since AND drops a row in any order; expressions among columns may
            // not be.
            LogicalPlan::Filter(filter) => filter.predicate = in_order(filter.predicate.clone(), &schema),
            LogicalPlan::Join(join) => join.filter = join.filter.take().map(|filter| in_order(filter, &schema)),
            _ => {}
        }
        plan
    }))
}

/// A condition on rows: those of its parts that never fail first, then the others by their risk, each only where all
/// before it hold. A part that is neither true nor false drops the row as a false one does.
fn in_order(condition: Expr, schema: &DFSchema) -> Expr {
    let mut parts: Vec<(Risk, Expr)> =
        split_conjunction_owned(condition.clone()).into_iter().map(|part| (risk(&part, schema), part)).collect();
    if parts.len() < 2 || parts.iter().all(|(risk, _)| *risk == Risk::Never) {
        return condition;
    }
    // A stable sort: parts of equal risk remain in the order of the statement.
    parts.sort_by_key(|(risk, _)| *risk);
    let first_risky = parts.partition_point(|(risk, _)| *risk == Risk::Never);
    let risky = parts.split_off(first_risky).into_iter().map(|(_, part)| part);
    // Nested from the last to the first: each condition is the WHEN of all that follow it.
    let chain = risky.rev().reduce(|then, part| only_where(part, then));
    match (conjunction(parts.into_iter().map(|(_, part)| part)), chain) {
        // The safe parts stand alone as well: files and pages are left out by them, and never by a CASE.
        (Some(safe), Some(chain)) => safe.clone().and(only_where(safe, chain)),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => condition,
    }
}

/// `then` where the guard holds, else false.
fn only_where(guard: Expr, then: Expr) -> Expr {
    let when_then_expr = vec![(Box::new(guard), Box::new(then))];
    Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(Box::new(lit(false))) })
}

/// Rewrites `AND` and `OR` whose right side may fail, so that it is computed only where the left does not decide, hides
/// casts that change the order of values from statistics, and rewrites aggregates as [`filtered`] does.
fn lazy(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right })
            if risk(&right, schema) > Risk::Never =>
        {
            Ok(lazy_logic(left, op, right, schema))
        }
        Expr::Cast(cast) if reorders(&cast, schema) => Ok(Transformed::yes(under_a_name(cast))),
        other => filtered(other, schema, Risk::Overflow),
    }
}

/// A condition by which files are left out, with its casts hidden from statistics where [`reorders`] is true.
pub(crate) fn unordered_casts_hidden(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    condition
        .transform_up(|expr| match expr {
            Expr::Cast(cast) if reorders(&cast, schema) => Ok(Transformed::yes(under_a_name(cast))),
            other => Ok(Transformed::no(other)),
        })
        .data()
}

/// Whether a cast changes the order of values: the engine takes the cast of the least value for the least cast one,
/// which holds for no cast from or to a text (`9 < 10`, but `'10' < '9'`). A cast inside a function is not taken so.
fn reorders(cast: &Cast, schema: &DFSchema) -> bool {
    let to = cast.field.data_type();
    // The time of day starts again every midnight, so that a later instant may have an earlier one.
    let is_time = matches!(to, DataType::Time32(_) | DataType::Time64(_));
    let is_constant = matches!(cast.expr.as_ref(), Expr::Literal(..));
    !is_constant
        && cast
            .expr
            .get_type(schema)
            .is_ok_and(|from| from != *to && (!is_number_or_time(&from) || !is_number_or_time(to) || is_time))
}

fn is_number_or_time(kind: &DataType) -> bool {
    kind.is_numeric() || kind.is_temporal()
}

/// An aggregate whose arguments of at least this risk are computed only for the rows its `FILTER` lets through.
fn filtered(expr: Expr, schema: &DFSchema, least: Risk) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(mut call) => {
            let Some(filter) = call.params.filter.take() else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            // The engine computes the arguments for whole batches and applies FILTER afterwards.
            let filter = in_order(*filter, schema);
            let keys = call.params.order_by.iter_mut().map(|key| &mut key.expr);
            for arg in call.params.args.iter_mut().chain(keys) {
                guard(arg, &filter, schema, least);
            }
            call.params.filter = Some(Box::new(filter));
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunctionDefinition::AggregateUDF(_) = &call.fun else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            let Some(filter) = call.params.filter.take() else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            let filter = in_order(*filter, schema);
            for arg in &mut call.params.args {
                guard(arg, &filter, schema, least);
            }
            call.params.filter = Some(Box::new(filter));
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Puts an argument of at least this risk behind the filter.
fn guard(arg: &mut Expr, filter: &Expr, schema: &DFSchema, least: Risk) {
    // Guarded already: by the analyzer, which runs this over the same call, or by a CASE of the statement with the
    // condition of this FILTER. Any other CASE does not protect the argument from it.
    let is_guarded = match arg {
        Expr::Case(Case { expr: None, when_then_expr, else_expr: None }) => {
            matches!(&when_then_expr[..], [(when, _)] if when.as_ref() == filter)
        }
        _ => false,
    };
    if !is_guarded && risk(arg, schema) >= least {
        let when_then_expr = vec![(Box::new(filter.clone()), Box::new(std::mem::take(arg)))];
        *arg = Expr::Case(Case { expr: None, when_then_expr, else_expr: None });
    }
}

fn lazy_logic(left: Box<Expr>, op: Operator, right: Box<Expr>, schema: &DFSchema) -> Transformed<Expr> {
    // The right side is written twice only for a left side that may be NULL.
    let is_nullable = left.nullable(schema).unwrap_or(true);
    if is_nullable && nodes(&right) > MAX_REPEATED_NODES {
        return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }));
    }
    // `NULL AND false` is false: where the left side is NULL, the right one still decides.
    let else_expr = is_nullable
        .then(|| Box::new(binary_expr(Expr::Literal(ScalarValue::Boolean(None), None), op, right.as_ref().clone())));
    // `true AND x` and `false OR x` are x; otherwise the left side decides alone.
    let (when_true, when_false) =
        if op == Operator::And { (right, Box::new(lit(false))) } else { (Box::new(lit(true)), right) };
    let when_then_expr = vec![(Box::new(lit(true)), when_true), (Box::new(lit(false)), when_false)];
    Transformed::yes(Expr::Case(Case { expr: Some(left), when_then_expr, else_expr }))
}

/// Ties a condition that may fail to the conditions before it where the optimizer would separate them: it computes a
/// condition on one table below a join, and one on group keys below the aggregate, before the others are computed.
#[derive(Debug)]
pub(crate) struct KeepGuards;

impl AnalyzerRule for KeepGuards {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(kept).data()
    }

    fn name(&self) -> &str {
        "keep_guards"
    }
}

/// One node with its guards tied.
fn kept(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Filter(mut filter) => {
            // Before the optimizer pushes parts of the filter below joins and aggregates (predicate push-down).
            filter.predicate = tied(filter.predicate, filter.input.schema());
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        // The optimizer moves parts of the condition of an inner join to its inputs.
        LogicalPlan::Join(mut join) if join.join_type == JoinType::Inner && join.filter.is_some() => {
            let schema = Arc::clone(&join.schema);
            join.filter = join.filter.map(|filter| tied(filter, &schema));
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        LogicalPlan::Aggregate(mut aggregate) => {
            let names = NamePreserver::new_for_projection();
            let schema = aggregate.input.schema();
            for call in &mut aggregate.aggr_expr {
                let name = names.save(call);
                // Common arguments may be computed once in a projection below the aggregate, out of reach of FILTER.
                let guarded = std::mem::take(call).transform_up(|expr| filtered(expr, schema, Risk::Fails))?;
                *call = if guarded.transformed { name.restore(guarded.data) } else { guarded.data };
            }
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn tied(condition: Expr, schema: &DFSchema) -> Expr {
    let parts = split_conjunction_owned(condition.clone());
    if parts.len() < 2 {
        return condition;
    }
    let mut before: Vec<Expr> = Vec::with_capacity(parts.len());
    let mut tied = Vec::with_capacity(parts.len());
    for part in parts {
        let is_plain = !part.contains_outer() && !has_subquery(&part);
        // A guard over the same tables moves together with the part and is put in front of it by `in_order`.
        let foreign = before.iter().filter(|guard| !is_about_the_same(guard, &part)).cloned();
        match conjunction(foreign) {
            Some(guard) if is_plain && risk(&part, schema) == Risk::Fails && !is_equality_of_two(&part) => {
                let arms = vec![(Box::new(lit(true)), Box::new(part))];
                let case =
                    Case { expr: Some(Box::new(guard)), when_then_expr: arms, else_expr: Some(Box::new(lit(false))) };
                tied.push(Expr::Case(case));
            }
            _ => {
                // Only a part that is not expected to fail may guard: it is computed wherever the other part is.
                if is_plain && risk(&part, schema) != Risk::Fails {
                    before.push(part.clone());
                }
                tied.push(part);
            }
        }
    }
    conjunction(tied).unwrap_or(condition)
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| {
        Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })
    .unwrap_or(true)
}

/// Whether the guard reads no other table than the part, so that the optimizer moves both to the same place.
fn is_about_the_same(guard: &Expr, part: &Expr) -> bool {
    let own = part.column_refs();
    guard.column_refs().iter().all(|column| own.iter().any(|other| other.relation == column.relation))
}

/// A key of a join: it is computed for both sides before the join, whatever conditions precede it.
fn is_equality_of_two(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let left = left.column_refs();
            let right = right.column_refs();
            !left.is_empty()
                && !right.is_empty()
                && left.iter().all(|column| right.iter().all(|other| column.relation != other.relation))
        }
        _ => false,
    }
}
