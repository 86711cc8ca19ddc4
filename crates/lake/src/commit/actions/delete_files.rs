//! Takes files away together with their rows: retention by whole files.

use std::collections::BTreeSet;

use async_trait::async_trait;
use iceberg::spec::Operation;

use super::files::{Located, locate};
use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::manifests::{Builder, Removal};
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::snapshot::{self, Counts, NewSnapshot};

/// Takes files away. The objects stay in the store for older snapshots.
///
/// It may land on every head that lists each file once. A file that a rewrite has replaced meanwhile is a conflict: its
/// rows are in another file now. Offsets stay, so that nothing of it is read again.
#[derive(Debug, Clone)]
pub struct DeleteFiles {
    /// Locations of the files.
    pub files: BTreeSet<String>,
}

#[async_trait]
impl Action for DeleteFiles {
    type Refusal = Conflict;
    type Found = Located;

    fn problem(&self) -> Option<String> {
        self.files.is_empty().then(|| "the request names no file to remove".to_owned())
    }

    async fn check(&self, base: &Base<'_>) -> Result<Checked<Located, Conflict>, CommitError> {
        Ok(checked(locate(base, &self.files).await?))
    }

    async fn apply(&self, base: &Base<'_>, found: Located) -> Result<Change, CommitError> {
        // From the manifests of this head: the request names only locations.
        let removed = Counts::of(found.entries(&self.files).map(|entry| entry.data_file()));
        let removal = Removal { paths: &self.files, touched: found.touched };
        let manifests = Builder::new(base).rewrite(found.manifests, removal, &[]).await?;
        let parent = base.head.metadata.current_snapshot();
        let previous = parent.map(|s| &s.summary().additional_properties);
        let mut summary = snapshot::summary(previous, Counts::default(), removed);
        summary.extend(snapshot::standing(base.facts));
        let new = NewSnapshot {
            // Only files leave, none are added (Iceberg spec, "Snapshots").
            operation: Operation::Delete,
            parent: parent.map(|s| s.snapshot_id()),
            manifests,
            summary,
        };
        Ok(snapshot::add(base, new))
    }
}
