//! The rows of an operator, joined with the results of its subqueries: one more column for each value, fewer rows for
//! each condition.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue, not_impl_err};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{Case, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, ident, lit, not, when,
};

use super::domain::{Domain, join_on_keys};
use super::pull::{Existence, bounds, existence, filtered};
use super::scope::{Outer, free, has, is_nested, named, subquery_in};
use super::{Unnesting, once};
use crate::sandbox::values::is_safe;

/// The rows so far.
pub(super) struct Rows<'a> {
    unnesting: &'a mut Unnesting,
    plan: LogicalPlan,
    /// The rows before the first subquery: where keys come from, so that one subquery is not run again for the keys of
    /// the next.
    base: LogicalPlan,
    /// The condition of the rows for which values are computed now: the arm of a `CASE` is taken for some rows only,
    /// and for the others its subqueries may fail.
    taken: Option<Expr>,
}

impl<'a> Rows<'a> {
    /// The rows of a plan for expressions with subqueries over it.
    ///
    /// # Errors
    /// The rows would be read twice, and are not the same each time.
    pub(super) fn new(unnesting: &'a mut Unnesting, plan: LogicalPlan, exprs: &[Expr]) -> Result<Self> {
        let plan = if needs_keys(unnesting, exprs)? { once::repeatable(unnesting, plan)? } else { plan };
        Ok(Self { unnesting, base: plan.clone(), plan, taken: None })
    }

    /// The rows with all their columns.
    pub(super) fn into_plan(self) -> LogicalPlan {
        self.plan
    }

    /// The rows with these columns only.
    pub(super) fn with_columns(self, columns: Vec<Expr>) -> Result<LogicalPlan> {
        // Semi and anti joins have added none.
        if self.plan.schema().fields().len() == columns.len() {
            return Ok(self.plan);
        }
        LogicalPlanBuilder::from(self.plan).project(columns)?.build()
    }

