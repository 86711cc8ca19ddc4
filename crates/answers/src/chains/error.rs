//! Why a window could not be looked at.

use chain_engine::ColumnError;
use query_engine::QueryError;

/// Why a window could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ChainsError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("events cannot be given to the chain engine")]
    Columns(#[from] ColumnError),
    #[error("the chain engine ended without an answer; the log has the reason")]
    Ended,
}
