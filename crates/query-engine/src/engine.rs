//! The entry point: one engine per process. Its queries share threads, caches and limits.
//!
//! Plans run on a separate runtime, so that an expensive query delays neither a health check nor the next page of
//! another answer.

use std::sync::Arc;

use datafusion::sql::parser::Statement as Parsed;
use lake::{Lake, TableIdent, TableSnapshot};
use objects::Store;
use service_kit::threads::Threads;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::error::QueryError;
use crate::execution::{Answer, Task};
use crate::headings::Headings;
use crate::query::Query;
use crate::sandbox::limits::Limits;
use crate::sandbox::permits::Permits;
use crate::sandbox::{clauses, complexity};
use crate::scan::readers::Readers;
use crate::scan::resolve::resolve;
use crate::session::Sessions;
use crate::show;

/// The planners are recursive; the limits on a text keep them well inside this stack.
const STACK_BYTES: usize = 32 << 20;

/// Plans and runs queries over the tables of one lake.
pub struct Engine {
    readers: Readers,
    store: Store,
    sessions: Sessions,
    limits: Limits,
    threads: Threads,
    permits: Permits,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why the engine could not be created.
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
        // `available_parallelism` respects the CPU affinity and the cgroup quota. It counts both threads and partitions
        // of a plan, so that each thread has a partition to work on. 1 where the count is unknown.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions = Sessions::new(lake.store().objects(), &limits, cores).map_err(EngineError::Session)?;
        Ok(Self {
            store: lake.store().clone(),
            readers: Readers::new(lake),
            sessions,
            threads: Threads::start("query", cores, STACK_BYTES).map_err(EngineError::Threads)?,
            permits: Permits::new(&limits),
            limits,
        })
    }

    /// What queries may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Plans a query and starts it; its rows are read with [`Answer::next`]. Dropping the answer cancels the query.
    ///
    /// # Errors
    /// The statement is refused, wrong or over the limits, or the lake cannot be read.
    pub async fn query(&self, query: Query) -> Result<Answer, QueryError> {
        // A client may shorten the time limit of the server, and cannot extend it.
        let limit = query.timeout.map_or(self.limits.time, |wanted| wanted.min(self.limits.time));
        let deadline = Instant::now() + limit;
        let parsed = query.statement.clone().into_parsed();
        // Statements that write are refused here, before anything else handles them.
        complexity::check_statement(&parsed)?;
        let mut parsed = show::as_query(parsed, query.catalog.as_deref(), query.schema.as_deref())?;
        // Taken before `settle` rewrites clauses: a heading repeats the text of the statement.
        let headings = Headings::of(&parsed);
        clauses::settle(&mut parsed)?;
        // One deadline covers the queue, the catalog, planning and rows: the limit is on the time that the client
        // waits.
        let prepare = Box::pin(self.prepare(&query, parsed, headings, deadline));
        timeout_at(deadline, prepare).await.unwrap_or(Err(QueryError::Timeout { limit }))
    }

    async fn prepare(
        &self,
        query: &Query,
        statement: Parsed,
        headings: Headings,
        deadline: Instant,
    ) -> Result<Answer, QueryError> {
        // Admission control comes before the first catalog lookup, so that a refused query costs no I/O. A query on
        // behalf of one that holds a permit takes none: with all permits held by queries that wait for such queries,
        // there would be a deadlock.
        let permit = if query.unqueued { None } else { Some(self.permits.wait(query.asker.as_ref()).await?) };
        let resolved = resolve(&self.readers, &self.sessions, &statement, query).await?;
        let task = Task {
            state: resolved.state,
            statement,
            headings,
            rows: query.limit,
            memory_bytes: self.limits.memory_bytes,
            deadline,
            limit: query.timeout.map_or(self.limits.time, |wanted| wanted.min(self.limits.time)),
            store: self.store.clone(),
            permit,
        };
        Answer::start(task, resolved.snapshots, resolved.scans, self.threads.handle()).await
    }

    /// Runs work on the query threads, which have a lower priority than the rest of the process. Dropping the returned
    /// future aborts the work.
    ///
    /// # Errors
    /// The work panicked, or the engine is being shut down.
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Option<T>, JoinError> {
        // A `JoinSet` aborts its tasks when it is dropped. Dropping a bare `JoinHandle` would leave the task running.
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, self.threads.handle());
        tasks.join_next().await.transpose()
    }

    /// The current snapshot of a table; `None` when the table has not been created yet.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn snapshot(&self, namespace: &str, name: &str) -> Result<Option<Arc<TableSnapshot>>, QueryError> {
        self.readers.snapshot(&TableIdent::new(namespace, name)).await
    }

    /// Whether a table can be read: queries the catalog, and fetches the metadata file that the catalog points at.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn check(&self, namespace: &str, name: &str) -> Result<(), QueryError> {
        self.readers.check(&TableIdent::new(namespace, name)).await
    }
}