    /// Keeps the rows for which a condition with subqueries is true.
    pub(super) fn keep(&mut self, condition: Expr) -> Result<()> {
        match condition {
            Expr::Not(inner) => match *inner {
                // The negation moves into the subquery: an anti join is one operator, a mark join with a filter above
                // it two.
                Expr::Exists(exists) => self.keep(Expr::Exists(Exists { negated: !exists.negated, ..exists })),
                Expr::InSubquery(contained) => {
                    self.keep(Expr::InSubquery(InSubquery { negated: !contained.negated, ..contained }))
                }
                Expr::Not(inner) => self.keep(*inner),
                other => self.keep_where(not(other)),
            },
            Expr::Exists(Exists { subquery, negated }) => self.keep_existing(subquery, negated),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) if !negated => {
                // A filter drops NULL as it drops false, so that a semi join is enough here.
                let wanted = self.replace(*expr)?;
                let equal = self.compared(&wanted, Operator::Eq, &subquery)?;
                self.keep_existing(equal.holding()?, false)
            }
            Expr::InSubquery(InSubquery { expr, subquery, .. }) if pairs_of(&expr, &subquery).is_none() => {
                self.keep_missing(*expr, subquery)
            }
            other => self.keep_where(other),
        }
    }

    fn keep_where(&mut self, condition: Expr) -> Result<()> {
        let condition = self.replace(condition)?;
        // An empty plan is a placeholder, so that the rows are moved instead of copied.
        let below = std::mem::replace(&mut self.plan, LogicalPlanBuilder::empty(false).build()?);
        self.plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(below))?);
        Ok(())
    }

    /// `x NOT IN (…)` is true when no value is x, none is NULL, and x is not NULL or there is no value at all.
    fn keep_missing(&mut self, expr: Expr, subquery: Subquery) -> Result<()> {
        let wanted = self.replace(expr)?;
        let equal = self.compared(&wanted, Operator::Eq, &subquery)?;
        self.keep_existing(equal.holding()?, true)?;
        // A NULL among the values makes every miss unknown. A column declared without NULL saves the second anti
        // join.
        let value = only_column(&subquery);
        if subquery.subquery.schema().field(0).is_nullable() {
            self.keep_existing(within(subquery.clone(), value.is_null())?, true)?;
        }
        if self.is_nullable(&wanted)? {
            // `NULL NOT IN (…)` is true only where the subquery has no row.
            let none = not(self.exists(&subquery)?);
            self.keep_where(wanted.is_not_null().or(none))?;
        }
        Ok(())
    }

    fn keep_existing(&mut self, subquery: Subquery, negated: bool) -> Result<()> {
        match existence(Arc::unwrap_or_clone(subquery.subquery))? {
            Existence::Always => self.keep_where(lit(!negated)),
            Existence::Never => self.keep_where(lit(negated)),
            Existence::As(plan) if free(&plan).is_empty() => {
                let exists = has_rows(*plan)?;
                self.keep_where(if negated { not(exists) } else { exists })
            }
            Existence::As(plan) => {
                self.join(&plan, if negated { JoinType::LeftAnti } else { JoinType::LeftSemi })?;
                Ok(())
            }
        }
    }

    /// Joins the rows with a correlated subquery of which only the existence of rows counts; the alias of the right
    /// side.
    fn join(&mut self, plan: &LogicalPlan, kind: JoinType) -> Result<String> {
        self.check_scope(plan)?;
        let alias = self.unnesting.name("rows");
        let left = self.plan.clone();
        // Without an equality the engine has no hash join; a mark join permits no other condition beside. All others
        // join on keys.
        let pulled = self.unnesting.pull(plan)?.filter(|pulled| match kind {
            JoinType::LeftMark => pulled.is_by_equality(),
            _ => pulled.has_equality(),
        });
        self.plan = match pulled {
            Some(pulled) => pulled.joined_to(left, &alias, kind, self.unnesting)?,
            None => {
                let outer = free(plan);
                let left_keys: Vec<Column> = outer.iter().map(|(_, column)| column.clone()).collect();
                let domain = self.domain(outer)?;
                let pushed = self.unnesting.push(plan, &domain)?;
                let names: Vec<String> = left_keys.iter().map(|_| self.unnesting.name("key")).collect();
                let right = pushed.renamed(&names, None)?.alias(alias.as_str())?.build()?;
                join_on_keys(left, right, kind, &left_keys, &columns_of(&alias, &names))?
            }
        };
        Ok(alias)
    }

    fn domain(&mut self, outer: Vec<Outer>) -> Result<Domain> {
        let scope = [Arc::clone(self.base.schema())];
        // The rows before the first subquery are the cheaper source; a column that came with an earlier subquery is
        // not among them.
        let is_in_base = outer.iter().all(|(_, column)| has(&scope, column));
        let rows = if is_in_base { &self.base } else { &self.plan };
        let schema = rows.schema();
        match &self.taken {
            Some(taken) if taken.column_refs().iter().all(|column| schema.has_column(column)) => {
                // Keys of other rows would compute the subquery where the CASE guards it, and might fail there.
                let rows = LogicalPlanBuilder::from(rows.clone()).filter(taken.clone())?.build()?;
                self.unnesting.domain(&rows, outer)
            }
            _ => self.unnesting.domain(rows, outer),
        }
    }

    /// The expression with the values of its subqueries, under its name.
    pub(super) fn replace_named(&mut self, expr: Expr) -> Result<Expr> {
        let name = expr.qualified_name();
        named(self.replace(expr)?, name)
    }

    /// The expression with the values of its subqueries in their place. Those that read other rows stay.
    pub(super) fn replace(&mut self, expr: Expr) -> Result<Expr> {
        // Arms of CASE first. Within an arm its CASEs are left to the second pass, for the rows of the whole arm.
        let expr = expr.transform_down(|part| match part {
            Expr::Case(case) if self.taken.is_none() => {
                let case = Expr::Case(self.replace_arms(case)?);
                Ok(Transformed::new(case, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        expr.data()?
            // From the leaves up, since the operand of a subquery may itself contain subqueries.
            .transform_up(|part| self.replace_one(part))
            .data()
    }

    /// The value of one subquery; another expression as it is.
    fn replace_one(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let value = match expr {
            Expr::Exists(Exists { subquery, negated }) if self.is_ours(&subquery) => {
                let exists = self.exists(&subquery)?;
                if negated { not(exists) } else { exists }
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) if self.is_ours(&subquery) => {
                let found = self.any(*expr, Operator::Eq, &subquery)?;
                if negated { not(found) } else { found }
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) if self.is_ours(&subquery) => {
                // `x > ALL (…)` is `NOT x <= ANY (…)` (De Morgan), with the same unknown outcomes.
                match (quantifier, op.negate()) {
                    (SetQuantifier::Any, _) => self.any(*expr, op, &subquery)?,
                    (SetQuantifier::All, Some(opposite)) => not(self.any(*expr, opposite, &subquery)?),
                    (SetQuantifier::All, None) => return not_impl_err!("{op} ALL over a subquery"),
                }
            }
            Expr::ScalarSubquery(subquery) if !free(&subquery.subquery).is_empty() && self.is_ours(&subquery) => {
                self.value(&subquery)?
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(value))
    }

    /// Whether a subquery reads outer columns of these rows only.
    fn is_ours(&self, subquery: &Subquery) -> bool {
        let scope = [Arc::clone(self.plan.schema())];
        free(&subquery.subquery).iter().all(|(_, column)| has(&scope, column))
    }

    /// The arms of a `CASE` with the values of their subqueries, for the rows that take each.
    fn replace_arms(&mut self, mut case: Case) -> Result<Case> {
        // An arm is taken where its condition is true and every earlier one is false or NULL.
        let mut before: Vec<Expr> = Vec::new();
        for (when, then) in &mut case.when_then_expr {
            let when = when.as_ref().clone();
            let holds = match &case.expr {
                // The simple form compares the base with each WHEN.
                Some(base) => base.as_ref().clone().eq(when),
                None => when,
            };
            let taken = before.iter().cloned().map(Expr::is_not_true).chain([holds.clone()]);
            let taken = conjunction(taken);
            **then = self.replace_where(taken, std::mem::take(then.as_mut()))?;
            before.push(holds);
        }
        if let Some(otherwise) = &mut case.else_expr {
            let taken = conjunction(before.into_iter().map(Expr::is_not_true));
            **otherwise = self.replace_where(taken, std::mem::take(otherwise.as_mut()))?;
        }
        Ok(case)
    }

    fn replace_where(&mut self, taken: Option<Expr>, expr: Expr) -> Result<Expr> {
        // What stands around the `CASE` may guard its conditions, and they are computed for all rows here.
        let Some(taken) = taken.filter(|taken| self.is_plain(taken) && is_nested(&expr)) else { return Ok(expr) };
        self.taken = Some(taken);
        let replaced = self.replace(expr);
        self.taken = None;
        replaced
    }

    /// Whether a condition can be computed for every one of the rows.
    fn is_plain(&self, condition: &Expr) -> bool {
        is_safe(condition, self.base.schema())
            && !condition.is_volatile()
            && !condition.contains_outer()
            && !condition.exists(|part| Ok(subquery_in(part).is_some())).unwrap_or(true)
    }

    /// Whether the subquery has rows, as an expression.
    fn exists(&mut self, subquery: &Subquery) -> Result<Expr> {
        match existence(subquery.subquery.as_ref().clone())? {
            Existence::Always => Ok(lit(true)),
            Existence::Never => Ok(lit(false)),
            Existence::As(plan) if free(&plan).is_empty() => has_rows(*plan),
            Existence::As(plan) => {
                let alias = self.join(&plan, JoinType::LeftMark)?;
                Ok(Expr::Column(Column::new(Some(alias), "mark")))
            }
        }
    }

    /// `x op ANY (…)` with its three outcomes.
    fn any(&mut self, expr: Expr, op: Operator, subquery: &Subquery) -> Result<Expr> {
        let compared = self.compared(&expr, op, subquery)?;
        // Three outcomes from two questions: does a value compare as true, and could one, where a NULL is involved.
        let found = self.exists(&compared.holding()?)?;
        let unknown = lit(ScalarValue::Boolean(None));
        let mut perhaps = None;
        if pairs_of(&expr, subquery).is_some() {
            // A pair of rows is unknown where a part is NULL and no other part decides.
            perhaps = Some(self.exists(&within(compared.rows.clone(), compared.condition.clone().is_null())?)?);
        } else {
            // One of the two sides is NULL. A case that the schema rules out needs no join.
            if subquery.subquery.schema().field(0).is_nullable() {
                perhaps = Some(self.exists(&within(subquery.clone(), only_column(subquery).is_null())?)?);
            }
            if self.is_nullable(&expr)? {
                let some = expr.is_null().and(self.exists(subquery)?);
                perhaps = Some(match perhaps {
                    Some(null) => null.or(some),
                    None => some,
                });
            }
        }
        match perhaps {
            // True before unknown: `true OR NULL` is true.
            Some(perhaps) => when(found, lit(true)).when(perhaps, unknown).otherwise(lit(false)),
            None => Ok(found),
        }
    }

    /// The value of a correlated subquery, NULL where it has no row.
    fn value(&mut self, subquery: &Subquery) -> Result<Expr> {
        self.check_scope(&subquery.subquery)?;
        let outer = free(&subquery.subquery);
        let left_keys: Vec<Column> = outer.iter().map(|(_, column)| column.clone()).collect();
        let domain = self.domain(outer)?;
        let pushed = self.unnesting.push(&subquery.subquery, &domain)?;
        let alias = self.unnesting.name("rows");
        let value = self.unnesting.name("value");
        let names: Vec<String> = left_keys.iter().map(|_| self.unnesting.name("key")).collect();
        let mut rows = pushed.renamed(&names, Some(only_column(subquery).alias(value.clone())))?;
        // At most one row by its form needs no check when it runs.
        if !has_one_row(&subquery.subquery)? {
            rows = one_each(rows, &names, &value)?;
        }
        let right = rows.alias(alias.clone())?.build()?;
        let keys = columns_of(&alias, &names);
        // A left join: the value of a subquery without a row is NULL.
        self.plan = join_on_keys(self.plan.clone(), right, JoinType::Left, &left_keys, &keys)?;
        Ok(Expr::Column(Column::new(Some(alias), value)))
    }

    /// `x op v`, for the rows of the subquery whose value is v.
    fn compared(&self, expr: &Expr, op: Operator, subquery: &Subquery) -> Result<Compared> {
        let Some((rows, parts)) = pairs_of(expr, subquery) else {
            // A structure that was not written as a row; the engine would compare NULL in it as a value.
            if let DataType::Struct(_) = subquery.subquery.schema().field(0).data_type() {
                return not_impl_err!("a structure looked for in a subquery: write (a, b) IN (SELECT x, y …)");
            }
            let condition = binary_expr(self.seen_inside(expr)?, op, only_column(subquery));
            return Ok(Compared { rows: subquery.clone(), condition });
        };
        if op != Operator::Eq {
            return not_impl_err!("rows compared by {op} with a subquery: IN and NOT IN are");
        }
        let parts = parts.into_iter().map(|(x, value)| Ok(self.seen_inside(&x)?.eq(value)));
        let condition = conjunction(parts.collect::<Result<Vec<_>>>()?).unwrap_or_else(|| lit(true));
        Ok(Compared { rows, condition })
    }

    /// An expression over the rows, with its columns as the outer columns of a subquery.
    fn seen_inside(&self, expr: &Expr) -> Result<Expr> {
        let schema = self.plan.schema();
        expr.clone()
            .transform(|part| match &part {
                Expr::Column(column) => {
                    let (qualifier, field) = schema.qualified_field_from_column(column)?;
                    // Qualified, so that a column of the same name inside the subquery does not hide it.
                    let outer = Column::from((qualifier, field));
                    Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), outer)))
                }
                _ => Ok(Transformed::no(part)),
            })
            .data()
    }

    fn is_nullable(&self, expr: &Expr) -> Result<bool> {
        use datafusion::logical_expr::ExprSchemable;
        expr.nullable(self.plan.schema())
    }

    fn check_scope(&self, plan: &LogicalPlan) -> Result<()> {
        let scope = [Arc::clone(self.plan.schema())];
        match free(plan).into_iter().find(|(_, column)| !has(&scope, column)) {
            Some((_, column)) => not_impl_err!(
                "a subquery that reads `{}` of the query outside, which is not there any more at this place: select or \
                 group by it",
                column.flat_name()
            ),
            None => Ok(()),
        }
    }
}

/// Whether one of these reads its rows for their keys first, and so twice.
fn needs_keys(unnesting: &mut Unnesting, exprs: &[Expr]) -> Result<bool> {
    for expr in exprs {
        if expr.exists(|part| needs_own_keys(unnesting, part))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same of one expression; its operands are not searched.
fn needs_own_keys(unnesting: &mut Unnesting, expr: &Expr) -> Result<bool> {
    Ok(match expr {
        Expr::ScalarSubquery(subquery) => !free(&subquery.subquery).is_empty(),
        Expr::Exists(exists) => match existence(exists.subquery.subquery.as_ref().clone())? {
            // A join on the conditions of the subquery itself reads these rows once and needs no keys.
            Existence::As(plan) => !unnesting.pull(&plan)?.is_some_and(|pulled| pulled.is_by_equality()),
            Existence::Always | Existence::Never => false,
        },
        other => match subquery_in(other) {
            Some(subquery) => !unnesting.pull(&subquery.subquery)?.is_some_and(|pulled| pulled.is_by_equality()),
            None => false,
        },
    })
}

fn columns_of(table: &str, names: &[String]) -> Vec<Column> {
    names.iter().map(|name| Column::new(Some(table), name)).collect()
}

/// Whether an uncorrelated plan has rows, as the value of a subquery.
fn has_rows(plan: LogicalPlan) -> Result<Expr> {
    // One row answers the question; the engine stops reading there.
    let first = LogicalPlanBuilder::from(plan).limit(0, Some(1))?;
    let counted = first.aggregate(Vec::<Expr>::new(), [count_udaf().call(vec![lit(1_i64)]).alias("rows")])?;
    let plan = counted.project([ident("rows").gt(lit(0_i64)).alias("found")])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns: Vec::new(),
        spans: datafusion::common::Spans::new(),
    }))
}

