//! Takes snapshots out of a table's metadata. What only they needed is the cleaner's to find and delete.

use std::collections::BTreeSet;

use async_trait::async_trait;
use iceberg::TableUpdate;

use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::retention::{Held, Retained, may_expire};

/// Takes snapshots out of the metadata.
///
/// It may land on every head in which none of them is current, named by a branch or tag, or pinned by a reader.
/// Snapshots that have left the metadata before are ignored. Attachments stay: they belong to the log's offsets, not to
/// a snapshot.
#[derive(Debug, Clone)]
pub struct Expire {
    /// Ids of the snapshots.
    pub snapshots: BTreeSet<i64>,
}

#[async_trait]
impl Action for Expire {
    type Refusal = Conflict;
    type Found = ();

    async fn check(&self, base: &Base<'_>) -> Result<Checked<(), Conflict>, CommitError> {
        let held = Held::of(base.head, (base.environment.unix_ms)());
        let valid = may_expire(&self.snapshots, &held);
        Ok(checked(valid.map_err(|Retained { snapshot, holder }| Conflict::SnapshotHeld { snapshot, holder })))
    }

    async fn apply(&self, base: &Base<'_>, (): ()) -> Result<Change, CommitError> {
        let table = &base.head.metadata;
        // A commit may have left one out meanwhile (`retention::thinned`): what is gone is no conflict.
        let known = self.snapshots.iter().copied().filter(|id| table.snapshot_by_id(*id).is_some());
        let snapshot_ids: Vec<i64> = known.collect();
        let updates =
            if snapshot_ids.is_empty() { vec![] } else { vec![TableUpdate::RemoveSnapshots { snapshot_ids }] };
        Ok(Change { updates, ..Change::default() })
    }
}
