//! Expressions: how large they are, and the ones that rules write.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};

/// Largest expression that is written twice: to keep `NULL AND false` false, or to compare exactly. What repeats itself within itself
/// doubles with every level.
pub(super) const MAX_REPEATED_NODES: usize = 200;

/// The nodes of an expression, itself included.
pub(super) fn nodes(expr: &Expr) -> usize {
    let mut count = 0;
    // The visit itself never fails.
    let _ = expr.apply(|_| {
        count += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    count
}

/// `CAST(expr AS to)`
pub(super) fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// `left op right`
pub(super) fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}
