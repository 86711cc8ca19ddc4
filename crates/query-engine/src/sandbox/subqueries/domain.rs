//! A subquery for all rows outside at once: the distinct values of the outer columns it reads, its *keys*, are joined
//! to it at its leaves, and every operator above works per key. `LIMIT` becomes a row number per key, an aggregate is
//! grouped by the keys and has its row also for a key without rows. After T. Neumann and A. Kemper, "Unnesting
//! Arbitrary Queries", BTW 2015.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, JoinType, NullEquality, Result, ScalarValue, TableReference,
    not_impl_err,
};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Sort as SortKey, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, EmptyRelation, Expr, Filter, Join, JoinConstraint, Limit, LogicalPlan,
    LogicalPlanBuilder, Projection, SubqueryAlias, Union, Window, WindowFrame, lit, when,
};

use super::Unnesting;
use super::pull::{bounds, has_total, position};
use super::scope::{Binding, Outer, free, keeps_left, keeps_right, lateral, named, scope_of};

/// The distinct values of outer columns.
pub(super) struct Domain {
    plan: LogicalPlan,
    outer: Vec<Outer>,
    names: Vec<String>,
}

/// A plan for all keys at once.
pub(super) struct Pushed {
    plan: LogicalPlan,
    /// The columns of the plan that are the keys, in the order of [`Domain::outer`].
    keys: Vec<Column>,
}

impl Pushed {
    /// The plan without keys.
    fn without_keys(plan: &LogicalPlan) -> Self {
        Self { plan: plan.clone(), keys: Vec::new() }
    }

    /// The plan under an alias.
    pub(super) fn aliased(self, alias: TableReference) -> Result<Self> {
        let below = Arc::clone(self.plan.schema());
        let aliased = SubqueryAlias::try_new(Arc::new(self.plan), alias)?;
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            keys.push(Column::from(aliased.schema.qualified_field(position(&below, key)?)));
        }
        Ok(Self { plan: LogicalPlan::SubqueryAlias(aliased), keys })
    }

    /// The keys under these names, followed by one more column over the plan if `more` is given.
    pub(super) fn renamed(self, names: &[String], more: Option<Expr>) -> Result<LogicalPlanBuilder> {
        let keys = self.keys.into_iter().zip(names).map(|(key, name)| Expr::Column(key).alias(name));
        LogicalPlanBuilder::from(self.plan).project(keys.chain(more).collect::<Vec<_>>())
    }

    /// The plan joined to the rows outside on its keys.
    pub(super) fn joined_to(self, left: LogicalPlan, left_keys: &[Column], kind: JoinType) -> Result<LogicalPlan> {
        join_on_keys(left, self.plan, kind, left_keys, &self.keys)
    }
}

impl Unnesting {
    /// The distinct values of `outer` among the rows of `base`.
    pub(super) fn domain(&mut self, base: &LogicalPlan, outer: Vec<Outer>) -> Result<Domain> {
        let names: Vec<String> = outer.iter().map(|_| self.name("key")).collect();
        let columns = outer.iter().zip(&names).map(|((_, column), name)| Expr::Column(column.clone()).alias(name));
        // Deduplicated: rows outside that agree in these columns share one evaluation of the subquery.
        let plan = LogicalPlanBuilder::from(base.clone()).project(columns.collect::<Vec<_>>())?.distinct()?.build()?;
        Ok(Domain { plan, outer, names })
    }

    /// The keys by themselves.
    fn keys(&mut self, domain: &Domain) -> Result<Pushed> {
        let alias = self.name("keys");
        let plan = LogicalPlanBuilder::from(domain.plan.clone()).alias(alias.clone())?.build()?;
        let keys = domain.names.iter().map(|name| Column::new(Some(alias.clone()), name)).collect();
        Ok(Pushed { plan, keys })
    }

