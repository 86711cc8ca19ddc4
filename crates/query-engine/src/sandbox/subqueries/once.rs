//! What must happen only once: rows that may differ when they are read again are read once and held, and a subquery
//! used as a value gives one row.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::cast::as_int64_array;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, exec_err, not_impl_err};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{
    ColumnarValue, Distinct, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use tokio::sync::OnceCell;

use super::Unnesting;
use super::scope::free;
use crate::sandbox::cancellation::{Cancellation, cancellable};
use crate::sandbox::phase::Phase;

/// Aggregates whose result is independent of the order of their rows, which is another one with every run. The addition
/// of fractions is not associative, so that their sums are not among them.
const SAME_IN_ANY_ORDER: [&str; 8] = ["bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "max", "min"];

/// The plan, or a table that holds its rows when it could give others the next time.
///
/// # Errors
/// Its rows cannot be held: it reads columns of a query outside, or is the inner part of a recursion.
pub(super) fn repeatable(unnesting: &mut Unnesting, plan: LogicalPlan) -> Result<LogicalPlan> {
    // Before anything is held: the work table of a recursion changes with each round and can be read once.
    if reads_recursion(&plan)? {
        return not_impl_err!("a correlated subquery inside WITH RECURSIVE: write it as a join");
    }
    if gives_the_same(&plan)? {
        return Ok(plan);
    }
    // Held rows are one table for all keys; these would be another table for each.
    if !free(&plan).is_empty() {
        return not_impl_err!(
            "a correlated subquery over rows that are limited, numbered or random within another one: write it as a join"
        );
    }
    let columns = plan.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone())).collect::<Vec<_>>();
    // A join may have two columns of one name under different qualifiers, which a table cannot. They are renamed for
    // the table and back above it.
    let names: Vec<String> = columns.iter().map(|_| unnesting.name("column")).collect();
    let own = plan.schema().columns().into_iter().zip(&names).map(|(column, name)| Expr::Column(column).alias(name));
    let own = own.collect::<Vec<_>>();
    // The plan moves into a table, out of reach of the rewriting that follows, so that it is rewritten here.
    let plan = LogicalPlanBuilder::from(unnesting.rewrite(plan)?).project(own)?.build()?;
    let schema = Arc::clone(plan.schema().inner());
    let held = Held { plan, schema, rows: OnceCell::new() };
    let alias = unnesting.name("held");
    let scan = LogicalPlanBuilder::scan(alias, provider_as_source(Arc::new(held)), None)?;
    let renamed = columns.into_iter().zip(names).map(|((qualifier, column), name)| {
        Expr::Column(Column::new_unqualified(name)).alias_qualified(qualifier, column)
    });
    scan.project(renamed.collect::<Vec<_>>())?.build()
}

/// Whether a plan is part of the inner part of a recursion, which reads the rows of the round before, and only once.
fn reads_recursion(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if scan.source.get_logical_plan().is_none() && is_work_table(scan))))
}

fn is_work_table(scan: &datafusion::logical_expr::TableScan) -> bool {
    use datafusion::datasource::DefaultTableSource;
    use datafusion::datasource::cte_worktable::CteWorkTable;
    let source = (scan.source.as_ref() as &dyn Any).downcast_ref::<DefaultTableSource>();
    source.is_some_and(|source| (source.table_provider.as_ref() as &dyn Any).is::<CteWorkTable>())
}

fn gives_the_same(plan: &LogicalPlan) -> Result<bool> {
    let mut same = true;
    plan.apply_with_subqueries(|node| {
        // A limit without a total order may keep other rows each time. The order is not examined, so that any limit
        // counts.
        same &= !matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)));
        node.apply_expressions(|expr| {
            same &= !expr.is_volatile() && !expr.exists(|part| Ok(depends_on_order(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if same { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(same)
}

fn depends_on_order(expr: &Expr) -> bool {
    match expr {
        Expr::AggregateFunction(call) => !SAME_IN_ANY_ORDER.contains(&call.func.name()),
        Expr::WindowFunction(_) => true,
        _ => false,
    }
}

/// The rows of a plan, which is run by the first scan and held for the later ones.
#[derive(Debug)]
struct Held {
    plan: LogicalPlan,
    schema: SchemaRef,
    rows: OnceCell<(Vec<RecordBatch>, MemoryReservation)>,
}

impl Held {
    async fn run(&self, state: &dyn Session) -> Result<(Vec<RecordBatch>, MemoryReservation)> {
        // Runs while the statement outside is still being planned, before its whole plan is made cancellable.
        let mut plan = state.create_physical_plan(&self.plan).await?;
        if let Some(cancellation) = state.config().get_extension::<Cancellation>() {
            plan = cancellable(plan, &cancellation)?;
        }
        let reservation =
            MemoryConsumer::new("rows of a correlated subquery").register(&state.runtime_env().memory_pool);
        // Until the end of this part guarded functions may make long values, which they refuse while planning.
        let _runs = state.config().get_extension::<Phase>().map(|phase| phase.run_part());
        let mut stream = execute_stream(plan, state.task_ctx())?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            // Held rows do not spill: beyond the memory of the query they fail it.
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        Ok((batches, reservation))
    }
}

#[async_trait]
impl TableProvider for Held {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Initialised once also by concurrent scans, which wait for the first. A failure is not stored.
        let (batches, _) = self.rows.get_or_try_init(|| self.run(state)).await?;
        let mut declared = Vec::with_capacity(batches.len());
        for batch in batches {
            // The physical plan may declare a column nullable that the logical plan declares without NULL. The row
            // count is passed on for batches without columns.
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            declared.push(RecordBatch::try_new_with_options(self.schema(), batch.columns().to_vec(), &options)?);
        }
        Ok(MemorySourceConfig::try_new_exec(&[declared], self.schema(), projection.cloned())?)
    }
}

/// `only_row(count, value)`: the value, which must come from one row.
pub(super) fn only_row() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(OnlyRow { signature: Signature::any(2, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&args.arg_fields[1]))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let counts = args.args[0].to_array(args.number_rows)?;
        // SQL: a scalar subquery of more than one row is an error (cardinality violation, SQLSTATE 21000), never an
        // arbitrary row of them.
        if as_int64_array(&counts)?.iter().flatten().any(|count| count > 1) {
            return exec_err!(
                "a subquery used as a value gave more than one row: aggregate it, or add ORDER BY and LIMIT 1"
            );
        }
        Ok(args.args[1].clone())
    }
}
