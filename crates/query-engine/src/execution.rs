//! Runs one query: plans it, executes it, and passes its batches on until the rows end, the time ends, or the answer is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use objects::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::classify::{classify, classify_planning};
use crate::error::QueryError;
use crate::headings::{Headings, with_distinct_names};
use crate::sandbox::allocation;
use crate::sandbox::cancellation::{Cancellation, cancellable};
use crate::sandbox::permits::Permit;
use crate::sandbox::phase::Phase;
use crate::sandbox::{subqueries, unions};
use crate::scan::archived;
use crate::scan::narrowing::{Narrowed, Scans};
use crate::scan::resolve::UsedSnapshot;
use crate::{show, zone};

/// The largest LIMIT that can be planned.
const MOST_ROWS: usize = isize::MAX.cast_unsigned();

/// Batches that may wait for a slow reader. Beyond them the query waits as well (backpressure).
const BATCHES_AHEAD: usize = 2;

/// A query that is ready for planning.
pub(crate) struct Task {
    pub(crate) state: SessionState,
    pub(crate) statement: Statement,
    pub(crate) headings: Headings,
    /// Greatest number of rows; `None` for all.
    pub(crate) rows: Option<usize>,
    pub(crate) memory_bytes: usize,
    pub(crate) deadline: Instant,
    pub(crate) limit: Duration,
    /// Where the files of the tables are.
    pub(crate) store: Store,
    /// Held until the query ends. It ends at its deadline at the latest, however slowly its rows are read.
    pub(crate) permit: Option<Permit>,
}

/// How a query ended: whether it had more rows than the limit, or why it failed.
type Outcome = Result<bool, QueryError>;

/// The rows of a query, as they are produced. Dropping the answer cancels the query.
#[derive(Debug)]
pub struct Answer {
    schema: SchemaRef,
    snapshots: Vec<UsedSnapshot>,
    scans: Arc<Scans>,
    batches: mpsc::Receiver<RecordBatch>,
    truncated: bool,
    finished: bool,
    deadline: Instant,
    limit: Duration,
    task: CancelOnDrop,
}

impl Answer {
    /// Starts the task on the query threads and waits until it is planned.
    pub(crate) async fn start(
        mut task: Task,
        snapshots: Vec<UsedSnapshot>,
        scans: Arc<Scans>,
        threads: &tokio::runtime::Handle,
    ) -> Result<Self, QueryError> {
        crate::sandbox::values::rewrite(&mut task.statement)?;
        let (planned, schema) = oneshot::channel();
        // Bounded, so that a slow reader stops the plan instead of filling the memory.
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let deadline = task.deadline;
        let limit = task.limit;
        let cancellation = Cancellation::at(deadline);
        // The task takes the statement; its text is kept for the log.
        let sql = task.statement.to_string();
        let running = threads.spawn(Box::pin(run(task, cancellation.clone(), planned, sender)));
        // Before the first `await`, so that a client that disconnects during planning cancels the task.
        let mut task = CancelOnDrop { running, cancellation, sql };
        // The task has dropped its sender: it ended before there was a plan, and its outcome has the reason.
        let Ok(schema) = schema.await else {
            return Err(task.outcome().await.err().unwrap_or_else(ended_early));
        };
        Ok(Self { schema, snapshots, scans, batches, truncated: false, finished: false, deadline, limit, task })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The snapshots the rows come from, by table name.
    pub fn snapshots(&self) -> &[UsedSnapshot] {
        &self.snapshots
    }

    /// The time and the nodes that the conditions of the statement select, over all scans of tables that have nodes.
    pub fn narrowed(&self) -> Narrowed {
        self.scans.narrowed()
    }

    /// When the time limit of the query ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether there were more rows than the limit. Valid once [`Self::next`] has returned `None`.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The next batch; `None` after the last.
    ///
    /// # Errors
    /// The query failed, ran out of time, or met data that cannot be read. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.finished {
            return None;
        }
        // The task observes the deadline wherever it yields. This timer covers a task that computes without yielding.
        let next = async {
            match self.batches.recv().await {
                Some(batch) => Ok(batch),
                // The channel closes when the task ends. Only the outcome distinguishes a complete answer from a
                // failure.
                None => Err(self.task.outcome().await),
            }
        };
        let ended = match timeout_at(self.deadline, next).await {
            Ok(Ok(batch)) => return Some(Ok(batch)),
            Ok(Err(outcome)) => outcome,
            Err(_) => Err(QueryError::Timeout { limit: self.limit }),
        };
        self.finished = true;
        match ended {
            Ok(truncated) => {
                self.truncated = truncated;
                None
            }
            Err(error) => {
                // After a timeout here the task still runs. It is stopped now, not when the caller drops the answer.
                self.task.cancellation.cancel();
                Some(Err(error))
            }
        }
    }

    /// All rows at once.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, QueryError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// Cancels the query on drop, also during planning. The query ends at its next yield, or, where it does not yield, at
