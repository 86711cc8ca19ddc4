//! Every way a command can fail, and the exit code it gives.

use service_kit::run::{Exit, Fatal};
use service_kit::telemetry::TelemetryError;

use crate::audit::AuditError;
use crate::client::{AskError, ClientError};
use crate::config::ConfigCommandError;
use crate::dlq::DlqError;
use crate::doctor::DoctorError;
use crate::import::ImportError;
use crate::maintain::MaintainError;
use crate::orphans::OrphansError;
use crate::place::PlaceError;
use crate::query::QueryError;
use crate::reprocess::ReprocessCommandError;
use crate::rollback::RollbackError;
use crate::tiers::TiersError;
use crate::up::UpError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Config(#[from] ConfigCommandError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Maintain(#[from] MaintainError),
    #[error(transparent)]
    Dlq(#[from] DlqError),
    #[error(transparent)]
    Reprocess(#[from] ReprocessCommandError),
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    #[error(transparent)]
    Orphans(#[from] OrphansError),
    #[error(transparent)]
    Tiers(#[from] TiersError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    #[error(transparent)]
    Up(#[from] UpError),
}

impl Fatal for CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Telemetry(error) => error.exit(),
            Self::Config(error) => error.exit(),
            Self::Place(error) => error.exit(),
            Self::Import(error) => error.exit(),
            Self::Audit(error) => error.exit(),
            Self::Maintain(error) => error.exit(),
            Self::Dlq(error) => error.exit(),
            Self::Reprocess(error) => error.exit(),
            Self::Rollback(error) => error.exit(),
            Self::Orphans(error) => error.exit(),
            Self::Tiers(error) => error.exit(),
            Self::Query(error) => error.exit(),
            Self::Client(error) => error.exit(),
            Self::Ask(error) => error.exit(),
            Self::Up(error) => error.exit(),
            // A configuration that cannot be read is one of the doctor's results, so no error of its own is one of
            // usage.
            Self::Doctor(_) => Exit::Failed,
        }
    }
}
