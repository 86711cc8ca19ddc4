//! The columns of set operations: the engine would make a text of a number to have one type for both.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, NullEquality, Result, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::http::sql_type;

/// Refuses a set operation over columns whose types have nothing in common.
///
/// # Errors
/// A planning error that names the column and both types.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        check_node(node)?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

fn check_node(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Union(union) => {
            let Some((first, others)) = union.inputs.split_first() else { return Ok(()) };
            for other in others {
                for (nth, (l, r)) in first.schema().fields().iter().zip(other.schema().fields()).enumerate() {
                    check_pair(nth, l.data_type(), r.data_type())?;
                }
            }
            Ok(())
        }
        // INTERSECT and EXCEPT.
        LogicalPlan::Join(join)
            if join.null_equality == NullEquality::NullEqualsNull
                && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti) =>
        {
            let kind = |expr: &Expr, plan: &LogicalPlan| expr.get_type(plan.schema());
            for (nth, (l, r)) in join.on.iter().enumerate() {
                check_pair(nth, &kind(l, &join.left)?, &kind(r, &join.right)?)?;
            }
            Ok(())
        }
        _ => Ok(()),
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

/// `None` for what fits every other.
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
