//! The next version of a table's metadata: a head, the updates of an action, and its token.

use std::sync::Arc;

use iceberg::spec::MAIN_BRANCH;
use iceberg::{TableRequirement, TableUpdate};

use super::base::Base;
use super::manifests::metadata_error;
use super::outcome::CommitError;
use crate::catalog::{Version, updated};
use crate::table::Token;
use crate::table::positions::{TOKENS, TOKENS_KEPT};

/// Puts updates on top of a head. Everything that they do not name is carried on: offsets, gaps and attachments of the
/// log, and the tokens of earlier changes but the oldest.
pub(super) fn next(base: &Base<'_>, mut updates: Vec<TableUpdate>) -> Result<Version, CommitError> {
    let table = &base.head.metadata;
    // In the same version as the change: a token must be in the table if and only if its change is.
    updates.push(TableUpdate::SetProperties { updates: [(TOKENS.to_owned(), tokens(base))].into() });
    let (built, refs) =
        updated(base.head, updates).map_err(metadata_error("put the change into the table's metadata"))?;
    // For a server that compares requirements (Iceberg REST spec, `TableRequirement`). The SQL catalog compares the
    // pointer, which is stricter.
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: table.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: table.current_snapshot_id(),
        },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: table.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: table.default_partition_spec_id() },
    ];
    let expired_metadata = built.expired_metadata_logs.into_iter().map(|log| log.metadata_file).collect();
    Ok(Version { metadata: Arc::new(built.metadata), refs, updates: built.changes, requirements, expired_metadata })
}

/// The tokens that the head records and that of this change, without the oldest beyond [`TOKENS_KEPT`].
fn tokens(base: &Base<'_>) -> String {
    let known = &base.facts.tokens;
    let skip = (known.len() + 1).saturating_sub(TOKENS_KEPT);
    let kept: Vec<_> = known.iter().skip(skip).chain([&base.token]).map(Token::to_string).collect();
    kept.join(",")
}
