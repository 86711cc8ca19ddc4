//! The entry: one engine per process, whose queries share threads, caches and limits.
//!
//! Plans run on a runtime of their own, so that a heavy query never delays a health check or the next page of another.

use std::sync::Arc;

use datafusion::sql::parser::Statement as Parsed;
use lake::{Lake, TableIdent, TableSnapshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::error::QueryError;
use crate::execution::{Answer, Task};
use crate::headings::Headings;
use crate::query::Query;
use crate::sandbox::limits::Limits;
use crate::sandbox::permits::Permits;
use crate::sandbox::threads::Threads;
use crate::sandbox::{clauses, complexity};
use crate::scan::readers::Readers;
use crate::scan::resolve::resolve;
use crate::session::Sessions;
use crate::show;

/// The engine.
pub struct Engine {
    readers: Readers,
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
            readers: Readers::new(lake),
            sessions,
            threads: Threads::start(cores).map_err(EngineError::Threads)?,
            permits: Permits::new(&limits),
            limits,
        })
    }

    /// What queries may use.
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
        let parsed = query.statement.clone().into_parsed();
        complexity::check_statement(&parsed)?;
        let mut parsed = show::as_query(parsed, query.catalog.as_deref(), query.schema.as_deref())?;
        let headings = Headings::of(&parsed);
        clauses::settle(&mut parsed)?;
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
            permit,
        };
        Answer::start(task, resolved.snapshots, resolved.scans, self.threads.handle()).await
    }

    /// Runs work on the threads of queries, which yield to all others. It is given up with the future that is returned.
    ///
    /// # Errors
    /// The work panicked, or the engine is being shut down.
    pub async fn aside<T: Send + 'static>(
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
        self.readers.snapshot(&TableIdent::new(namespace, name)).await
    }

    /// Whether a table can be read: asks the catalog, and the store for the file that the catalog points at.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn check(&self, namespace: &str, name: &str) -> Result<(), QueryError> {
        self.readers.check(&TableIdent::new(namespace, name)).await
    }
}
