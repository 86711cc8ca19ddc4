//! What a caller hands to a commit and gets back: values, not exceptions, because most outcomes of a commit are not errors.

use std::collections::BTreeMap;

use event_schema::position::OffsetRange;
use iceberg::spec::DataFile;

use super::StopReason;
use crate::catalog::{CatalogError, HeadError, MetadataFileError};
use crate::table::Token;
use crate::table::manifests::ManifestError;
use objects::StoreError;

/// One batch to land in one table.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// What of the log the files hold, at most one range per partition; a range behind a gap may be empty. None for batches
    /// that do not come from the log; then only the token guards against landing twice.
    pub ranges: Vec<OffsetRange>,
    /// Offsets in front of `ranges` that the log does not hold (retention, compaction, first attach): landed as explained.
    pub gaps: Vec<OffsetRange>,
    pub token: Token,
    /// Files made by [`crate::TableHandle::write`]; may be empty, the offsets advance all the same.
    pub files: Vec<DataFile>,
    /// Further table properties to set, such as the identity of the log. Keys begin with
    /// `causeway.` and are none of the committer's own.
    pub properties: BTreeMap<String, String>,
}

impl CommitRequest {
    pub fn new(ranges: Vec<OffsetRange>, token: Token, files: Vec<DataFile>) -> Self {
        Self { ranges, gaps: Vec::new(), token, files, properties: BTreeMap::new() }
    }
}

/// What became of a commit.
#[derive(Debug)]
#[must_use = "an outcome other than Committed needs an answer"]
pub enum CommitOutcome {
    /// The batch is in the table.
    Committed(Committed),
    /// A part landed before (a former owner, an earlier run): make the files anew for these ranges, with a new token.
    Trim(Vec<OffsetRange>),
    /// All of it landed before, or others own the partitions and are further on. Read the table's offsets and go on.
    Drop,
    /// The table is not what it was; going on would lose or repeat rows.
    Stop(StopReason),
    /// A swap left and its fate could not be learnt in time. Commit again **with the same request**.
    Unknown(CommitError),
    /// No swap of this call has landed or can land late; one of an earlier call that ended [`Self::Unknown`] still can. Commit
    /// again later with the same request, if [`CommitError::is_transient`].
    Unreachable(CommitError),
}

/// A landed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub snapshot_id: i64,
    /// Iceberg sequence number of the snapshot; of the head when the batch was found landed.
    pub sequence_number: i64,
    /// The number in the metadata file's name: how many versions the table has had.
    pub metadata_version: u32,
    /// Swaps sent for this batch by this call.
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
    #[error("cannot encode the table's metadata")]
    Encode(#[source] serde_json::Error),
    #[error("cannot read the table's manifests")]
    Manifest(#[source] ManifestError),
    #[error("the commit's files were not written within the time limit")]
    SlowStore,
    #[error("other writers won every one of {swaps} swaps within the time limit")]
    Contention { swaps: u32 },
}

impl From<MetadataFileError> for CommitError {
    fn from(error: MetadataFileError) -> Self {
        match error {
            MetadataFileError::Store(error) => Self::Store(error),
            MetadataFileError::Encode(error) => Self::Encode(error),
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
            Self::SlowStore | Self::Contention { .. } => true,
            Self::Metadata { .. } | Self::Encode(_) => false,
        }
    }
}
