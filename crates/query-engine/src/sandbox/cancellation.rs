//! Stopping plans at their deadline or at their cancellation. A join can turn two small inputs into hours of work
//! between two rows of its output. In that time it polls none of its inputs, so the engine's own cooperative yielding
//! never happens, and a cancelled query would keep its thread. So joins yield after their batches, and their
//! conditions, which are evaluated batch by batch, check the cancellation.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::unnest::UnnestExec;
use tokio::time::Instant;

/// When a query must stop: at its deadline, or when it is cancelled.
#[derive(Debug, Clone)]
pub(crate) struct Cancellation {
    is_cancelled: Arc<AtomicBool>,
    deadline: Instant,
}

/// The error of a query that was cancelled or reached its deadline.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the query was cancelled")]
pub(crate) struct Cancelled;

impl Cancellation {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { is_cancelled: Arc::default(), deadline }
    }

    pub(crate) fn cancel(&self) {
        // Relaxed: the flag publishes no other data, and one more batch is harmless.
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        // The timer of the task fires only where the query yields. Comparing the clock enforces the deadline between
        // two yields.
        if self.is_cancelled.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(DataFusionError::External(Box::new(Cancelled)));
        }
        Ok(())
    }
}

/// The same plan, which stops soon after it is cancelled.
///
/// # Errors
/// A join cannot be rebuilt from its parts, which is a bug.
pub(crate) fn cancellable(plan: Arc<dyn ExecutionPlan>, cancellation: &Cancellation) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(node) = checked(&node, cancellation)? else {
            return Ok(Transformed::no(node));
        };
        // Consumes Tokio's cooperative budget for each batch, so that the deadline and an abort of the task are
        // noticed.
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    })
    .data()
}

/// A node that can make many rows of few, with a condition that checks the cancellation; `None` for other nodes.
fn checked(node: &Arc<dyn ExecutionPlan>, cancellation: &Cancellation) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        // Every pair of rows is compared: between two batches of output only the condition is evaluated, possibly for
        // hours.
        let filter = join.filter().map(|filter| with_check(filter, cancellation));
        let projection = join.projection().as_ref().map(|columns| columns.to_vec());
        let left = Arc::clone(join.left());
        let right = Arc::clone(join.right());
        return Ok(Some(Arc::new(NestedLoopJoinExec::try_new(left, right, filter, join.join_type(), projection)?)));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return match join.filter() {
            Some(filter) => Ok(Some(join.builder().with_filter(Some(with_check(filter, cancellation))).build_exec()?)),
            // Without a condition every match is a row of the output, so that the yield after each batch comes soon.
            None => Ok(Some(Arc::clone(node))),
        };
    }
    // These multiply rows as well. They emit them in batches, after each of which they now yield.
    let amplifies = node.is::<CrossJoinExec>() || node.is::<SortMergeJoinExec>() || node.is::<UnnestExec>();
    Ok(amplifies.then(|| Arc::clone(node)))
}

fn with_check(filter: &JoinFilter, cancellation: &Cancellation) -> JoinFilter {
    let expression = Arc::new(Checked { inner: Arc::clone(filter.expression()), cancellation: cancellation.clone() });
    JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once the query must stop.
#[derive(Debug)]
struct Checked {
    inner: Arc<dyn PhysicalExpr>,
    cancellation: Cancellation,
}

// Equality and hash leave the cancellation out: all expressions of one plan have the same one.
impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Checked {}

impl Hash for Checked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Checked {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.cancellation.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        // `children` lists one child, so that exactly one comes back; the old one only keeps the step infallible.
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, cancellation: self.cancellation.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
