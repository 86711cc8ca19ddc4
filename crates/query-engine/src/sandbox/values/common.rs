//! One type for values that meet: in comparisons, `CASE`, set operations, joins and functions that choose a value. The
//! engine brings times to the coarser of two units, doubles to decimals, and compares intervals by their months before
//! their days before their hours. Here the types are made equal before its rules run, to one that loses nothing.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, not_impl_err};
use datafusion::logical_expr::expr::{AggregateFunctionParams, Case, Sort as SortKey, WindowFunctionParams};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Distinct, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Operator, Projection,
    Sort, TryCast, Union, Values, binary_expr, cast,
};
use datafusion::optimizer::AnalyzerRule;

use super::expressions::{MAX_REPEATED_NODES, nodes, with_expressions};
use super::floats::compares;
use super::kinds::is_decimal;
use super::{instants, lengths};

/// Functions that give one of their arguments, or compare them.
const CHOOSING: &[&str] = &["coalesce", "greatest", "least", "make_array", "nullif", "nvl"];
/// Functions that give the greater or lesser of some values.
const ORDERING: &[&str] = &["greatest", "least", "max", "min"];

/// Makes types equal where values meet.
#[derive(Debug)]
pub(super) struct CommonTypes;

impl AnalyzerRule for CommonTypes {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut is_changed = false;
        plan.transform_up_with_subqueries(|node| {
            let node = expressions(node)?.transform_data(inputs)?;
            is_changed |= node.transformed;
            // Operators above a change take over its types, up to the root.
            if is_changed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
        })
        .data()
    }

    fn name(&self) -> &str {
        "common_types"
    }
}