/// its next check of the cancellation.
#[derive(Debug)]
struct CancelOnDrop {
    running: JoinHandle<Outcome>,
    cancellation: Cancellation,
    /// The statement, for the log of a query that ended without an outcome.
    sql: String,
}

impl CancelOnDrop {
    /// How the query ended. May be called once.
    async fn outcome(&mut self) -> Outcome {
        let outcome = (&mut self.running).await;
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, statement = %self.sql, "a query ended without an outcome");
            Err(ended_early())
        })
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // `abort` takes effect at the next yield. The flag also stops a join that computes between two yields.
        self.cancellation.cancel();
        self.running.abort();
    }
}

/// The error of a task that ended without an outcome. The log has the reason and the statement.
fn ended_early() -> QueryError {
    QueryError::Internal { message: "the engine failed at this statement; the server's log has the reason".to_owned() }
}

async fn run(
    task: Task,
    cancellation: Cancellation,
    planned: oneshot::Sender<SchemaRef>,
    batches: mpsc::Sender<RecordBatch>,
) -> Outcome {
    // `_permit` lives as long as this task, and not only until the plan is made.
    let Task { state, statement, headings, rows, memory_bytes, deadline, limit, store, permit: _permit } = task;
    let work = async {
        // Planning and execution map the same error differently: before the first row, the fault lies in the statement.
        let planning = plan(&state, statement, rows, &store, &cancellation).await;
        let stream = planning.map_err(|error| classify_planning(&error, memory_bytes))?;
        // Fails when the answer was dropped meanwhile, which `forward` detects when it sends the first batch.
        let schema = headings.over(&stream.schema());
        let _ = planned.send(Arc::clone(&schema));
        let forwarding = forward(stream, &schema, rows, &batches).await;
        forwarding.map_err(|error| classify(&error, memory_bytes))
    };
    match timeout_at(deadline, work).await {
        // A query that does not yield ends at its cancellation, not at the timer.
        Ok(Err(QueryError::Cancelled)) if Instant::now() >= deadline => Err(QueryError::Timeout { limit }),
        Ok(ran) => ran,
        Err(_) => Err(QueryError::Timeout { limit }),
    }
}

