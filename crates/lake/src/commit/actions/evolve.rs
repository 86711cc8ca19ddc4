//! Brings a table's schema and partition spec to a definition.

use async_trait::async_trait;
use iceberg::TableUpdate;
use tables::def::TableDef;

use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::outcome::{CommitError, Conflict};
use crate::table::schema::{self, Evolution};

/// Brings the table to a definition: adds its optional columns, widens `int` to `long` and `float` to `double`, makes
/// required columns optional, and makes its partition spec the default one (Iceberg spec, "Schema Evolution",
/// "Partition Evolution").
///
/// It may land on every head whose schema can be brought there without changing what old rows mean. Writers whose files
/// do not fit the new schema or spec stop at their next commit and restart.
#[derive(Debug, Clone)]
pub struct Evolve {
    /// The definition to come to.
    pub def: TableDef,
}

#[async_trait]
impl Action for Evolve {
    type Refusal = Conflict;
    type Found = Evolution;

    async fn check(&self, base: &Base<'_>) -> Result<Checked<Evolution, Conflict>, CommitError> {
        let evolution = schema::evolve(&self.def, base.ident, &base.head.metadata);
        Ok(checked(evolution.map_err(Conflict::Schema)))
    }

    async fn apply(&self, _base: &Base<'_>, found: Evolution) -> Result<Change, CommitError> {
        let mut updates = Vec::new();
        // -1: the one added last (Iceberg REST spec, `SetCurrentSchemaUpdate`). A table that is at the definition
        // already gets a version with the token and no other change.
        if let Some(schema) = found.schema {
            updates.extend([TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]);
        }
        if let Some(spec) = found.spec {
            updates.extend([TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }]);
        }
        Ok(Change { updates, ..Change::default() })
    }
}
