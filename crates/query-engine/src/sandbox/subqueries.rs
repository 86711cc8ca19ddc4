//! Subqueries as joins, before the engine plans them (ADR 22). The engine's own rules lose rows: they drop the NULL of
//! a correlated `NOT IN`, the row that an aggregate has over nothing, and the `OFFSET` of an `EXISTS`; in places other
//! than a filter they refuse subqueries. Every subquery but the value of an uncorrelated one is rewritten here, and
//! what cannot be is refused by name.
//!
//! ```text
//! x IN (…), x > ANY (…)  ─►  EXISTS (… WHERE v = x), and one more for NULL
//! EXISTS, plain          ─►  semi, anti or mark join on the subquery's own conditions       pull.rs
//! EXISTS, other          ─►  the same on keys, over the subquery for all keys at once       domain.rs
//! (SELECT …)             ─►  left join on keys, over the subquery for all keys at once      domain.rs
//! ```

mod domain;
mod once;
mod pull;
mod rows;
mod scope;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, not_impl_err};
use datafusion::logical_expr::expr::Sort as SortKey;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Sort};

use crate::error::QueryError;
use rows::Rows;
use scope::{free, free_in, has, is_nested, lateral, subquery_in};

/// Rewrites every subquery of a plan. Its columns stay as they are.
///
/// # Errors
/// A subquery that is not supported, by its name and with what to write instead.
pub(crate) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_subqueries(&plan)? {
        return Ok(plan);
    }
    Unnesting::default().rewrite(plan)
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(subquery_in(part).is_some()))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Most names that one statement is given: about as many operators are planned.
const MOST_NAMES: u32 = 1_000;

/// The rewriting of one statement: it numbers every name that it makes up.
#[derive(Default)]
struct Unnesting {
    names: u32,
}

