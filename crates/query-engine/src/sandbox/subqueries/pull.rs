//! The plain form of a subquery of which only the existence of rows counts: filters over inner joins over tables. The
//! conditions on outer columns are taken out of it, so that they can become the condition of a join with the rows
//! outside.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, NullEquality, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, FetchType, Filter, Join, JoinConstraint, JoinType, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, Projection, SkipType, SubqueryAlias, lit,
};

use super::Unnesting;
use super::scope::{free, free_in, lateral, scope_of, subquery_in};

/// A subquery without its conditions on outer columns.
pub(super) struct Pulled {
    plan: LogicalPlan,
    /// Over the columns of the plan and outer ones.
    conditions: Vec<Expr>,
}

/// The engine runs a join on equalities as a hash join. It may exchange the sides of other joins; it then reads columns
/// of the wrong side, or cannot plan the join.
impl Pulled {
    /// Whether every condition compares a value of the subquery with one outside.
    pub(super) fn is_by_equality(&self) -> bool {
        self.conditions.iter().all(is_equality)
    }

    /// Whether one condition does.
    pub(super) fn has_equality(&self) -> bool {
        self.conditions.iter().any(is_equality)
    }

    /// The subquery, under an alias, joined to the rows outside on its conditions.
    pub(super) fn joined_to(
        self,
        left: LogicalPlan,
        alias: &str,
        kind: JoinType,
        unnesting: &mut Unnesting,
    ) -> Result<LogicalPlan> {
        // Only the columns that the conditions read are projected, under new names that no column outside has.
        let mut columns: Vec<Expr> = Vec::new();
        let conditions = self.conditions.into_iter().map(|condition| {
            let over_right = replace_columns(condition, |column| {
                let name = unnesting.name("column");
                columns.push(Expr::Column(column.clone()).alias(name.clone()));
                Ok(Column::new(Some(alias), name))
            })?;
            let outside = over_right.transform(|part| match part {
                // Outside of the subquery the column is one of the left side.
                Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
                other => Ok(Transformed::no(other)),
            });
            outside.data()
        });
        let condition = conjunction(conditions.collect::<Result<Vec<_>>>()?);
        // A projection keeps one column, whatever its value: rows count, not what they hold.
        if columns.is_empty() {
            columns.push(lit(true).alias(unnesting.name("column")));
        }
        let right = LogicalPlanBuilder::from(self.plan).project(columns)?.alias(alias)?.build()?;
        Ok(LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            Vec::new(),
            condition,
            kind,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?))
    }
}

fn is_equality(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    (is_inside(left) && is_outside(right)) || (is_outside(left) && is_inside(right))
}

fn is_inside(expr: &Expr) -> bool {
    !expr.contains_outer() && !expr.column_refs().is_empty()
}

fn is_outside(expr: &Expr) -> bool {
    expr.contains_outer() && expr.column_refs().is_empty()
}

/// Whether a subquery has rows, as far as its form decides it.
pub(super) enum Existence {
    Always,
    Never,
    /// As this plan has, whatever columns it has.
    As(Box<LogicalPlan>),
}

/// Removes what does not change whether there are rows.
///
/// # Errors
/// A limit that is negative.
pub(super) fn existence(plan: LogicalPlan) -> Result<Existence> {
    Ok(match plan {
        // Columns, names, duplicates, order and windows change no count from zero to more, nor back.
        LogicalPlan::Projection(Projection { input, .. })
        | LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. })
        | LogicalPlan::Distinct(Distinct::All(input)) => existence(Arc::unwrap_or_clone(input))?,
        LogicalPlan::Distinct(Distinct::On(distinct)) => existence(Arc::unwrap_or_clone(distinct.input))?,
        // A sort that fetches is a limit.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => existence(Arc::unwrap_or_clone(sort.input))?,
        LogicalPlan::Window(window) => existence(Arc::unwrap_or_clone(window.input))?,
        LogicalPlan::Limit(limit) => match bounds(&limit)? {
            // `LIMIT 0` never has a row. Without OFFSET any other limit keeps the first one. OFFSET may skip them all
            // and stays.
            Some((_, Some(0))) => Existence::Never,
            Some((0, _)) => existence(Arc::unwrap_or_clone(limit.input))?,
            _ => Existence::As(Box::new(LogicalPlan::Limit(limit))),
        },
        // A total is a row also over nothing; a group exists where there is a row.
        LogicalPlan::Aggregate(aggregate) if has_total(&aggregate.group_expr) => Existence::Always,
        LogicalPlan::Aggregate(aggregate) => existence(Arc::unwrap_or_clone(aggregate.input))?,
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Existence::Always,
        LogicalPlan::EmptyRelation(_) => Existence::Never,
        other => Existence::As(Box::new(other)),
    })
}

/// Skipped and fetched rows of a limit; `None` when they are no constants.
///
/// # Errors
/// One of them is negative.
pub(super) fn bounds(limit: &Limit) -> Result<Option<(usize, Option<usize>)>> {
    Ok(match (limit.get_skip_type()?, limit.get_fetch_type()?) {
        (SkipType::Literal(skip), FetchType::Literal(fetch)) => Some((skip, fetch)),
        _ => None,
    })
}

/// Whether an aggregation has a row over everything, which is there also when nothing is.
pub(super) fn has_total(group_exprs: &[Expr]) -> bool {
    use datafusion::logical_expr::GroupingSet;
    // True of no groups at all, which is the plain total. Sets are multiplied (SQL: GROUP BY a, ROLLUP(b)), so that
    // all must have the empty one.
    group_exprs.iter().all(|expr| match expr {
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => sets.iter().any(Vec::is_empty),
        Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_)) => true,
        _ => false,
    })
}

