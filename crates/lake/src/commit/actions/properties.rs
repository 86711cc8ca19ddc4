//! Sets and removes table properties: records of a maintainer, settings of the table.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use iceberg::TableUpdate;

use super::{Action, Checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::retention;
use crate::table::positions::is_protocol_property;

/// Sets and removes properties. It may land on every head; properties that the protocol rests on are refused.
#[derive(Debug, Clone, Default)]
pub struct SetProperties {
    /// Values by key.
    pub set: BTreeMap<String, String>,
    /// Keys; absent ones are no error.
    pub remove: BTreeSet<String>,
}

#[async_trait]
impl Action for SetProperties {
    type Refusal = Conflict;
    type Found = ();

    fn problem(&self) -> Option<String> {
        if let Some(key) = self.set.keys().chain(&self.remove).find(|key| is_protocol_property(key)) {
            return Some(format!("the property {key} may not be set by the caller"));
        }
        self.set.iter().find_map(|(key, value)| retention::problem(key, value))
    }

    async fn check(&self, _base: &Base<'_>) -> Result<Checked<(), Conflict>, CommitError> {
        Ok(Checked::Valid(()))
    }

    async fn apply(&self, _base: &Base<'_>, (): ()) -> Result<Change, CommitError> {
        let mut updates = Vec::new();
        if !self.set.is_empty() {
            let set = self.set.iter().map(|(key, value)| (key.clone(), value.clone()));
            updates.push(TableUpdate::SetProperties { updates: set.collect() });
        }
        if !self.remove.is_empty() {
            // Updates apply in order: a key that is both set and removed ends up removed.
            updates.push(TableUpdate::RemoveProperties { removals: self.remove.iter().cloned().collect() });
        }
        Ok(Change { updates, ..Change::default() })
    }
}