fn expressions(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    // Conditions move into scans later, in the optimizer.
    if matches!(plan, LogicalPlan::TableScan(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    with_expressions(plan, |expr| exact(expr, &schema))
}

/// The inputs and keys that one operator combines or compares by itself.
fn inputs(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => of_union(union),
        LogicalPlan::Join(join) => of_join(join),
        LogicalPlan::Values(values) => of_values(values),
        LogicalPlan::Sort(Sort { expr, input, fetch }) => {
            // An operator compares its own keys without an expression that could be rewritten.
            keys_not_ordered(&expr, input.schema())?;
            Ok(Transformed::no(LogicalPlan::Sort(Sort { expr, input, fetch })))
        }
        LogicalPlan::Aggregate(aggregate) => {
            none_grouped(&aggregate.group_expr, aggregate.input.schema())?;
            Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)))
        }
        LogicalPlan::Distinct(distinct) => {
            match &distinct {
                Distinct::All(input) => {
                    input.schema().fields().iter().try_for_each(|field| not_grouped(field.data_type()))?;
                }
                Distinct::On(on) => none_grouped(&on.on_expr, on.input.schema())?,
            }
            Ok(Transformed::no(LogicalPlan::Distinct(distinct)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn of_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let columns = union.schema.fields().len();
    let mut exact = Vec::with_capacity(columns);
    for nth in 0..columns {
        let types = union.inputs.iter().map(|input| input.schema().field(nth).data_type().clone());
        exact.push(exact_types(&types.collect::<Vec<_>>()));
    }
    if exact.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let mut inputs = Vec::with_capacity(union.inputs.len());
    // Columns of set operations are matched by position.
    for (at, input) in union.inputs.into_iter().enumerate() {
        inputs.push(with_casts(input, at, &exact)?);
    }
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
}

/// An input of a set operation in the types that its columns are brought to, which are given by column and input.
fn with_casts(input: Arc<LogicalPlan>, at: usize, exact: &[Option<Vec<DataType>>]) -> Result<Arc<LogicalPlan>> {
    let schema = Arc::clone(input.schema());
    let mut columns = Vec::with_capacity(exact.len());
    for (nth, (qualifier, field)) in schema.iter().enumerate() {
        let column = Expr::Column((qualifier, field).into());
        columns.push(match exact.get(nth).and_then(Option::as_ref).and_then(|types| types.get(at)) {
            // A projection casts the column under its old name.
            Some(to) if to != field.data_type() => {
                brought(column, field.data_type(), to).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => column,
        });
    }
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
}

/// `USING`, `INTERSECT` and `EXCEPT` compare columns by pairs.
fn of_join(join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut is_changed = false;
    let mut on = join.on.clone();
    for (left, right) in &mut on {
        let types = [left.get_type(join.left.schema())?, right.get_type(join.right.schema())?];
        // Keys of joins are compared by their bits in a hash table.
        types.iter().try_for_each(not_grouped)?;
        let Some(exact) = exact_types(&types) else { continue };
        *left = brought(std::mem::take(left), &types[0], &exact[0]);
        *right = brought(std::mem::take(right), &types[1], &exact[1]);
        is_changed = true;
    }
    if !is_changed {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    // Keys that are casts are no columns that USING could name.
    Ok(Transformed::yes(LogicalPlan::Join(Join { on, join_constraint: JoinConstraint::On, ..join })))
}

/// The planner has brought the values of a column to one type already; its casts are taken back.
fn of_values(mut values: Values) -> Result<Transformed<LogicalPlan>> {
    let empty = DFSchema::empty();
    let mut fields: Vec<Arc<Field>> = values.schema.fields().iter().cloned().collect();
    let mut is_changed = false;
    for (nth, field) in fields.iter_mut().enumerate() {
        let mut types = vec![field.data_type().clone()];
        for row in &values.values {
            // The type before the planner's cast; a value without one has the type of the column.
            if let Expr::Cast(Cast { expr, .. }) = &row[nth] {
                types.push(expr.get_type(&empty)?);
            }
        }
        let Some(exact) = exact_types(&types) else { continue };
        let to = exact[0].clone();
        for row in &mut values.values {
            row[nth] = match std::mem::take(&mut row[nth]) {
                // The value itself, where it has the type; otherwise the cast goes on top.
                Expr::Cast(Cast { expr, .. }) if expr.get_type(&empty)? == to => *expr,
                other => cast(other, to.clone()),
            };
        }
        *field = Arc::new(field.as_ref().clone().with_data_type(to));
        is_changed = true;
    }
    if is_changed {
        let fields = fields.into_iter().map(|field| (None, field)).collect();
        values.schema = Arc::new(DFSchema::new_with_metadata(fields, values.schema.metadata().clone())?);
    }
    Ok(Transformed::new_transformed(LogicalPlan::Values(values), is_changed))
}

/// For each of the types one that it is brought to, so that the engine's way to one type for all loses nothing; `None`
/// where it loses nothing anyway.
fn exact_types(types: &[DataType]) -> Option<Vec<DataType>> {
    // A decimal of the engine would cut the digits of a double. The nearest double loses least, as in Trino.
    let is_float = types.iter().any(DataType::is_floating) && types.iter().any(is_decimal);
    let timestamp = finest_of(types, |kind| if let DataType::Timestamp(unit, _) = kind { Some(*unit) } else { None });
    let duration = finest_of(types, |kind| if let DataType::Duration(unit) = kind { Some(*unit) } else { None });
    if !is_float && timestamp.is_none() && duration.is_none() {
        return None;
    }
    let exact = types.iter().map(|kind| match (kind, timestamp, duration) {
        (kind, ..) if is_float && kind.is_numeric() => DataType::Float64,
        // Only the unit changes. Times of different zones are left to the engine, which compares instants.
        (DataType::Timestamp(_, zone), Some(unit), _) => DataType::Timestamp(unit, zone.clone()),
        (DataType::Duration(_), _, Some(unit)) => DataType::Duration(unit),
        (other, ..) => other.clone(),
    });
    Some(exact.collect())
}

/// The finest unit of the types that have one; `None` where they have the same.
fn finest_of(types: &[DataType], unit: fn(&DataType) -> Option<TimeUnit>) -> Option<TimeUnit> {
    let units: Vec<TimeUnit> = types.iter().filter_map(unit).collect();
    let finest = units.iter().copied().max_by_key(instants::per_second)?;
    units.iter().any(|unit| *unit != finest).then_some(finest)
}

/// Brings the operands of one operation to types that lose nothing.
fn exact(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) || op == Operator::Minus => {
            Ok(match compared(&left, op, &right, schema)? {
                Some(exact) => Transformed::yes(exact),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Between(between) => of_between(between, schema),
        Expr::InList(mut list) => {
            // Constants first: a list that needs no cast of the column leaves its statistics usable.
            let mut is_changed = instants::exact_list(&mut list, schema);
            let mut all: Vec<&mut Expr> = std::iter::once(list.expr.as_mut()).chain(list.list.iter_mut()).collect();
            is_changed |= equal_lengths(&mut all, schema)?;
            is_changed |= one_type(&mut all, schema)?;
            if let Some(kept) = instants::kept_raised(&list.expr, &list.list, schema) {
                *list.expr = kept;
                is_changed = true;
            }
            Ok(Transformed::new_transformed(Expr::InList(list), is_changed))
        }
        Expr::Case(mut case) => {
            let is_changed = of_case(&mut case, schema)?;
            Ok(Transformed::new_transformed(Expr::Case(case), is_changed))
        }
        Expr::ScalarFunction(mut call) => {
            let name = call.func.name();
            if ORDERING.contains(&name) {
                call.args.iter().try_for_each(|arg| not_ordered(&arg.get_type(schema)?))?;
            }
            if name == "nullif" {
                none_grouped(&call.args, schema)?;
            }
            // The first argument of nvl2 is tested for NULL and not chosen.
            let from = if name == "nvl2" { 1 } else { 0 };
            let is_one = name == "nvl2" || CHOOSING.contains(&name);
            let mut args: Vec<&mut Expr> = call.args.iter_mut().skip(from).collect();
            let is_changed = is_one && one_type(&mut args, schema)?;
            Ok(Transformed::new_transformed(Expr::ScalarFunction(call), is_changed))
        }
        Expr::AggregateFunction(call) => {
            let AggregateFunctionParams { args, distinct, order_by, .. } = &call.params;
            of_calculation(call.func.name(), args, *distinct, order_by, schema)?;
            Ok(Transformed::no(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunctionParams { args, distinct, order_by, partition_by, .. } = &mut call.params;
            of_calculation(call.fun.name(), args, *distinct, order_by, schema)?;
            none_grouped(partition_by, schema)?;
            let is_changed = lengths_as_numbers(order_by, schema)?;
            Ok(Transformed::new_transformed(Expr::WindowFunction(call), is_changed))
        }
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let (expr, is_changed) = instants::by_its_clock(expr, &from, field.data_type());
            Ok(Transformed::new_transformed(Expr::Cast(Cast { expr, field }), is_changed))
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let (expr, is_changed) = instants::by_its_clock(expr, &from, field.data_type());
            Ok(Transformed::new_transformed(Expr::TryCast(TryCast { expr, field }), is_changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn of_between(Between { expr, negated, low, high }: Between, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let low_bound = compared(&expr, Operator::GtEq, &low, schema)?;
    let high_bound = compared(&expr, Operator::LtEq, &high, schema)?;
    if low_bound.is_none() && high_bound.is_none() {
        return Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high })));
    }
    if nodes(&expr) > MAX_REPEATED_NODES {
        return not_impl_err!("BETWEEN over so long an expression: name it in a subquery first");
    }
    // SQL: `x BETWEEN a AND b` is `x >= a AND x <= b`; the value is written twice.
    let above = low_bound.unwrap_or_else(|| expr.as_ref().clone().gt_eq(*low));
    let below = high_bound.unwrap_or_else(|| expr.lt_eq(*high));
    let both = above.and(below);
    Ok(Transformed::yes(if negated { Expr::Not(Box::new(both)) } else { both }))
}

fn of_case(case: &mut Case, schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    if let Some(base) = &mut case.expr {
        // The simple form compares its base with every WHEN.
        let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
        let mut compared: Vec<&mut Expr> = std::iter::once(base.as_mut()).chain(whens).collect();
        is_changed |= equal_lengths(&mut compared, schema)?;
        is_changed |= one_type(&mut compared, schema)?;
    }
    let arms = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
    let mut arms: Vec<&mut Expr> = arms.chain(case.else_expr.as_deref_mut()).collect();
    // `|` and not `||`: the arms must be rewritten in any case.
    Ok(one_type(&mut arms, schema)? | is_changed)
}

/// Whether some of the expressions had to be brought to another type.
fn one_type(exprs: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    let types = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let Some(exact) = exact_types(&types) else { return Ok(false) };
    for ((expr, kind), to) in exprs.iter_mut().zip(&types).zip(exact) {
        **expr = brought(std::mem::take(*expr), kind, &to);
    }
    Ok(true)
}

/// Puts lengths in the place of intervals that are compared for equality.
fn equal_lengths(exprs: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    let types = exprs.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>()?;
    // Differences of times alone are exact already.
    if !types.iter().any(lengths::is_interval) || !types.iter().all(|kind| lengths::has_length(kind) || kind.is_null())
    {
        return Ok(false);
    }
    for (expr, kind) in exprs.iter_mut().zip(&types).filter(|(_, kind)| lengths::has_length(kind)) {
        **expr = lengths::length(std::mem::take(*expr), kind)?;
    }
    Ok(true)
}

/// The operation over operands of types that lose nothing; `None` where the engine's own way is exact.
fn compared(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let Ok(l) = left.get_type(schema) else { return Ok(None) };
    let Ok(r) = right.get_type(schema) else { return Ok(None) };
    if op != Operator::Minus && (lengths::is_interval(&l) || lengths::is_interval(&r)) {
        // An interval beside another type: the engine refuses it with both names.
        if !lengths::has_length(&l) || !lengths::has_length(&r) {
            return Ok(None);
        }
        return Ok(Some(binary_expr(lengths::length(left.clone(), &l)?, op, lengths::length(right.clone(), &r)?)));
    }
    if compares(op)
        && let Some(exact) = instants::compared(left, op, right, (&l, &r))
    {
        return Ok(Some(exact));
    }
    // A constant keeps the column free of casts, by which files are left out: it is compared as it is, or as above.
    let is_time = matches!((&l, &r), (DataType::Timestamp(..), DataType::Timestamp(..)));
    if is_time && instants::is_exact_as_it_is(left, op, right, (&l, &r)) {
        return Ok(None);
    }
    if is_time && compares(op) {
        let left_kept = instants::kept_raised(left, [right], schema);
        let right_kept = instants::kept_raised(right, [left], schema);
        if left_kept.is_some() || right_kept.is_some() {
            let left = left_kept.unwrap_or_else(|| left.clone());
            let right = right_kept.unwrap_or_else(|| right.clone());
            return Ok(Some(binary_expr(left, op, right)));
        }
    }
    // Of differences only those of two times come here; numbers have operators of their own (`arithmetic`).
    let is_arithmetic = op == Operator::Minus && !is_time;
    let Some(exact) = exact_types(&[l.clone(), r.clone()]).filter(|_| !is_arithmetic) else { return Ok(None) };
    Ok(Some(binary_expr(brought(left.clone(), &l, &exact[0]), op, brought(right.clone(), &r, &exact[1]))))
}

/// Intervals are not ordered where their values must stay intervals: a month has no length.
fn not_ordered(kind: &DataType) -> Result<()> {
    if lengths::is_interval(kind) {
        return not_impl_err!(
            "the greatest, least or order of intervals: a month has no fixed length; subtract times instead"
        );
    }
    Ok(())
}

/// The engine has no frames over differences of times, not even the one of a window that names none.
fn lengths_as_numbers(keys: &mut [SortKey], schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    for key in keys {
        // Its count in one unit has the same order.
        if let DataType::Duration(_) = key.expr.get_type(schema)? {
            key.expr = cast(std::mem::take(&mut key.expr), DataType::Int64);
            is_changed = true;
        }
    }
    Ok(is_changed)
}

fn keys_not_ordered(keys: &[SortKey], schema: &DFSchema) -> Result<()> {
    keys.iter().try_for_each(|key| key.expr.get_type(schema).map_or(Ok(()), |kind| not_ordered(&kind)))
}

/// What an aggregate or window function compares.
fn of_calculation(name: &str, args: &[Expr], is_distinct: bool, order_by: &[SortKey], schema: &DFSchema) -> Result<()> {
    if ORDERING.contains(&name) {
        args.iter().try_for_each(|arg| not_ordered(&arg.get_type(schema)?))?;
    }
    if is_distinct {
        none_grouped(args, schema)?;
    }
    keys_not_ordered(order_by, schema)
}

fn none_grouped(keys: &[Expr], schema: &DFSchema) -> Result<()> {
    keys.iter().try_for_each(|key| match key {
        // A set of keys has no type itself.
        Expr::GroupingSet(sets) => {
            sets.distinct_expr().into_iter().try_for_each(|key| none_grouped(std::slice::from_ref(key), schema))
        }
        key => key.get_type(schema).map_or(Ok(()), |kind| not_grouped(&kind)),
    })
}

/// Refuses intervals as keys. The engine treats `1 day` and `24 hours` as two values in groups, distinct values and set
/// operations.
fn not_grouped(kind: &DataType) -> Result<()> {
    if lengths::is_interval(kind) {
        return not_impl_err!(
            "groups, distinct values, nullif and set operations of intervals: equal ones may be written in different units; use \
             seconds, or differences of times"
        );
    }
    Ok(())
}

/// The expression in another type.
fn brought(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    match (from, to) {
        (from, to) if from == to => expr,
        (DataType::Timestamp(..), DataType::Timestamp(unit, _)) => instants::raised(expr, *unit),
        _ => cast(expr, to.clone()),
    }
}
