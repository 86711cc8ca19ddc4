//! The next version of a table's metadata: one more snapshot, the offsets moved, and snapshots too many left out. Old
//! snapshots only leave the metadata; their files stay for the orphan cleaner.

use std::collections::HashMap;

use bytes::Bytes;
use iceberg::TableRequirement;
use iceberg::spec::{
    DataFile, MAIN_BRANCH, ManifestFile, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary,
};

use super::manifests::{Builder, MergePolicy, NewSnapshot, metadata_error};
use super::offsets::{landed_properties, landed_summary};
use super::{BatchFacts, CommitError, CommitRequest, HeadFacts};
use crate::catalog::{Head, Version};
use crate::environment::Environment;
use crate::table::schema::SNAPSHOTS_TO_KEEP;
use objects::Store;

/// Snapshots kept in the metadata when the table does not say. Every commit writes the whole history again: a hundred
/// snapshots are about 70 kB.
const DEFAULT_SNAPSHOTS_TO_KEEP: usize = 100;

/// The next version and the objects it needs.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) version: Version,
    pub(super) sequence_number: i64,
    pub(super) list_location: String,
    pub(super) manifests: Vec<ManifestFile>,
    pub(super) objects: Vec<(String, Bytes)>,
}

/// Puts the batch on top of a head.
pub(super) async fn next(
    store: &Store,
    environment: &Environment,
    base: (&Head, &HeadFacts, Vec<ManifestFile>),
    batch: &BatchFacts,
    request: &CommitRequest,
) -> Result<Proposal, CommitError> {
    let (head, facts, parent_manifests) = base;
    let table = head.metadata.as_ref();
    let parent = table.current_snapshot();
    let new = NewSnapshot {
        id: batch.token.snapshot_id(),
        parent: parent.map(|s| s.snapshot_id()),
        sequence_number: table.next_sequence_number(),
    };
    let builder = Builder { store, table, snapshot: new, policy: MergePolicy::DEFAULT, new_id: environment.new_id };
    let built = builder.append(parent_manifests, &request.files).await?;

    let previous = parent.map(|s| &s.summary().additional_properties);
    let mut summary = summary(previous, &request.files);
    summary.extend(landed_summary(batch));
    let snapshot = Snapshot::builder()
        .with_snapshot_id(new.id)
        .with_parent_snapshot_id(new.parent)
        .with_sequence_number(new.sequence_number)
        // Another machine's clock may be ahead; a snapshot is never older than the one it follows.
        .with_timestamp_ms((environment.unix_ms)().max(table.last_updated_ms()))
        .with_manifest_list(built.list_location.clone())
        .with_schema_id(table.current_schema_id())
        .with_summary(Summary { operation: Operation::Append, additional_properties: summary })
        .build();
    let main = head.refs.get(MAIN_BRANCH).map(|main| main.retention.clone());
    let retention = main.unwrap_or_else(|| SnapshotRetention::branch(None, None, None));
    let reference = SnapshotReference::new(new.id, retention);
    let mut properties = landed_properties(facts, batch);
    properties.extend(request.properties.iter().map(|(key, value)| (key.clone(), value.clone())));
    let next = table
        .clone()
        .into_builder(Some(head.location.to_string()))
        .add_snapshot(snapshot)
        .and_then(|builder| builder.set_ref(MAIN_BRANCH, reference.clone()))
        .and_then(|builder| builder.set_properties(properties))
        .map(|builder| builder.remove_snapshots(&expired(head)))
        .and_then(|builder| builder.build())
        .map_err(metadata_error("put the snapshot into the table's metadata"))?;
    let expired_metadata = next.expired_metadata_logs.iter().map(|log| log.metadata_file.clone()).collect();
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: table.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id: new.parent },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: table.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: table.default_partition_spec_id() },
    ];
    let mut refs = (*head.refs).clone();
    refs.insert(MAIN_BRANCH.to_owned(), reference);
    Ok(Proposal {
        version: Version { metadata: next.metadata, refs, updates: next.changes, requirements, expired_metadata },
        sequence_number: new.sequence_number,
        list_location: built.list_location,
        manifests: built.manifests,
        objects: built.objects,
    })
}

/// The oldest snapshots beyond the number to keep, those aside that a branch or tag holds.
fn expired(head: &Head) -> Vec<i64> {
    let table = &head.metadata;
    let keep =
        table.properties().get(SNAPSHOTS_TO_KEEP).and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_SNAPSHOTS_TO_KEEP);
    // One place is the new snapshot's.
    let too_many = (table.snapshots().len() + 1).saturating_sub(keep.max(1));
    if too_many == 0 {
        return Vec::new();
    }
    let referenced = head.referenced();
    let free = table.snapshots().filter(|s| !referenced.contains(&s.snapshot_id()));
    let mut free: Vec<_> = free.map(|s| (s.sequence_number(), s.snapshot_id())).collect();
    free.sort_unstable();
    free.into_iter().take(too_many).map(|(_, id)| id).collect()
}

/// What the snapshot adds, and the totals after it.
fn summary(previous: Option<&HashMap<String, String>>, files: &[DataFile]) -> HashMap<String, String> {
    let records: u64 = files.iter().map(DataFile::record_count).sum();
    let bytes: u64 = files.iter().map(DataFile::file_size_in_bytes).sum();
    let added = [("data-files", files.len() as u64), ("records", records), ("files-size", bytes)];
    let none = [("delete-files", 0), ("position-deletes", 0), ("equality-deletes", 0)];
    let mut summary = HashMap::new();
    for (name, added) in added.into_iter().chain(none) {
        let total = format!("total-{name}");
        let before = match previous {
            None => Some(0),
            Some(previous) => previous.get(&total).and_then(|n| n.parse::<u64>().ok()),
        };
        // A program that left a total out made it unknown for good.
        if let Some(before) = before {
            summary.insert(total, (before + added).to_string());
        }
        if added > 0 {
            summary.insert(format!("added-{name}"), added.to_string());
        }
    }
    summary
}