/// The subquery with one more condition on its rows.
fn within(subquery: Subquery, condition: Expr) -> Result<Subquery> {
    let plan = filtered(Arc::unwrap_or_clone(subquery.subquery), split_conjunction_owned(condition))?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans })
}

fn only_column(subquery: &Subquery) -> Expr {
    Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)))
}

/// The rows of a subquery and how their value is compared with one outside.
struct Compared {
    rows: Subquery,
    condition: Expr,
}

impl Compared {
    /// The rows for which the comparison is true.
    fn holding(&self) -> Result<Subquery> {
        within(self.rows.clone(), self.condition.clone())
    }
}

/// `(a, b) IN (SELECT x, y …)` arrives as two structures; the rows of the subquery and the pairs to be compared.
fn pairs_of(expr: &Expr, subquery: &Subquery) -> Option<(Subquery, Vec<(Expr, Expr)>)> {
    let LogicalPlan::Projection(projection) = subquery.subquery.as_ref() else { return None };
    // `clauses` has written both sides as calls of `struct`.
    let [made] = &projection.expr[..] else { return None };
    let left = fields_of(expr)?;
    let right = fields_of(made)?;
    let rows = Subquery { subquery: Arc::clone(&projection.input), ..subquery.clone() };
    (left.len() == right.len()).then(|| (rows, left.iter().cloned().zip(right.iter().cloned()).collect()))
}

