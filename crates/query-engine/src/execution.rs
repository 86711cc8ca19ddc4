//! Running one query: plan, execute, and pass batches on until the rows or the time end, or the answer is dropped.

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
use crate::scan::narrowing::{Narrowed, Scans};
use crate::scan::resolve::UsedSnapshot;
use crate::{show, zone};

/// The largest LIMIT that can be planned.
const MOST_ROWS: usize = i64::MAX as usize;

/// Batches that may wait for a slow reader; beyond it the query waits too.
const BATCHES_AHEAD: usize = 2;

/// A query that is ready to be planned and run.
pub(crate) struct Task {
    pub(crate) state: SessionState,
    pub(crate) statement: Statement,
    pub(crate) headings: Headings,
    /// `None`: all of them.
    pub(crate) rows: Option<usize>,
    pub(crate) memory_bytes: usize,
    pub(crate) deadline: Instant,
    pub(crate) limit: Duration,
    /// Held until the query ends, which is at its deadline however slowly its rows are read.
    pub(crate) permit: Option<Permit>,
}

/// How a query ended: whether there were more rows than were wanted, or why it failed.
type Outcome = Result<bool, QueryError>;

/// The rows of a query as they are made. Dropping it cancels the query.
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
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let deadline = task.deadline;
        let limit = task.limit;
        let cancellation = Cancellation::at(deadline);
        let sql = task.statement.to_string();
        let running = threads.spawn(Box::pin(run(task, cancellation.clone(), planned, sender)));
        let mut task = CancelOnDrop { running, cancellation, sql };
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

    /// The time and the nodes that the statement's own conditions leave of the tables that have nodes.
    pub fn narrowed(&self) -> Narrowed {
        self.scans.narrowed()
    }

    /// When the query is out of time.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// More rows existed than were wanted. Known once [`Self::next`] has returned `None`.
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
        // The task keeps the deadline itself wherever it yields; one that computes without an end is not waited for.
        let next = async {
            match self.batches.recv().await {
                Some(batch) => Ok(batch),
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

/// Cancels the query, also while it is planned. It ends at its next yield, or, where it does not yield, at its next check of the
/// cancellation.
#[derive(Debug)]
struct CancelOnDrop {
    running: JoinHandle<Outcome>,
    cancellation: Cancellation,
    /// The statement, for the log of a query that ended without an outcome.
    sql: String,
}

impl CancelOnDrop {
    /// How the query ended, once.
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
        self.cancellation.cancel();
        self.running.abort();
    }
}

/// The task stopped at a fault of the engine, which its log has with the statement.
fn ended_early() -> QueryError {
    QueryError::Internal { message: "the engine failed at this statement; the server's log has the reason".to_owned() }
}

async fn run(
    task: Task,
    cancellation: Cancellation,
    planned: oneshot::Sender<SchemaRef>,
    batches: mpsc::Sender<RecordBatch>,
) -> Outcome {
    let Task { state, statement, headings, rows, memory_bytes, deadline, limit, permit: _permit } = task;
    let work = async {
        let planning = plan(&state, statement, rows, &cancellation).await;
        let stream = planning.map_err(|error| classify_planning(&error, memory_bytes))?;
        // A client that has gone away is noticed when the first batch is sent.
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
    cancellation: &Cancellation,
) -> Result<SendableRecordBatchStream> {
    let plan = match state.statement_to_plan(statement.clone()).await {
        Err(error) if is_about_equal_names(&error) => state.statement_to_plan(with_distinct_names(statement)?).await?,
        planned => planned?,
    };
    let plan = zone::dates_as_midnights(plan, state.config_options().execution.time_zone.as_deref())?;
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    allocation::check(&plan)?;
    unions::check(&plan)?;
    let plan = subqueries::unnest(plan)?;
    let plan = with_whole_recursions(plan)?;
    let plan = match (plan, rows) {
        // These must stay the root of their plan, and are short.
        (plan @ (LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)), _) => plan,
        (LogicalPlan::DescribeTable(described), _) => show::description(&described.schema)?,
        (plan, None) => plan,
        // With one more than wanted it is known whether there were more.
        (plan, Some(rows)) => {
            LogicalPlanBuilder::from(plan).limit(0, Some(rows.saturating_add(1).min(MOST_ROWS)))?.build()?
        }
    };
    let mut state = state.clone();
    state.config_mut().set_extension(Arc::new(cancellation.clone()));
    let physical = state.create_physical_plan(&plan).await?;
    if let Some(phase) = state.config().get_extension::<Phase>() {
        phase.begin_running();
    }
    execute_stream(cancellable(physical, cancellation)?, state.task_ctx())
}

/// The engine takes two columns of an answer for one when their expressions differ in a cast only, and those that are the same.
fn is_about_equal_names(error: &DataFusionError) -> bool {
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

/// Keeps every column of a recursion. The optimizer takes away those that the rest of the statement does not read, also where the next round
/// needs them: `SELECT count(*)` then fails. It leaves a recursion alone that begins with a subquery of another name.
fn with_whole_recursions(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::RecursiveQuery(mut recursion) = node else { return Ok(Transformed::no(node)) };
        let name = TableReference::bare(format!("{} begins", recursion.name));
        recursion.static_term = Arc::new(LogicalPlanBuilder::from(recursion.static_term).alias(name)?.build()?);
        Ok(Transformed::yes(LogicalPlan::RecursiveQuery(recursion)))
    })
    .data()
}

/// Sends at most `rows` rows; whether there were more.
async fn forward(
    mut stream: SendableRecordBatchStream,
    schema: &SchemaRef,
    rows: Option<usize>,
    batches: &mpsc::Sender<RecordBatch>,
) -> Result<bool, DataFusionError> {
    let mut left = rows.unwrap_or(usize::MAX);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        crate::sandbox::values::check_writable(&batch)?;
        let more = batch.num_rows() > left;
        let batch = if more { batch.slice(0, left) } else { batch };
        let batch = under(schema, &batch)?;
        left -= batch.num_rows();
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
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

const _: fn() = || {
    fn sent_between_threads<T: Send + Sync>() {}
    sent_between_threads::<Arc<Answer>>();
};