impl Unnesting {
    /// `None` when the subquery is not plain.
    pub(super) fn pull(&mut self, plan: &LogicalPlan) -> Result<Option<Pulled>> {
        // Nothing below reads a row outside.
        if free(plan).is_empty() {
            return Ok(Some(Pulled { plan: plan.clone(), conditions: Vec::new() }));
        }
        match plan {
            LogicalPlan::Filter(filter) => self.pull_filter(filter),
            LogicalPlan::Projection(projection) => self.pull_projection(projection),
            LogicalPlan::SubqueryAlias(alias) if lateral(plan).is_none() => self.pull_alias(alias),
            LogicalPlan::Join(join) => self.pull_join(join),
            // Dropped, since for existence neither duplicates nor order count.
            LogicalPlan::Distinct(Distinct::All(input)) => self.pull(input),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.pull(&sort.input),
            // Limits, aggregates and windows work on the rows of one key; `domain` does them per key.
            _ => Ok(None),
        }
    }

    fn pull_filter(&mut self, filter: &Filter) -> Result<Option<Pulled>> {
        let Some(Pulled { plan, mut conditions }) = self.pull(&filter.input)? else { return Ok(None) };
        let scope = [Arc::clone(filter.input.schema())];
        let mut own = Vec::new();
        for condition in split_conjunction_owned(filter.predicate.clone()) {
            if free_in(&condition, &scope).is_empty() {
                own.push(condition);
            } else if has_subquery(&condition) {
                return Ok(None);
            } else {
                conditions.push(condition);
            }
        }
        Ok(Some(Pulled { plan: filtered(plan, own)?, conditions }))
    }

    fn pull_projection(&mut self, projection: &Projection) -> Result<Option<Pulled>> {
        let scope = [Arc::clone(projection.input.schema())];
        if projection.expr.iter().any(|expr| !free_in(expr, &scope).is_empty()) {
            return Ok(None);
        }
        let Some(Pulled { plan, conditions }) = self.pull(&projection.input)? else { return Ok(None) };
        // A condition that moves above the projection takes the columns that it reads with it, as additional ones.
        let mut exprs = projection.expr.clone();
        let conditions = conditions.into_iter().map(|condition| {
            replace_columns(condition, |column| {
                let name = self.name("column");
                exprs.push(Expr::Column(column.clone()).alias(name.clone()));
                Ok(Column::new_unqualified(name))
            })
        });
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
        Ok(Some(Pulled { plan, conditions }))
    }

    fn pull_alias(&mut self, alias: &SubqueryAlias) -> Result<Option<Pulled>> {
        let Some(Pulled { plan, conditions }) = self.pull(&alias.input)? else { return Ok(None) };
        let below = Arc::clone(plan.schema());
        let aliased = SubqueryAlias::try_new(Arc::new(plan), alias.alias.clone())?;
        let conditions = conditions.into_iter().map(|condition| {
            // By position: an alias changes the qualifiers of columns, not their order.
            replace_columns(condition, |column| {
                Ok(Column::from(aliased.schema.qualified_field(position(&below, column)?)))
            })
        });
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        Ok(Some(Pulled { plan: LogicalPlan::SubqueryAlias(aliased), conditions }))
    }

    fn pull_join(&mut self, join: &Join) -> Result<Option<Pulled>> {
        let whole = LogicalPlan::Join(join.clone());
        let scope = scope_of(&whole);
        if lateral(&join.right).is_some() || join.on.iter().any(|(l, r)| has_free(l, &scope) || has_free(r, &scope)) {
            return Ok(None);
        }
        let Some(left) = self.pull(&join.left)? else { return Ok(None) };
        let filters = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
        let (outer, own): (Vec<Expr>, Vec<Expr>) = filters.into_iter().partition(|filter| has_free(filter, &scope));
        let right = match join.join_type {
            JoinType::Inner => self.pull(&join.right)?,
            // Only conditions of the left side may move above such a join. Above it, one of the right side would drop
            // rows that are kept here.
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti
                if free(&join.right).is_empty() && outer.is_empty() =>
            {
                self.pull(&join.right)?
            }
            _ => None,
        };
        let Some(right) = right else { return Ok(None) };
        if outer.iter().any(has_subquery) {
            return Ok(None);
        }
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            join.on.clone(),
            conjunction(own),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let conditions = left.conditions.into_iter().chain(right.conditions).chain(outer).collect();
        Ok(Some(Pulled { plan, conditions }))
    }
}

pub(super) fn position(schema: &DFSchema, column: &Column) -> Result<usize> {
    schema.index_of_column(column)
}

fn has_free(expr: &Expr, scope: &[datafusion::common::DFSchemaRef]) -> bool {
    !free_in(expr, scope).is_empty()
}

fn has_subquery(expr: &Expr) -> bool {
    // The closure does not fail.
    expr.exists(|part| Ok(subquery_in(part).is_some())).unwrap_or(true)
}

pub(super) fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    match conjunction(conditions) {
        Some(condition) => LogicalPlanBuilder::from(plan).filter(condition)?.build(),
        None => Ok(plan),
    }
}

/// The expression over other columns.
fn replace_columns(expr: Expr, mut change: impl FnMut(&Column) -> Result<Column>) -> Result<Expr> {
    expr.transform(|part| match part {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(change(&column)?))),
        other => Ok(Transformed::no(other)),
    })
    .data()
}