/// The fields of a structure that is made here.
fn fields_of(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == "struct" => Some(&call.args),
        _ => None,
    }
}

/// Whether a subquery has one row at most for each row outside.
fn has_one_row(plan: &LogicalPlan) -> Result<bool> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input)?,
        // A filter (HAVING) keeps one row or none.
        LogicalPlan::Filter(filter) => has_one_row(&filter.input)?,
        LogicalPlan::Sort(sort) => has_one_row(&sort.input)?,
        // The total of an aggregate without groups.
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Limit(limit) => matches!(bounds(limit)?, Some((_, Some(0 | 1)))),
        _ => false,
    })
}

/// The plan of a value, whose column may be NULL when there may be no row. The engine relies on the declaration of its
/// column. It keeps its name, by which the operators above refer to it.
pub(super) fn nullable_value(plan: LogicalPlan) -> Result<LogicalPlan> {
    // The optimizer turns `x IS NULL` into false where the schema declares x without NULL.
    if plan.schema().field(0).is_nullable() || always_has_a_row(&plan) {
        return Ok(plan);
    }
    let value = plan.schema().field(0).name().clone();
    let column = Expr::Column(Column::from(plan.schema().qualified_field(0))).alias(value.clone());
    one_each(LogicalPlanBuilder::from(plan).project([column])?, &[], &value)?.build()
}

fn always_has_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => always_has_a_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => always_has_a_row(&alias.input),
        LogicalPlan::Sort(sort) => always_has_a_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Values(_) => true,
        _ => false,
    }
}

/// One row for each key; more than one for a key fails when the query runs.
fn one_each(rows: LogicalPlanBuilder, keys: &[String], value: &str) -> Result<LogicalPlanBuilder> {
    let groups = keys.iter().map(ident).collect::<Vec<_>>();
    // An arbitrary row of each key and the number of its rows, which `only_row` checks.
    let calls = [
        count_udaf().call(vec![lit(1_i64)]).alias("count"),
        first_value_udaf().call(vec![ident(value)]).alias("first"),
    ];
    let only = once::only_row().call(vec![ident("count"), ident("first")]).alias(value);
    let columns = groups.iter().cloned().chain([only]).collect::<Vec<_>>();
    rows.aggregate(groups, calls)?.project(columns)
}
