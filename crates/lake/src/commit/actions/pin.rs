//! Pins a snapshot, so that it stays in the metadata and its files in the store.

use async_trait::async_trait;
use iceberg::TableUpdate;

use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::retention::Pin;

/// Sets a pin, or replaces the one that its owner has on the snapshot.
///
/// It may land on every head that has the snapshot. Setting the property alone would not do: a commit may take the
/// snapshot out in between, and the pin would hold nothing.
#[derive(Debug, Clone)]
pub struct PinSnapshot {
    /// The pin.
    pub pin: Pin,
}

#[async_trait]
impl Action for PinSnapshot {
    type Refusal = Conflict;
    type Found = ();

    fn problem(&self) -> Option<String> {
        self.pin.check().err().map(|malformed| malformed.to_string())
    }

    async fn check(&self, base: &Base<'_>) -> Result<Checked<(), Conflict>, CommitError> {
        let snapshot = self.pin.snapshot;
        let found = base.head.metadata.snapshot_by_id(snapshot).map(|_| ());
        Ok(checked(found.ok_or(Conflict::NotInHistory { snapshot })))
    }

    async fn apply(&self, _base: &Base<'_>, (): ()) -> Result<Change, CommitError> {
        let set = TableUpdate::SetProperties { updates: [self.pin.property()].into() };
        Ok(Change { updates: vec![set], ..Change::default() })
    }
}
