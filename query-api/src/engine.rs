//! The query engine: SQL in, batches of rows out, over one snapshot of each table.
//!
//! ```text
//! text ─ limits ─► statement ─ resolve ─► tables at one snapshot ─ run ─► plan ─► batches
//! ```
//!
//! The only place that knows DataFusion is this module and below. Plans run on a runtime of their own, so that a heavy query
//! never delays a health check or the next page of another.

mod classify;
mod clauses;
mod costly;
mod dialect;
pub mod error;
mod field_ids;
mod functions;
mod headings;
mod interrupt;
pub mod limits;
pub(crate) mod literal;
pub mod names;
mod phase;
mod provider;
mod resolve;
mod rules;
pub mod run;
mod scan;
pub(crate) mod scans;
pub mod scope;
mod session;
mod show;
mod statement;
mod subqueries;
mod threads;
mod tuples;
mod turns;
pub(crate) mod types;
mod unions;
pub(crate) mod views;
pub mod zone;

mod values;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::sql::parser::Statement;
use lake::{HeadError, Lake, ReadError, TableIdent, TableReader, TableSnapshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use error::QueryError;
use limits::Limits;
use run::{Answer, Task};
use scope::Scope;
use session::Sessions;
use threads::Threads;
pub use turns::Asker;
use turns::Turns;
use zone::Zone;

/// Longest time of a query that another one waits for.
pub(crate) const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// One question.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub sql: String,
    /// Most rows wanted; all of them when absent.
    pub limit: Option<usize>,
    /// Read the tables as they were; as they are when absent.
    pub as_of: Option<AsOf>,
    /// Which rows are wanted.
    pub scope: Scope,
    /// Shorter than the engine's own limit, or ignored.
    pub timeout: Option<Duration>,
    /// Does not wait for a turn: for what an answer needs that already holds one.
    pub unqueued: bool,
    /// The schema of names without one; [`names::DEFAULT_SCHEMA`] when absent.
    pub schema: Option<String>,
    /// The catalog of names without one; [`names::CATALOG`] when absent.
    pub catalog: Option<String>,
    /// The time zone of times without one.
    pub zone: Zone,
    /// Who asks; those of whom nothing is known are taken for one.
    pub asker: Option<Asker>,
}

/// A state of the tables in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// Every table as it was at this time, unix milliseconds.
    Time(i64),
    /// The table that has this snapshot at it, the others as they were when it was committed.
    Snapshot(i64),
}

impl Query {
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }

    /// A short query of our own that another query waits for.
    pub fn housekeeping(sql: impl Into<String>) -> Self {
        Self { unqueued: true, timeout: Some(HOUSEKEEPING), ..Self::new(sql) }
    }
}

/// The engine. One per process; queries share its threads, caches and limits.
pub struct Engine {
    lake: Lake,
    readers: Mutex<HashMap<TableIdent, TableReader>>,
    sessions: Sessions,
    limits: Limits,
    threads: Threads,
    turns: Turns,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why the engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("query threads cannot be started")]
    Threads(#[source] std::io::Error),
    #[error("query engine cannot be set up")]
    Session(#[source] datafusion::error::DataFusionError),
}

impl Engine {
    /// # Errors
    /// The threads cannot be started, or the temporary directory cannot be used.
    pub fn new(lake: Lake, limits: Limits) -> Result<Self, EngineError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions = Sessions::new(lake.store().objects(), &limits, cores).map_err(EngineError::Session)?;
        Ok(Self {
            lake,
            readers: Mutex::default(),
            sessions,
            threads: Threads::start(cores).map_err(EngineError::Threads)?,
            turns: Turns::new(&limits),
            limits,
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Plans a query and starts it; its rows are asked for with [`Answer::next`]. Dropping the answer cancels the query.
    ///
    /// # Errors
    /// The statement is refused, wrong or over the limits, or the lake cannot be read.
    pub async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        let limit = query.timeout.map_or(self.limits.time, |wanted| wanted.min(self.limits.time));
        let deadline = Instant::now() + limit;
        limits::check_text(&query.sql)?;
        let statement = statement::parse(&query.sql)?;
        limits::check_statement(&statement)?;
        let mut statement = show::as_query(statement, query.catalog.as_deref(), query.schema.as_deref())?;
        let headings = headings::Headings::of(&statement);
        clauses::settle(&mut statement)?;
        let prepare = Box::pin(self.prepare(&query, statement, headings, deadline));
        timeout_at(deadline, prepare).await.unwrap_or(Err(QueryError::Timeout { limit }))
    }

    async fn prepare(
        &self,
        query: &Query,
        statement: Statement,
        headings: headings::Headings,
        deadline: Instant,
    ) -> Result<Answer, QueryError> {
        let turn = if query.unqueued { None } else { Some(self.turns.wait(query.asker.as_ref()).await?) };
        let resolved = resolve::resolve(self, &statement, query).await?;
        let task = Task {
            state: resolved.state,
            statement,
            headings,
            rows: query.limit,
            memory_bytes: self.limits.memory_bytes,
            deadline,
            limit: query.timeout.map_or(self.limits.time, |wanted| wanted.min(self.limits.time)),
            turn,
        };
        Answer::start(task, resolved.snapshots, resolved.scans, self.threads.handle()).await
    }

    /// Runs work on the threads of queries, which yield to all others. It is given up with the future that is returned.
    ///
    /// # Errors
    /// The work panicked, or the engine is being shut down.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Option<T>, JoinError> {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, self.threads.handle());
        tasks.join_next().await.transpose()
    }

    /// A table as it is now; `None` when nothing made it yet.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn snapshot(&self, namespace: &str, name: &str) -> Result<Option<Arc<TableSnapshot>>, QueryError> {
        match self.reader(&TableIdent::new(namespace, name)).snapshot().await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(ReadError::Head(HeadError::NotFound(_))) => Ok(None),
            Err(error) => Err(QueryError::lake(&error)),
        }
    }

    /// Asks the catalog for a table and the store for the file it points at, which readers remember otherwise.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn check(&self, namespace: &str, name: &str) -> Result<(), QueryError> {
        if let Some(snapshot) = self.snapshot(namespace, name).await? {
            let fetched = self.lake.store().get(snapshot.metadata_location()).await;
            fetched.map_err(|error| QueryError::lake(&error.into()))?;
        }
        Ok(())
    }

    /// The reader of a table, which remembers its newest snapshot. Whether the table exists shows when it is read.
    fn reader(&self, table: &TableIdent) -> TableReader {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.entry(table.clone()).or_insert_with(|| self.lake.table(&table.namespace, &table.name)).clone()
    }
}
