//! The engine's optimizer without the rules that turn a correct plan into a wrong answer (ADR 22).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::prelude::SessionConfig;

/// The logical rules. Two of them add `a = b` as a key to a join that treats two NULLs as equal, where it is then true
/// of two NULLs.
pub(crate) fn logical() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let rules = Optimizer::new().rules.into_iter();
    rules
        .map(|rule| match rule.name() {
            "extract_equijoin_predicate" | "eliminate_cross_join" => {
                Arc::new(WithoutNullEquality { rule }) as Arc<dyn OptimizerRule + Send + Sync>
            }
            _ => rule,
        })
        .collect()
}

/// Switches off limits that are pushed into an aggregate through a window or a union: both then miss groups that they
/// need.
pub(crate) fn switch_off(config: &mut SessionConfig) {
    let optimizer = &mut config.options_mut().optimizer;
    // The price, from ADR 22: `ORDER BY max(…) LIMIT n` reads every group before it sorts.
    optimizer.enable_topk_aggregation = false;
    optimizer.enable_window_limits = false;
}

/// A rule that leaves joins alone that treat two NULLs as equal.
#[derive(Debug)]
struct WithoutNullEquality {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
}

impl OptimizerRule for WithoutNullEquality {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let is_affected = match &plan {
            LogicalPlan::Join(join) if self.apply_order().is_some() => {
                // The rule takes one node at a time and moves equalities of its filter into its keys. Without a
                // filter it has nothing to move.
                takes_null_for_equal(&plan) && join.filter.is_some()
            }
            // The rule walks the plan by itself and merges inner joins, so that one such join anywhere below is enough.
            other if self.apply_order().is_none() => other.exists(|node| Ok(takes_null_for_equal(node)))?,
            other => takes_null_for_equal(other),
        };
        if is_affected {
            return Ok(Transformed::no(plan));
        }
        self.rule.rewrite(plan, config)
    }
}

fn takes_null_for_equal(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Join(join) = plan else { return false };
    // `INTERSECT` and `EXCEPT` are semi and anti joins of this kind. There NULL equals NULL on purpose, and the
    // planner gives them no filter.
    join.null_equality == NullEquality::NullEqualsNull
        && matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}
