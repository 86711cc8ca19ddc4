//! The outcomes of a commit: values and not errors, because most outcomes of a commit are no errors.

use event_schema::position::OffsetRange;
use objects::StoreError;

use super::reply::StopReason;
use super::retention::Holder;
use crate::catalog::{CatalogError, HeadError, MetadataFileError};
use crate::table::manifests::ManifestError;
use crate::table::schema::SchemaMismatch;

/// What became of a commit.
#[derive(Debug)]
#[must_use = "an outcome other than Committed must be handled"]
pub enum CommitOutcome {
    /// The batch is in the table.
    Committed(Committed),
    /// A part landed before (a former owner, an earlier run): make the files anew for these ranges, with a new token.
    Trim(Vec<OffsetRange>),
    /// All of it landed before, or others own the partitions and are further on. Read the table's offsets and go on.
    Drop,
    /// The table is not the one that was opened; going on would lose or repeat rows.
    Stop(StopReason),
    /// A swap was sent, and its result could not be determined in time. Commit again **with the same request**.
    Unknown(CommitError),
    /// No swap of this call has landed or can land late; one of an earlier call that ended [`Self::Unknown`] still can.
    /// Commit again later with the same request, if [`CommitError::is_transient`].
    Unreachable(CommitError),
}

/// What became of a maintenance action.
#[derive(Debug)]
#[must_use = "an outcome other than Committed must be handled"]
pub enum ActionOutcome {
    /// The change is in the table.
    Committed(Committed),
    /// The head has moved so that the change does not fit it any more: plan it anew.
    Conflict(Conflict),
    /// The table is not the one that was opened, or the request is malformed.
    Stop(StopReason),
    /// A commit was sent, and its result could not be determined in time. Apply the same action again **with the same
    /// token**.
    Unknown(CommitError),
    /// No commit of this call has landed or can land late. The action may be applied again, if
    /// [`CommitError::is_transient`].
    Unreachable(CommitError),
}

/// Why an action is not valid on a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    #[error("the file {path} is not in the table any more: plan the change on the current snapshot")]
    FileGone { path: String },
    #[error("the file {path} is listed more than once: another program added it twice; its rows would stay")]
    FileListedTwice { path: String },
    #[error(
        "the table has row-level deletes, which are not applied here: compact it with the program that wrote them, \
         Spark's rewrite_data_files for instance"
    )]
    RowLevelDeletes,
    #[error("the inputs hold {inputs} rows and the outputs {outputs}: a rewrite must keep every row")]
    RowCount { inputs: u64, outputs: u64 },
    #[error(
        "the snapshot with sequence number {sequence} rolled the table back or made rows of it again: plan the change on the \
         current snapshot"
    )]
    Rewritten { sequence: i64 },
    #[error("snapshot {snapshot} must stay: {holder}")]
    SnapshotHeld { snapshot: i64, holder: Holder },
    #[error("another program committed to the table since the change was planned: stop it, and plan the change anew")]
    Moved,
    #[error("snapshot {snapshot} is not in the table's history: it expired, was rolled back, or is of another branch")]
    NotInHistory { snapshot: i64 },
    #[error("the table's earlier offsets cannot be known: {problem}; rows would be lost or read twice")]
    OffsetsUnknown { problem: String },
    #[error(transparent)]
    Schema(SchemaMismatch),
}

/// A landed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The snapshot that the change added; of a change of properties or metadata alone, an id that no snapshot has.
    pub snapshot_id: i64,
    /// Iceberg sequence number of the snapshot; of the head when the batch was found landed.
    pub sequence_number: i64,
    /// The number in the metadata file's name: how many versions the table has had.
    pub metadata_version: u32,
    /// Commits sent for this change by this call.
    pub swaps: u32,
}

/// What kept a commit from being carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    #[error("cannot read the table's head")]
    Head(#[source] HeadError),
    #[error("cannot write the commit's files")]
    Store(#[source] StoreError),
    #[error("the catalog did not confirm the commit")]
    Catalog(#[source] CatalogError),
    #[error("cannot {what}")]
    Metadata { what: &'static str, source: iceberg::Error },
    #[error("cannot write the table's metadata")]
    MetadataFile(#[source] MetadataFileError),
    #[error("cannot read the table's manifests")]
    Manifest(#[source] ManifestError),
    #[error("snapshot {snapshot} left the metadata while the commit was made")]
    SnapshotGone { snapshot: i64 },
    #[error("the commit's files were not written within the time limit")]
    SlowStore,
    #[error("no commit was sent within the time limit: the catalog answers too slowly, or takes no connection")]
    SlowCatalog,
    #[error("other writers won every one of {swaps} swaps within the time limit")]
    Contention { swaps: u32 },
}

impl From<MetadataFileError> for CommitError {
    fn from(error: MetadataFileError) -> Self {
        match error {
            MetadataFileError::Store(error) => Self::Store(error),
            error => Self::MetadataFile(error),
        }
    }
}

impl CommitError {
    /// The same request may succeed later, once a server is back or other writers are slower.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Head(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Catalog(error) => error.is_transient(),
            Self::Manifest(error) => error.is_transient(),
            // Matters of load: store, catalog or the other writers may be slower or faster the next time.
            Self::SlowStore | Self::SlowCatalog | Self::Contention { .. } => true,
            // Repeating the same request would not help.
            Self::SnapshotGone { .. } | Self::Metadata { .. } | Self::MetadataFile(_) => false,
        }
    }
}
