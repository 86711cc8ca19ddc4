//! Expressions: how large they are, and how the rules rewrite them.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Largest expression that is written twice: to keep `NULL AND false` false, or to compare exactly. An expression that
/// repeats itself at every level doubles with each.
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

/// The node with its own expressions rewritten, from their leaves up. What changes keeps its name: nodes above refer to
/// it by that.
pub(super) fn with_expressions(
    node: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| match expr {
        // Each key keeps its own name. An alias around all of them would be one key, which no operator computes.
        Expr::GroupingSet(_) => expr.map_children(|key| under_its_name(key, &names, &mut rewrite)),
        other => under_its_name(other, &names, &mut rewrite),
    })
}

/// The expression rewritten, with the name that it has before.
fn under_its_name(
    expr: Expr,
    names: &NamePreserver,
    rewrite: &mut impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    let name = names.save(&expr);
    // From the leaves up: the operands that a rule receives have been rewritten already.
    let rewritten = expr.transform_up(rewrite)?;
    Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
}