    /// The plan for all keys at once. Its own columns keep their names.
    ///
    /// # Errors
    /// An operator that cannot be done per key.
    pub(super) fn push(&mut self, plan: &LogicalPlan, domain: &Domain) -> Result<Pushed> {
        if free(plan).is_empty() {
            let Pushed { plan: all, keys } = self.keys(domain)?;
            // An uncorrelated leaf is the same for every key (cross join). A SELECT without FROM is one row per key:
            // the keys themselves.
            let is_one_row = matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row);
            let plan =
                if is_one_row { all } else { LogicalPlanBuilder::from(plan.clone()).cross_join(all)?.build()? };
            return Ok(Pushed { plan, keys });
        }
        match plan {
            LogicalPlan::Filter(filter) => {
                let Pushed { plan, keys } = self.push(&filter.input, domain)?;
                let scope = [Arc::clone(filter.input.schema())];
                let predicate = Binding::new(&domain.outer, &keys).bind(filter.predicate.clone(), &scope)?;
                Ok(Pushed { plan: LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?), keys })
            }
            LogicalPlan::Projection(projection) => {
                let pushed = self.push(&projection.input, domain)?;
                project(pushed, &projection.expr, projection.input.schema(), domain)
            }
            LogicalPlan::SubqueryAlias(alias) if lateral(plan).is_none() => {
                self.push(&alias.input, domain)?.aliased(alias.alias.clone())
            }
            LogicalPlan::Aggregate(aggregate) => self.push_aggregate(aggregate, domain),
            LogicalPlan::Window(window) => self.push_window(window, domain),
            // The order of a subquery matters only to its limit. `push_limit` takes it from below the limit.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.push(&sort.input, domain),
            LogicalPlan::Limit(limit) => self.push_limit(limit, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                // The keys are columns, so that rows stay distinct per key.
                let Pushed { plan, keys } = self.push(input, domain)?;
                Ok(Pushed { plan: LogicalPlanBuilder::from(plan).distinct()?.build()?, keys })
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.push_distinct_on(distinct, domain),
            LogicalPlan::Union(union) => self.push_union(union, domain),
            LogicalPlan::Join(join) if lateral(&join.right).is_some() => {
                // The inner correlation first; a plain join of the two sides is left, which reads the keys as any
                // other.
                let plan = self.lateral_join(join.clone())?;
                self.push(&plan, domain)
            }
            LogicalPlan::Join(join) => self.push_join(join, domain),
            LogicalPlan::Unnest(unnest) => {
                // Unnesting repeats the other columns of a row, and the keys with them.
                let Pushed { plan, keys } = self.push(&unnest.input, domain)?;
                let plan = LogicalPlanBuilder::from(plan)
                    .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?;
                Ok(Pushed { plan: plan.build()?, keys })
            }
            LogicalPlan::Values(_) => {
                not_impl_err!("VALUES with columns of the query outside: write SELECT … UNION ALL SELECT … instead")
            }
            other => not_impl_err!(
                "a correlated subquery with {} inside: write it as a join",
                other.display().to_string().split([':', ' ']).next().unwrap_or_default()
            ),
        }
    }

    fn push_aggregate(&mut self, aggregate: &Aggregate, domain: &Domain) -> Result<Pushed> {
        let Pushed { plan: input, keys } = self.push(&aggregate.input, domain)?;
        let scope = [Arc::clone(aggregate.input.schema())];
        let binding = Binding::new(&domain.outer, &keys);
        let groups = binding.bind_all(&aggregate.group_expr, &scope)?;
        let calls = binding.bind_all(&aggregate.aggr_expr, &scope)?;
        // Such a set has the total beside other groups: a key without rows would need that one row, and not the
        // others.
        if !groups.is_empty() && has_total(&groups) {
            return not_impl_err!(
                "a correlated subquery with a total by ROLLUP, CUBE or GROUPING SETS: write it as a join"
            );
        }
        // `SELECT count(*)` has a row over nothing; grouped by the keys it would lose it (the COUNT bug of
        // unnesting).
        let is_total = groups.is_empty();
        let input = Arc::new(input);
        let by_key = groups.into_iter().chain(keys.iter().cloned().map(Expr::Column)).collect();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&input), by_key, calls.clone())?);
        if !is_total {
            return Ok(Pushed { plan: grouped, keys });
        }
        self.with_empty_groups(Pushed { plan: grouped, keys }, input, calls, domain)
    }

    /// Adds the row of every key that has no rows: what the aggregates give over nothing.
    fn with_empty_groups(
        &mut self,
        grouped: Pushed,
        input: Arc<LogicalPlan>,
        calls: Vec<Expr>,
        domain: &Domain,
    ) -> Result<Pushed> {
        let all = self.keys(domain)?;
        let found = self.name("found");
        let none = self.name("none");
        let marker = self.name("marker");
        let names: Vec<String> = calls.iter().map(|_| self.name("value")).collect();
        let outputs: Vec<_> = calls.iter().map(Expr::qualified_name).collect();
        let values = outputs
            .iter()
            .zip(&names)
            .map(|((_, output), name)| Expr::Column(Column::new_unqualified(output)).alias(name));
        let keys = grouped.keys.iter().zip(&domain.names).map(|(key, name)| Expr::Column(key.clone()).alias(name));
        // The marker distinguishes a key without rows from one whose aggregates are NULL.
        let columns = values.chain(keys).chain([lit(true).alias(marker.clone())]).collect::<Vec<_>>();
        let rows = LogicalPlanBuilder::from(grouped.plan).project(columns)?.alias(found.clone())?.build()?;
        // Aggregates over an empty relation, for their value over nothing: 0 of count, NULL of sum. The real plan is
        // not repeated here, which would double it with every level of nesting.
        let nothing = EmptyRelation { produce_one_row: false, schema: Arc::clone(input.schema()) };
        let nothing = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(nothing));
        let calls = calls.into_iter().zip(&names).map(|(call, name)| call.unalias().alias(name)).collect::<Vec<_>>();
        let empty = nothing.aggregate(Vec::<Expr>::new(), calls)?.alias(none.clone())?.build()?;
        let found_keys: Vec<Column> = domain.names.iter().map(|name| Column::new(Some(found.clone()), name)).collect();
        // From all keys, so that those without rows remain; their marker is NULL.
        let joined = join_on_keys(all.plan, rows, JoinType::Left, &all.keys, &found_keys)?;
        let is_empty = column_of(&found, &marker).is_null();
        let values = outputs.iter().zip(&names).map(|(output, name)| {
            named(when(is_empty.clone(), column_of(&none, name)).otherwise(column_of(&found, name))?, output.clone())
        });
        let keys = all.keys.iter().cloned().map(Expr::Column).map(Ok);
        let columns = values.chain(keys).collect::<Result<Vec<_>>>()?;
        // The empty aggregate is one row, so that the cross join adds columns and no rows.
        let plan = LogicalPlanBuilder::from(joined).cross_join(empty)?.project(columns)?.build()?;
        Ok(Pushed { plan, keys: all.keys })
    }

    fn push_window(&mut self, window: &Window, domain: &Domain) -> Result<Pushed> {
        let Pushed { plan, keys } = self.push(&window.input, domain)?;
        let scope = [Arc::clone(window.input.schema())];
        let binding = Binding::new(&domain.outer, &keys);
        let per_key = window.window_expr.iter().map(|expr| {
            let name = expr.qualified_name();
            let Expr::WindowFunction(mut call) = binding.bind(expr.clone(), &scope)?.unalias() else {
                return not_impl_err!("a correlated subquery with this window: write it as a join");
            };
            // A window never spans two keys.
            call.params.partition_by.extend(keys.iter().cloned().map(Expr::Column));
            named(Expr::WindowFunction(call), name)
        });
        let plan = Window::try_new(per_key.collect::<Result<_>>()?, Arc::new(plan))?;
        Ok(Pushed { plan: LogicalPlan::Window(plan), keys })
    }

    fn push_limit(&mut self, limit: &Limit, domain: &Domain) -> Result<Pushed> {
        let Some((skip, fetch)) = bounds(limit)? else {
            return not_impl_err!("LIMIT and OFFSET of a correlated subquery that are no constants");
        };
        // The planner may put the projection between LIMIT and its ORDER BY. The order reads columns below it.
        let (projection, below) = match limit.input.as_ref() {
            LogicalPlan::Projection(projection) if matches!(projection.input.as_ref(), LogicalPlan::Sort(_)) => {
                (Some(projection), projection.input.as_ref())
            }
            other => (None, other),
        };
        let (input, order) = match below {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (sort.input.as_ref(), sort.expr.as_slice()),
            other => (other, [].as_slice()),
        };
        let pushed = self.push(input, domain)?;
        let binding = Binding::new(&domain.outer, &pushed.keys);
        let scope = [Arc::clone(input.schema())];
        let order = binding.bind_order(order, &scope)?;
        // The limit holds for each row outside, hence per key.
        let partition = pushed.keys.iter().cloned().map(Expr::Column).collect();
        let pushed = self.numbered(pushed, numbering(partition, order), skip, fetch)?;
        match projection {
            Some(projection) => project(pushed, &projection.expr, projection.input.schema(), domain),
            None => Ok(pushed),
        }
    }

    /// Keeps the rows after the first `skip` of each partition of the row numbers, at most `fetch`.
    fn numbered(
        &mut self,
        Pushed { plan, keys }: Pushed,
        number: Expr,
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<Pushed> {
        // The columns before the row number, which the last projection drops.
        let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        let name = self.name("row");
        let number = number.alias(name.clone());
        let at = Expr::Column(Column::new_unqualified(name));
        // Row numbers begin at 1. The sum saturates above every row number.
        let last = fetch.map(|fetch| at.clone().lt_eq(lit(skip.saturating_add(fetch) as u64)));
        let kept = conjunction([at.gt(lit(skip as u64))].into_iter().chain(last));
        let numbered = LogicalPlan::Window(Window::try_new(vec![number], Arc::new(plan))?);
        let kept = LogicalPlanBuilder::from(numbered).filter(kept.unwrap_or_else(|| lit(true)))?;
        Ok(Pushed { plan: kept.project(columns)?.build()?, keys })
    }

    fn push_distinct_on(&mut self, distinct: &DistinctOn, domain: &Domain) -> Result<Pushed> {
        let pushed = self.push(&distinct.input, domain)?;
        let scope = [Arc::clone(distinct.input.schema())];
        let binding = Binding::new(&domain.outer, &pushed.keys);
        let mut partition = binding.bind_all(&distinct.on_expr, &scope)?;
        partition.extend(pushed.keys.iter().cloned().map(Expr::Column));
        let order = binding.bind_order(distinct.sort_expr.as_deref().unwrap_or_default(), &scope)?;
        // DISTINCT ON keeps the first row of each group.
        let pushed = self.numbered(pushed, numbering(partition, order), 0, Some(1))?;
        project(pushed, &distinct.select_expr, distinct.input.schema(), domain)
    }

    fn push_union(&mut self, union: &Union, domain: &Domain) -> Result<Pushed> {
        let names: Vec<String> = domain.outer.iter().map(|_| self.name("key")).collect();
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let own = input.schema().columns().into_iter().map(Expr::Column);
            let Pushed { plan, keys } = self.push(input, domain)?;
            // A set operation matches columns by position: every input has the keys last and under the same names.
            let keys = keys.into_iter().zip(&names).map(|(key, name)| Expr::Column(key).alias(name));
            let columns = own.chain(keys).collect::<Vec<_>>();
            inputs.push(Arc::new(LogicalPlanBuilder::from(plan).project(columns)?.build()?));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        Ok(Pushed { plan, keys: names.into_iter().map(Column::new_unqualified).collect() })
    }

    fn push_join(&mut self, join: &Join, domain: &Domain) -> Result<Pushed> {
        let whole = LogicalPlan::Join(join.clone());
        let scope = scope_of(&whole);
        let kind = join.join_type;
        let all = kind == JoinType::Full;
        let reads_left = !free(&join.left).is_empty();
        let reads_right = !free(&join.right).is_empty();
        // Keys are needed on each side whose rows are all kept, on each that reads outer columns, and on one at least.
        let left = if all || keeps_left(kind) || reads_left || (!reads_right && !keeps_right(kind)) {
            self.push(&join.left, domain)?
        } else {
            Pushed::without_keys(&join.left)
        };
        let right = if all || keeps_right(kind) || reads_right {
            self.push(&join.right, domain)?
        } else {
            Pushed::without_keys(&join.right)
        };
        // On a side whose rows are not all kept, the keys are NULL where nothing matched.
        let from_left = !left.keys.is_empty() && !keeps_right(kind);
        let keys = if from_left { left.keys.clone() } else { right.keys.clone() };
        let binding = Binding::new(&domain.outer, &keys);
        let mut on = Vec::with_capacity(join.on.len());
        for (l, r) in &join.on {
            on.push((binding.bind(l.clone(), &scope)?, binding.bind(r.clone(), &scope)?));
        }
        // Rows of two different keys must never meet.
        on.extend(pairs((left.plan.schema(), &left.keys), (right.plan.schema(), &right.keys))?);
        let filter = join.filter.clone().map(|filter| binding.bind(filter, &scope)).transpose()?;
        let joined = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on,
            filter,
            kind,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        let joined = LogicalPlan::Join(joined);
        // The keys are there once: only one side has them, or the join gives columns of one side only (semi, anti,
        // mark).
        if left.keys.is_empty()
            || right.keys.is_empty()
            || !matches!(kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
        {
            return Ok(Pushed { plan: joined, keys });
        }
        let own = whole.schema().columns().into_iter().map(Expr::Column);
        // Both sides have the keys; those of the other side are dropped.
        if kind != JoinType::Full {
            let columns = own.chain(keys.iter().cloned().map(Expr::Column)).collect::<Vec<_>>();
            return Ok(Pushed { plan: LogicalPlanBuilder::from(joined).project(columns)?.build()?, keys });
        }
        let names: Vec<String> = keys.iter().map(|_| self.name("key")).collect();
        // FULL JOIN: the key is on the side that has a row, as with USING (coalesce).
        let either = left.keys.iter().zip(&right.keys).zip(&names).map(|((l, r), name)| {
            let mut either = when(Expr::Column(l.clone()).is_null(), Expr::Column(r.clone()));
            Ok(either.otherwise(Expr::Column(l.clone()))?.alias(name))
        });
        let columns = own.map(Ok).chain(either).collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(joined).project(columns)?.build()?;
        Ok(Pushed { plan, keys: names.into_iter().map(Column::new_unqualified).collect() })
    }
}

/// The columns of a projection, over a plan that has the keys, and the keys.
fn project(Pushed { plan, keys }: Pushed, exprs: &[Expr], scope: &DFSchemaRef, domain: &Domain) -> Result<Pushed> {
    let binding = Binding::new(&domain.outer, &keys);
    let scope = [Arc::clone(scope)];
    let mut columns = binding.bind_all(exprs, &scope)?;
    columns.extend(keys.iter().cloned().map(Expr::Column));
    Ok(Pushed { plan: LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?), keys })
}

