//! Commits a change of maintenance, whatever becomes of a reply.

use lake::commit::{ActionOutcome, CommitError, Committed, Conflict, Maintenance, StopReason};
use lake::{TableHandle, Token};
use tables::def::TableName;

/// How often a commit is repeated whose result is not known, or that no server took. Each tries for half a minute
/// itself.
const TRIES: u32 = 4;

/// How a change ended that was neither lost nor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// It is in the table.
    Committed(Committed),
    /// The table has moved so that it does not fit any more: it is planned anew.
    Conflict(Conflict),
}

/// Why it is not known, or not possible, that a change lands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandError {
    #[error("table {table} cannot be maintained")]
    Stopped { table: TableName, source: StopReason },
    #[error(
        "it is not known whether a change of table {table} was committed: if it was not, its files are orphans, and it is planned anew"
    )]
    Unknown { table: TableName, source: CommitError },
    #[error("a change of table {table} was not committed")]
    Unreachable { table: TableName, source: CommitError },
}

impl LandError {
    /// The same change may land later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stopped { .. } => false,
            Self::Unknown { .. } => true,
            Self::Unreachable { source, .. } => source.is_transient(),
        }
    }
}

/// Commits a change. Every attempt has the same token, so that a commit whose reply was lost is found.
///
/// # Errors
/// The table is not what it was, or catalog or store did not answer.
pub async fn land(table: &TableHandle, change: &Maintenance) -> Result<Landed, LandError> {
    // One for all attempts: with a new one, a commit that was applied late would land twice (ADR 31).
    let token = Token::random();
    let name = table.def().name;
    let mut left = TRIES;
    loop {
        left -= 1;
        let error = match table.maintain(change, token).await {
            ActionOutcome::Committed(committed) => return Ok(Landed::Committed(committed)),
            ActionOutcome::Conflict(conflict) => return Ok(Landed::Conflict(conflict)),
            ActionOutcome::Stop(source) => return Err(LandError::Stopped { table: name, source }),
            ActionOutcome::Unknown(source) => LandError::Unknown { table: name, source },
            ActionOutcome::Unreachable(source) => LandError::Unreachable { table: name, source },
        };
        // Unknown is repeated as well: looking at the table alone would not show a swap that is applied later.
        if left == 0 || !error.is_transient() {
            return Err(error);
        }
        tracing::warn!(table = %name, %error, "commit of a rewrite repeated with the same token");
    }
}
