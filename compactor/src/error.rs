//! Why the compactor ends, or does not begin.

use lake::CatalogError;
use maintenance::rewrite::PrepareError;
use maintenance::{LandError, LeftAlone};
use service_kit::run::Fatal;
use tables::def::TableName;
use tokio::task::JoinError;

/// Why the compactor did not begin, or ended. A task that fails ends nothing: it is logged, counted and planned anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactorError {
    #[error("the leases of maintenance cannot be used")]
    Leases(#[source] CatalogError),
    #[error("threads for rewrites cannot be started")]
    Threads(#[source] std::io::Error),
    #[error("the task that rewrites failed; the log has its message")]
    Task(#[source] JoinError),
}

impl Fatal for CompactorError {}

/// Why one table was not looked at, or one task not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("the catalog cannot be read")]
    Catalog(#[source] CatalogError),
    #[error("table {table} cannot be opened")]
    Open { table: TableName, source: lake::EnsureError },
    #[error("table {table} cannot be read")]
    Read { table: TableName, source: lake::ReadError },
    #[error("table {table} is left alone")]
    LeftAlone { table: TableName, source: LeftAlone },
    #[error("a lease cannot be taken")]
    Lease(#[source] CatalogError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Land(#[from] LandError),
}

impl TaskError {
    /// The same may succeed later, without a change of the table.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Catalog(error) | Self::Lease(error) => error.is_transient(),
            Self::Read { source, .. } => source.is_transient(),
            Self::Prepare(error) => error.is_transient(),
            Self::Land(error) => error.is_transient(),
            Self::Open { .. } | Self::LeftAlone { .. } => false,
        }
    }
}
