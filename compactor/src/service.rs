//! The entry points: the service, and maintenance of some tables until nothing is left to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use lake::Lake;
use service_kit::admin::Readiness;
use service_kit::clock::Clock;
use service_kit::run::{Drain, in_a_line};
use service_kit::threads::Threads;
use tables::registry::Table;
use uuid::Uuid;

use crate::error::{CompactorError, TaskError};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pace::Pace;
use crate::worker::{Round, Worker};

/// A thread that rewrites, and one that answers meanwhile.
const THREADS: usize = 2;
const STACK_BYTES: usize = 8 << 20;

/// What the compactor works with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Where the tables are.
    pub lake: &'a Lake,
    /// The tables that are maintained. Those that do not exist yet are not made.
    pub tables: &'static [Table],
    /// The wall time by which days are over.
    pub clock: Arc<dyn Clock>,
    /// The counters, registered by the caller.
    pub metrics: Metrics,
}

/// The compactor, ready to run.
#[derive(Debug)]
pub struct Compactor {
    worker: Worker,
    threads: Threads,
}

impl Compactor {
    /// Makes the catalog's table of leases where it is absent, and starts threads of low priority.
    ///
    /// # Errors
    /// The catalog cannot be reached or is no SQL catalog, or the system gives no more threads.
    pub async fn open(parts: Parts<'_>, options: Options, readiness: &Readiness) -> Result<Self, CompactorError> {
        let worker = worker(parts, options, readiness).await?;
        let threads = Threads::start("compactor", THREADS, STACK_BYTES).map_err(CompactorError::Threads)?;
        Ok(Self { worker, threads })
    }

    /// Maintains the tables until drained. A rewrite that has begun is broken off, a commit is finished.
    ///
    /// # Errors
    /// The task that rewrites has panicked. Nothing else ends it: a catalog or store that is away is waited for.
    pub async fn run(self, drain: Drain) -> Result<(), CompactorError> {
        // The threads live until the task has ended: dropping them would end it in the middle of a commit.
        let Self { worker, threads } = self;
        threads.handle().spawn(run(worker, drain)).await.map_err(CompactorError::Task)
    }
}

async fn worker(parts: Parts<'_>, options: Options, readiness: &Readiness) -> Result<Worker, CompactorError> {
    let Parts { lake, tables, clock, metrics } = parts;
    Ok(Worker {
        lake: lake.clone(),
        leases: lake.leases().await.map_err(CompactorError::Leases)?,
        // No two processes have the same, not even two runs of one.
        holder: Uuid::new_v4().simple().to_string(),
        tables,
        pace: Pace::new(options.bytes_per_hour),
        options,
        clock,
        metrics,
        looking: readiness.condition("compactor", "the tables were not looked at yet"),
        handles: BTreeMap::new(),
        refused: BTreeMap::new(),
        reasons: BTreeMap::new(),
    })
}

async fn run(mut worker: Worker, drain: Drain) {
    let interval = worker.options.interval;
    while !drain.is_cancelled() {
        match worker.round(&drain).await {
            // What was replaced may be merged further: the next round begins at once.
            Ok(Round { replaced: 1.., .. }) => continue,
            Ok(_) => {}
            Err(error) => {
                let reason = in_a_line(&error);
                tracing::warn!(reason, "the tables cannot be looked at; trying again until it succeeds");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = drain.cancelled() => {}
        }
    }
}

/// What was done until nothing was left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Commits that replaced files.
    pub replaced: u64,
    /// Tasks and looks at tables that failed; the log has the reasons.
    pub failed: u64,
    /// Tasks that are another compactor's, or were broken off.
    pub left: u64,
}

/// Maintains tables until nothing is left that this process may do.
///
/// # Errors
/// The leases cannot be used, or the catalog cannot be read.
pub async fn maintain(parts: Parts<'_>, options: Options, drain: &Drain) -> Result<Done, MaintainError> {
    // No port serves its readiness.
    let mut worker = worker(parts, options, &Readiness::new()).await?;
    let mut done = Done::default();
    loop {
        let Round { replaced, failed, left } = worker.round(drain).await.map_err(Box::new)?;
        // What is left counts as of the last round: the others may have been done since.
        done = Done { replaced: done.replaced + replaced, failed: done.failed + failed, left };
        if replaced == 0 || drain.is_cancelled() {
            return Ok(done);
        }
    }
}

/// Why tables were not maintained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintainError {
    #[error(transparent)]
    Open(#[from] CompactorError),
    #[error("the tables cannot be looked at")]
    Look(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Box<TaskError>> for MaintainError {
    fn from(error: Box<TaskError>) -> Self {
        Self::Look(error)
    }
}
