//! Values that meet although their types have nothing in common: columns of set operations and arms of `CASE`, where
//! the engine would cast a number to a text to have one type for both, and structures, in which it compares NULL as a
//! value.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, NullEquality, Result, not_impl_err, plan_err};
use datafusion::logical_expr::expr::{Between, Case, InList};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};

use crate::sandbox::values::{is_decimal, per_second, scale};
use crate::types::sql_type;

/// Refuses a set operation over columns, and a `CASE` of values, whose types have nothing in common, and comparisons of
/// structures.
///
/// # Errors
/// A planning error that names the place and the types.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        check_node(node)?;
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                check_expression(part, &schema)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn check_expression(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            // The values of the arms become one column; the conditions are compared with the base or are truth
            // values.
            let arms = when_then_expr.iter().map(|(_, then)| then.as_ref()).chain(else_expr.as_deref());
            check_arms("CASE", arms, schema)?;
            expr.as_deref().map_or(Ok(()), |base| check_no_structure(base, schema))
        }
        // `nvl2(a, b, c)` tests a for NULL only and gives b or c.
        Expr::ScalarFunction(call) if call.func.name() == "nvl2" => {
            check_arms("nvl2", call.args.iter().skip(1), schema)
        }
        // `nullif(a, b)` compares a and b.
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => {
            call.args.iter().try_for_each(|arg| check_no_structure(arg, schema))
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq,
            ..
        // A structure is comparable with a structure only, so that one side is enough.
        }) => check_no_structure(left, schema),
        Expr::InList(InList { expr, .. }) | Expr::Between(Between { expr, .. }) => check_no_structure(expr, schema),
        _ => Ok(()),
    }
}

/// Refuses arms of different classes. A type that is not available yet is that of a column outside, which the engine
/// checks.
fn check_arms<'a>(what: &str, arms: impl Iterator<Item = &'a Expr>, schema: &DFSchema) -> Result<()> {
    let mut first: Option<DataType> = None;
    for kind in arms.filter_map(|arm| arm.get_type(schema).ok()).filter(|kind| class(kind).is_some()) {
        match &first {
            Some(known) if class(known) != class(&kind) => {
                return plan_err!(
                    "{what} gives {} in one place and {} in another: cast one of them",
                    sql_type(known).text,
                    sql_type(&kind).text
                );
            }
            Some(_) => {}
            None => first = Some(kind),
        }
    }
    Ok(())
}

fn check_no_structure(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr.get_type(schema) {
        Ok(DataType::Struct(_)) => {
            not_impl_err!("structures are not compared: compare their fields, or rows as (a, b) = (c, d)")
        }
        _ => Ok(()),
    }
}

fn check_node(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Union(union) => {
            // Before the analyzer: every input still has the types of the statement. Comparing all with the first is
            // enough, since classes are an equivalence.
            let Some((first, others)) = union.inputs.split_first() else { return Ok(()) };
            for other in others {
                for (nth, (l, r)) in first.schema().fields().iter().zip(other.schema().fields()).enumerate() {
                    check_pair(nth, l.data_type(), r.data_type())?;
                }
            }
            Ok(())
        }
        LogicalPlan::RecursiveQuery(recursion) => check_recursion(&recursion.recursive_term),
        // The planner writes INTERSECT and EXCEPT as these joins.
        LogicalPlan::Join(join)
            if join.null_equality == NullEquality::NullEqualsNull
                && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) =>
        {
            for (nth, (l, r)) in join.on.iter().enumerate() {
                check_pair(nth, &l.get_type(join.left.schema())?, &r.get_type(join.right.schema())?)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Refuses a recursion that loses values. The planner casts the columns of each round to the types of the first part.
/// Casts of the statement itself are calls of a function by now.
fn check_recursion(recursive: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Projection(projection) = recursive else { return Ok(()) };
    for (nth, column) in projection.expr.iter().enumerate() {
        // No cast: the types are equal already.
        let Expr::Cast(Cast { expr, field }) = column.clone().unalias() else { continue };
        let from = expr.get_type(projection.input.schema())?;
        let to = field.data_type();
        if !holds(to, &from) {
            return plan_err!(
                "column {} of the recursion begins as {} and goes on as {}: cast it in the first part",
                nth + 1,
                sql_type(to).text,
                sql_type(&from).text
            );
        }
    }
    Ok(())
}

/// Whether a cast gives the value itself, the nearest floating number, or fails.
fn holds(to: &DataType, from: &DataType) -> bool {
    match (from, to) {
        (DataType::Null, _) => true,
        // A narrower integer or decimal fails at the value that does not fit.
        (from, to) if from.is_integer() => to.is_integer() || to.is_floating() || is_decimal(to),
        (DataType::Float32, DataType::Float64) => true,
        // A coarser unit would cut digits without an error.
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => per_second(to) >= per_second(from),
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (from, to) => match (scale(from), scale(to)) {
            // Fewer digits after the point would round without an error.
            (Some(from), Some(to)) => from <= to,
            // A decimal as an integer would lose its fraction.
            (Some(_), None) => to.is_floating(),
            _ => class(from) == Some(Class::Text) && class(to) == Some(Class::Text),
        },
    }
}

fn check_pair(nth: usize, left: &DataType, right: &DataType) -> Result<()> {
    match (class(left), class(right)) {
        (Some(one), Some(other)) if one != other => plan_err!(
            "column {} is {} in one part of the set operation and {} in another: cast one of them",
            nth + 1,
            sql_type(left).text,
            sql_type(right).text
        ),
        _ => Ok(()),
    }
}

#[derive(PartialEq)]
enum Class {
    Number,
    Text,
    Truth,
    Time,
    Bytes,
    Other,
}

/// The class of a type; `None` for NULL, which fits every other.
fn class(kind: &DataType) -> Option<Class> {
    Some(match kind {
        DataType::Null => return None,
        DataType::Boolean => Class::Truth,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Class::Bytes,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Class::Time,
        DataType::Dictionary(_, value) => return class(value),
        kind if kind.is_numeric() => Class::Number,
        _ => Class::Other,
    })
}
