//! Names across the levels of a statement: which columns of the rows outside a subquery reads, and what they become
//! once those rows are part of it. A name belongs to the nearest level that has it (lexical scope), as in the planner.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, Sort as SortKey};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, Subquery, SubqueryAlias};

/// A column of the rows outside.
pub(super) type Outer = (FieldRef, Column);

/// The schemas in which the subqueries of one operator find their outer columns.
type Scope = Vec<DFSchemaRef>;

/// The subquery of an expression; its operands are not searched.
pub(super) fn subquery_in(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. })
        | Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// Whether an expression has a subquery that must be rewritten: every kind but the value of an uncorrelated one.
pub(super) fn is_nested(expr: &Expr) -> bool {
    let found = expr.exists(|part| {
        Ok(match part {
            // An uncorrelated value stays: the engine runs it once.
            Expr::ScalarSubquery(subquery) => !free(&subquery.subquery).is_empty(),
            other => subquery_in(other).is_some(),
        })
    });
    // The closure does not fail.
    found.unwrap_or(true)
}

/// The plan on the right of a join that may read columns of the left, and the alias it has.
pub(super) fn lateral(right: &LogicalPlan) -> Option<(&Subquery, Option<&SubqueryAlias>)> {
    match right {
        LogicalPlan::Subquery(subquery) => Some((subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((subquery, Some(alias))),
            _ => None,
        },
        _ => None,
    }
}

/// The columns of rows outside that a plan reads, each once.
pub(super) fn free(plan: &LogicalPlan) -> Vec<Outer> {
    let mut found = Free::default();
    found.plan(plan);
    found.outer
}

/// The columns of rows outside that an expression over `scope` reads, each once.
pub(super) fn free_in(expr: &Expr, scope: &[DFSchemaRef]) -> Vec<Outer> {
    let mut found = Free::default();
    found.expression(expr, scope);
    found.outer
}

/// The schemas of what an operator reads.
pub(super) fn scope_of(plan: &LogicalPlan) -> Scope {
    plan.inputs().into_iter().map(|input| Arc::clone(input.schema())).collect()
}

pub(super) fn has(scope: &[DFSchemaRef], column: &Column) -> bool {
    scope.iter().any(|schema| schema.has_column(column))
}

#[derive(Default)]
struct Free {
    scopes: Vec<Scope>,
    outer: Vec<Outer>,
}

impl Free {
    fn plan(&mut self, plan: &LogicalPlan) {
        let scope = scope_of(plan);
        // Neither closure fails.
        let _ = plan.apply_expressions(|expr| {
            self.expression(expr, &scope);
            Ok(TreeNodeRecursion::Continue)
        });
        if let LogicalPlan::Join(join) = plan
            && let Some((subquery, _)) = lateral(&join.right)
        {
            // The right side of a lateral join has the left side as its nearest level.
            self.plan(&join.left);
            self.within(vec![Arc::clone(join.left.schema())], &subquery.subquery);
            return;
        }
        for input in plan.inputs() {
            self.plan(input);
        }
    }

    fn within(&mut self, scope: Scope, plan: &LogicalPlan) {
        self.scopes.push(scope);
        self.plan(plan);
        self.scopes.pop();
    }

    fn expression(&mut self, expr: &Expr, scope: &[DFSchemaRef]) {
        let _ = expr.apply(|part| {
            // Not free if a level between here and the outside has the name.
            if let Expr::OuterReferenceColumn(field, column) = part
                && !self.scopes.iter().any(|scope| has(scope, column))
                && !self.outer.iter().any(|(_, known)| known == column)
            {
                self.outer.push((Arc::clone(field), column.clone()));
            }
            if let Some(subquery) = subquery_in(part) {
                // One level deeper: there the rows of this operator are outside.
                self.within(scope.to_vec(), &subquery.subquery);
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
}

/// What outer columns become once the rows outside are part of the plan.
pub(super) struct Binding {
    columns: HashMap<Column, Column>,
}

impl Binding {
    pub(super) fn new(outer: &[Outer], keys: &[Column]) -> Self {
        let columns = outer.iter().map(|(_, column)| column.clone()).zip(keys.iter().cloned());
        Self { columns: columns.collect() }
    }

    /// An expression of an operator over `scope` that has its outer columns beside its own; its name stays.
    pub(super) fn bind(&self, expr: Expr, scope: &[DFSchemaRef]) -> Result<Expr> {
        self.expression(expr, scope, &mut Vec::new())
    }

    /// The same for several expressions.
    pub(super) fn bind_all(&self, exprs: &[Expr], scope: &[DFSchemaRef]) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.bind(expr.clone(), scope)).collect()
    }

    /// The same for the keys of an order.
    pub(super) fn bind_order(&self, keys: &[SortKey], scope: &[DFSchemaRef]) -> Result<Vec<SortKey>> {
        keys.iter().map(|key| Ok(SortKey { expr: self.bind(key.expr.clone(), scope)?, ..key.clone() })).collect()
    }

    fn expression(&self, expr: Expr, scope: &[DFSchemaRef], scopes: &mut Vec<Scope>) -> Result<Expr> {
        // Saved before the change: operators above refer to the column by it.
        let name = expr.qualified_name();
        let bound = expr.transform_down(|part| match part {
            Expr::OuterReferenceColumn(field, column) => {
                // A level inside the expression hides a column of the rows outside.
                let is_nearer = scopes.iter().any(|scope| has(scope, &column));
                Ok(match self.columns.get(&column).filter(|_| !is_nearer) {
                    // Beside the key in one operator; inside a subquery of it, still one level out.
                    Some(key) if scopes.is_empty() => Transformed::yes(Expr::Column(key.clone())),
                    Some(key) => Transformed::yes(Expr::OuterReferenceColumn(field, key.clone())),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                })
            }
            part => with_subquery(part, |plan| {
                scopes.push(scope.to_vec());
                let bound = self.plan(plan, scopes);
                scopes.pop();
                bound
            }),
        });
        named(bound.data()?, name)
    }

    fn plan(&self, plan: LogicalPlan, scopes: &mut Vec<Scope>) -> Result<LogicalPlan> {
        let scope = scope_of(&plan);
        let left = match &plan {
            LogicalPlan::Join(join) if lateral(&join.right).is_some() => Some(Arc::clone(join.left.schema())),
            _ => None,
        };
        let mut nth = 0;
        let plan = plan.map_children(|child| {
            // A join lists its left input first and its right input second.
            nth += 1;
            let Some(left) = left.as_ref().filter(|_| nth == 2) else {
                return self.plan(child, scopes).map(Transformed::yes);
            };
            scopes.push(vec![Arc::clone(left)]);
            let bound = self.plan(child, scopes);
            scopes.pop();
            bound.map(Transformed::yes)
        });
        plan.data()?.map_expressions(|expr| self.expression(expr, &scope, scopes).map(Transformed::yes)).data()
    }
}

/// The expression under the name by which the operators above refer to it.
pub(super) fn named(
    expr: Expr,
    (relation, name): (Option<datafusion::common::TableReference>, String),
) -> Result<Expr> {
    if expr.qualified_name() == (relation.clone(), name.clone()) {
        return Ok(expr);
    }
    Ok(match relation {
        Some(relation) => expr.alias_qualified(Some(relation), name),
        None => expr.alias(name),
    })
}

/// The same expression over another subquery plan; as it is when it has none.
pub(super) fn with_subquery(
    expr: Expr,
    change: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<Transformed<Expr>> {
    Ok(Transformed::yes(match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            Expr::Exists(Exists { subquery: changed(subquery, change)?, negated })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            Expr::InSubquery(InSubquery { expr, subquery: changed(subquery, change)?, negated })
        }
        Expr::SetComparison(comparison) => {
            let subquery = changed(comparison.subquery, change)?;
            Expr::SetComparison(SetComparison { subquery, ..comparison })
        }
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(changed(subquery, change)?),
        other => return Ok(Transformed::no(other)),
    }))
}

fn changed(subquery: Subquery, change: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>) -> Result<Subquery> {
    let plan = change(Arc::unwrap_or_clone(subquery.subquery))?;
    // The node lists its outer columns, of which some are bound by now.
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans })
}

/// Whether the rows of the left of a join are all kept, so that what is pushed into the join must come from there.
pub(super) fn keeps_left(join_type: JoinType) -> bool {
    matches!(join_type, JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark)
}

pub(super) fn keeps_right(join_type: JoinType) -> bool {
    matches!(join_type, JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark)
}