impl Unnesting {
    /// A name that contains spaces, so that only a quoted identifier could be equal to it.
    fn name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what} of subquery {}", self.names)
    }

    /// Refuses a plan that grows too large. What replaces a subquery may read it more than once, so that nesting
    /// multiplies.
    fn check_size(&self) -> Result<()> {
        if self.names <= MOST_NAMES {
            return Ok(());
        }
        let error = QueryError::TooComplex {
            what: "columns and tables for its nested subqueries",
            found: self.names as usize,
            limit: MOST_NAMES as usize,
            at: None,
        };
        Err(DataFusionError::External(Box::new(error)))
    }

    /// From the outside to the inside: what an inner subquery reads from two levels up is one level up when its turn
    /// comes.
    fn rewrite(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        // Before each operator adds its names, so that a plan that multiplies is refused while it is still small.
        self.check_size()?;
        let plan = self.operator(plan)?;
        let plan = plan.map_children(|child| self.rewrite(child).map(Transformed::yes)).data()?;
        // Only values of uncorrelated subqueries are left. The engine runs each of them once.
        let values = plan.map_subqueries(|subquery| {
            let LogicalPlan::Subquery(mut value) = subquery else { return Ok(Transformed::no(subquery)) };
            let plan = self.rewrite(Arc::unwrap_or_clone(value.subquery))?;
            value.subquery = Arc::new(rows::nullable_value(plan)?);
            Ok(Transformed::yes(LogicalPlan::Subquery(value)))
        })?;
        // The column of such a value may have become nullable, which the operator above must declare as well.
        if values.transformed { values.data.recompute_schema() } else { Ok(values.data) }
    }

    /// Rewrites the subqueries in the expressions of one operator.
    fn operator(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Join(join) if lateral(&join.right).is_some() => {
                // The condition of the join that comes back may itself have subqueries.
                let joined = self.lateral_join(join)?;
                self.operator(joined)
            }
            plan if !has_nested(&plan)? => Ok(plan),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => self.inner_join(join),
            LogicalPlan::Join(join) => self.outer_join(join),
            plan @ (LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_)) => {
                self.over_values(plan)
            }
            LogicalPlan::Values(_) => not_impl_err!("a subquery in VALUES: write SELECT … UNION ALL SELECT … instead"),
            LogicalPlan::Limit(_) => not_impl_err!("a subquery in LIMIT or OFFSET: they take a constant"),
            other => not_impl_err!("a subquery in {}: put it into a WITH and join that", other.display()),
        }
    }

    fn filter(&mut self, filter: Filter) -> Result<LogicalPlan> {
        let columns = own_columns(filter.input.schema());
        let (nested, plain): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filter.predicate).into_iter().partition(is_nested);
        // Plain conditions go below the joins: fewer rows outside have fewer keys.
        let input = pull::filtered(Arc::unwrap_or_clone(filter.input), plain)?;
        let mut rows = Rows::new(self, input, &nested)?;
        for condition in nested {
            rows.keep(condition)?;
        }
        // The joins have added columns that do not belong to the schema of the filter.
        rows.with_columns(columns)
    }

    fn projection(&mut self, projection: Projection) -> Result<LogicalPlan> {
        let mut rows = Rows::new(self, Arc::unwrap_or_clone(projection.input), &projection.expr)?;
        let exprs = projection.expr.into_iter().map(|expr| rows.replace_named(expr)).collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(rows.into_plan()))?))
    }

    /// Subqueries of ORDER BY read columns of the table that the projection below no longer has.
    fn sort(&mut self, mut sort: Sort) -> Result<LogicalPlan> {
        let columns = own_columns(sort.input.schema());
        let exprs: Vec<Expr> = sort.expr.iter().map(|key| key.expr.clone()).collect();
        if let LogicalPlan::Projection(projection) = sort.input.as_ref() {
            let below = self.with_keys(projection, &mut sort.expr)?;
            sort.input = Arc::new(LogicalPlan::Projection(below));
        }
        if !sort.expr.iter().any(|key| is_nested(&key.expr)) {
            let sorted = LogicalPlanBuilder::from(LogicalPlan::Sort(sort));
            return sorted.project(columns)?.build();
        }
        let mut rows = Rows::new(self, Arc::unwrap_or_clone(sort.input), &exprs)?;
        for key in &mut sort.expr {
            key.expr = rows.replace(key.expr.clone())?;
        }
        sort.input = Arc::new(rows.into_plan());
        LogicalPlanBuilder::from(LogicalPlan::Sort(sort)).project(columns)?.build()
    }

    /// The projection with one more column for each key of the order above it that has subqueries over its rows.
    fn with_keys(&mut self, projection: &Projection, keys: &mut [SortKey]) -> Result<Projection> {
        let scope = [Arc::clone(projection.input.schema())];
        let mut projected = projection.expr.clone();
        for key in keys {
            let free = free_in(&key.expr, &[]);
            // A key that reads the rows below the projection is computed there, as a hidden column that the last
            // projection drops.
            if is_nested(&key.expr) && free.iter().all(|(_, column)| has(&scope, column)) {
                let name = self.name("order");
                let expr = over_projected(key.expr.clone(), projection)?;
                projected.push(expr.alias(name.clone()));
                key.expr = Expr::Column(datafusion::common::Column::new_unqualified(name));
            }
        }
        Projection::try_new(projected, Arc::clone(&projection.input))
    }

    /// An operator over rows that have the values of its subqueries as columns.
    fn over_values(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let columns = own_columns(plan.schema());
        let inputs = plan.inputs();
        // All operators that come here have one input.
        let [input] = inputs[..] else { return not_impl_err!("a subquery in {}", plan.display()) };
        let exprs = plan.expressions();
        let mut rows = Rows::new(self, input.clone(), &exprs)?;
        let changed = plan.map_expressions(|expr| rows.replace_named(expr).map(Transformed::yes)).data()?;
        let exprs = changed.expressions();
        // Built anew over the wider rows: the expressions are resolved against their schema.
        let plan = changed.with_new_exprs(exprs, vec![rows.into_plan()])?;
        LogicalPlanBuilder::from(plan).project(columns)?.build()
    }

    fn inner_join(&mut self, join: Join) -> Result<LogicalPlan> {
        let conditions = join.filter.map(split_conjunction_owned).unwrap_or_default();
        // An inner join keeps exactly the pairs that meet its condition, so that a filter above it is the same.
        let (nested, plain): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(is_nested);
        let joined = LogicalPlan::Join(Join { filter: conjunction(plain), ..join });
        match conjunction(nested) {
            Some(condition) => self.filter(Filter::try_new(condition, Arc::new(joined))?),
            // The conditions have no subquery, so that one of the join's keys has it.
            None => not_impl_err!("a subquery as a column to join by: name it in a WITH first"),
        }
    }

    /// The condition of an outer join decides which rows a row is joined with, not whether it is kept: its subqueries
    /// become columns of the side they read.
    fn outer_join(&mut self, mut join: Join) -> Result<LogicalPlan> {
        let columns = own_columns(&join.schema);
        let condition = join.filter.take();
        let exprs: Vec<Expr> = condition.iter().cloned().collect();
        // `replace` leaves the subqueries that read the other side, so that each is computed where its columns are.
        let mut left = Rows::new(self, Arc::unwrap_or_clone(join.left), &exprs)?;
        let condition = condition.map(|condition| left.replace(condition)).transpose()?;
        let left = left.into_plan();
        let mut right = Rows::new(self, Arc::unwrap_or_clone(join.right), &exprs)?;
        let condition = condition.map(|condition| right.replace(condition)).transpose()?;
        // One that reads both sides exists only for pairs of rows, before which no column can hold it.
        if condition.as_ref().is_some_and(is_nested) {
            return not_impl_err!(
                "a subquery in the condition of an outer join that reads columns of both sides: join one side with it first"
            );
        }
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right.into_plan()),
            join.on,
            condition,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
    }

    /// A join whose right side reads columns of the left: the right side for all of them at once, joined on them.
    fn lateral_join(&mut self, join: Join) -> Result<LogicalPlan> {
        let columns = own_columns(&join.schema);
        let Some((subquery, alias)) = lateral(&join.right) else { return Ok(LogicalPlan::Join(join)) };
        let alias = alias.map(|alias| alias.alias.clone());
        let scope = [Arc::clone(join.left.schema())];
        let outer = free(&subquery.subquery).into_iter().filter(|(_, column)| has(&scope, column)).collect::<Vec<_>>();
        // RIGHT and FULL keep rows of the right side without a row of the left, on which they depend here.
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return not_impl_err!("LATERAL in a {} join: only CROSS, INNER and LEFT JOIN LATERAL", join.join_type);
        }
        let subquery = Arc::clone(&subquery.subquery);
        // The left side is read twice: for its rows and for their keys.
        let left = once::repeatable(self, Arc::unwrap_or_clone(join.left))?;
        let left_keys: Vec<_> = outer.iter().map(|(_, column)| column.clone()).collect();
        let domain = self.domain(&left, outer)?;
        let mut right = self.push(&subquery, &domain)?;
        if let Some(alias) = alias {
            right = right.aliased(alias)?;
        }
        let joined = right.joined_to(left, &left_keys, join.join_type)?;
        let LogicalPlan::Join(mut joined) = joined else { return Ok(joined) };
        // The keys come first; then what the statement itself joins on.
        joined.on.extend(join.on);
        joined.filter = join.filter;
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
    }
}

fn has_nested(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= is_nested(expr);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn own_columns(schema: &datafusion::common::DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// An expression over the output of a projection as one over its input.
fn over_projected(expr: Expr, projection: &Projection) -> Result<Expr> {
    expr.transform(|part| match &part {
        Expr::Column(column) => match projection.schema.maybe_index_of_column(column) {
            Some(at) => Ok(Transformed::yes(projection.expr[at].clone().unalias())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })
    .data()
}