async fn plan(
    state: &SessionState,
    statement: Statement,
    rows: Option<usize>,
    store: &Store,
    cancellation: &Cancellation,
) -> Result<SendableRecordBatchStream> {
    // Optimistic: columns get distinct names only after a first attempt has failed because of equal ones.
    let plan = match state.statement_to_plan(statement.clone()).await {
        Err(error) if is_about_equal_names(&error) => state.statement_to_plan(with_distinct_names(statement)?).await?,
        planned => planned?,
    };
    // Before the analyzer, whose type coercion drops the zone of a time that is compared with a date.
    let plan = zone::dates_as_midnights(plan, state.config_options().execution.time_zone.as_deref())?;
    // The kind of the statement was checked on its text. A query that writes (`SELECT … INTO`) shows only in the plan.
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    // Before the optimizer as well: constant folding would allocate such values during planning.
    allocation::check(&plan)?;
    unions::check(&plan)?;
    // The optimizer's own rules for subqueries lose rows (docs/adr/0022).
    let plan = subqueries::unnest(plan)?;
    let plan = with_whole_recursions(plan)?;
    let plan = match (plan, rows) {
        // DataFusion requires these at the root of a plan. Their answers are short.
        (plan @ (LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)), _) => plan,
        (LogicalPlan::DescribeTable(described), _) => show::description(&described.schema)?,
        (plan, None) => plan,
        // One row above the limit shows whether the answer is truncated. `limit` casts to a signed integer, so that a
        // greater number would become negative.
        (plan, Some(rows)) => {
            LogicalPlanBuilder::from(plan).limit(0, Some(rows.saturating_add(1).min(MOST_ROWS)))?.build()?
        }
    };
    // A subquery whose rows are held is planned and run by its operator, which takes the cancellation from the session.
    let mut state = state.clone();
    state.config_mut().set_extension(Arc::new(cancellation.clone()));
    let physical = state.create_physical_plan(&plan).await?;
    // The finished plan: what statistics answer reads no file.
    archived::check(&physical, store, chrono::Utc::now().timestamp_millis()).await?;
    // Constants are folded by now. Until here, functions refuse long constant results, which would become part of the
    // plan.
    if let Some(phase) = state.config().get_extension::<Phase>() {
        phase.begin_running();
    }
    execute_stream(cancellable(physical, cancellation)?, state.task_ctx())
}

/// Whether planning failed because two columns have the same name. The engine names an expression without its casts, so
/// that two expressions have the same name when they are equal or differ only in a cast.
fn is_about_equal_names(error: &DataFusionError) -> bool {
    // DataFusion has no variants for these errors; the texts are those of its planner and of `DFSchema`.
    let text = error.to_string();
    [
        "unique expression names",
        "duplicate unqualified field name",
        "duplicate qualified field name",
        "mbiguous reference",
        "would be ambiguous",
    ]
    .iter()
    .any(|known| text.contains(known))
}

/// Keeps every column of a recursion. The optimizer removes columns that the rest of the statement does not read, even
/// where the next iteration needs them: `SELECT count(*)` then fails.
fn with_whole_recursions(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::RecursiveQuery(mut recursion) = node else { return Ok(Transformed::no(node)) };
        // The optimizer (`optimize_projections`) skips a recursion with a subquery of another name in its first term.
        let name = TableReference::bare(format!("{} begins", recursion.name));
        recursion.static_term = Arc::new(LogicalPlanBuilder::from(recursion.static_term).alias(name)?.build()?);
        Ok(Transformed::yes(LogicalPlan::RecursiveQuery(recursion)))
    })
    .data()
}

/// Sends at most `rows` rows. Returns whether there were more.
async fn forward(
    mut stream: SendableRecordBatchStream,
    schema: &SchemaRef,
    rows: Option<usize>,
    batches: &mpsc::Sender<RecordBatch>,
) -> Result<bool, DataFusionError> {
    let mut left = rows.unwrap_or(usize::MAX);
    while let Some(batch) = stream.next().await {
        // Before the batch is sent: a surface that has begun to write a row can no longer report an error of a value.
        let batch = batch?;
        crate::sandbox::values::check_writable(&batch)?;
        let more = batch.num_rows() > left;
        // `left` cannot underflow below, because the batch is cut to it.
        let batch = if more { batch.slice(0, left) } else { batch };
        let batch = under(schema, &batch)?;
        left -= batch.num_rows();
        // Sending fails when the answer was dropped. Then the outcome is not read.
        if batch.num_rows() > 0 && batches.send(batch).await.is_err() {
            return Ok(true);
        }
        if more {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same rows under the headings of the answer.
fn under(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    // Without the explicit count, Arrow refuses a batch that has no columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

// A check at compile time: surfaces move answers between threads.
const _: fn() = || {
    fn sent_between_threads<T: Send + Sync>() {}
    sent_between_threads::<Arc<Answer>>();
};