fn column_of(table: &str, name: &str) -> Expr {
    Expr::Column(Column::new(Some(table), name))
}

/// The number of a row in its partition.
fn numbering(partition_by: Vec<Expr>, order_by: Vec<SortKey>) -> Expr {
    let mut call = WindowFunction::new(row_number_udwf(), Vec::new());
    // The default frames of SQL, with an order and without; row_number() itself ignores them.
    let window_frame = WindowFrame::new((!order_by.is_empty()).then_some(false));
    call.params = WindowFunctionParams { partition_by, order_by, window_frame, ..call.params };
    Expr::WindowFunction(Box::new(call))
}

/// Pairs of expressions that are equal where the keys are, and never NULL: NULL is a key like every other. A join that
/// treats NULLs as equal would do so for its other conditions too, which the optimizer adds later.
fn pairs(left: (&DFSchema, &[Column]), right: (&DFSchema, &[Column])) -> Result<Vec<(Expr, Expr)>> {
    let mut pairs = Vec::new();
    for (l, r) in left.1.iter().zip(right.1) {
        let fields = [left.0.field_from_column(l)?, right.0.field_from_column(r)?];
        let exprs = (Expr::Column(l.clone()), Expr::Column(r.clone()));
        if fields.iter().all(|field| !field.is_nullable()) {
            pairs.push(exprs);
            continue;
        }
        // Two columns for one key: whether it is NULL, and its value or a default. A default that is a real value
        // differs in the first.
        pairs.push((exprs.0.clone().is_null(), exprs.1.clone().is_null()));
        // A column of type NULL has no other value.
        if fields[0].data_type() != &DataType::Null {
            let default = lit(ScalarValue::new_default(fields[0].data_type())?);
            pairs.push((or_else(exprs.0, &default)?, or_else(exprs.1, &default)?));
        }
    }
    Ok(pairs)
}

/// The key, and the default where it is NULL.
fn or_else(key: Expr, default: &Expr) -> Result<Expr> {
    when(key.clone().is_null(), default.clone()).otherwise(key)
}

/// Joins two plans on equal keys.
pub(super) fn join_on_keys(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    left_keys: &[Column],
    right_keys: &[Column],
) -> Result<LogicalPlan> {
    let on = pairs((left.schema(), left_keys), (right.schema(), right_keys))?;
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}
