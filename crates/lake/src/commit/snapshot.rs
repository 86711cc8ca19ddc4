//! One more snapshot on the main branch, as updates of the metadata.

use std::collections::HashMap;

use iceberg::TableUpdate;
use iceberg::spec::{DataFile, MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary};

use super::base::Base;
use super::change::{Change, LastList};
use super::manifests::Manifests;
use super::retention;
use crate::table::positions::{HeadFacts, SUMMARY_OFFSETS, SUMMARY_TOKEN, other_offsets};

/// A snapshot to be added.
#[derive(Debug)]
pub(super) struct NewSnapshot {
    pub(crate) operation: Operation,
    /// The snapshot it follows in the history of the table's content.
    pub(crate) parent: Option<i64>,
    pub(crate) manifests: Manifests,
    /// Besides the token.
    pub(crate) summary: HashMap<String, String>,
}

/// Adds the snapshot to a head and leaves out those that its grid does not keep.
pub(super) fn add(base: &Base<'_>, new: NewSnapshot) -> Change {
    let NewSnapshot { operation, parent, manifests, mut summary } = new;
    let table = &base.head.metadata;
    summary.insert(SUMMARY_TOKEN.to_owned(), base.token.to_string());
    let id = base.token.snapshot_id();
    let snapshot = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(parent)
        .with_sequence_number(table.next_sequence_number())
        // Another machine's clock may be ahead: a snapshot is never older than the last update. `iceberg` refuses one
        // that is older by more than a minute.
        .with_timestamp_ms((base.environment.unix_ms)().max(table.last_updated_ms()))
        .with_manifest_list(manifests.list_location.clone())
        .with_schema_id(table.current_schema_id())
        .with_summary(Summary { operation, additional_properties: summary })
        .build();
    let retired = retired(base, &snapshot);
    let main = base.head.refs.get(MAIN_BRANCH);
    // Retention is part of the reference, which is replaced as a whole: it would be lost.
    let retention = main.map_or_else(unlimited_retention, |main| main.retention.clone());
    let mut updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef {
            ref_name: MAIN_BRANCH.to_owned(),
            reference: SnapshotReference::new(id, retention),
        },
    ];
    updates.extend(retired);
    let list = LastList { location: manifests.list_location, manifests: manifests.manifests };
    Change { updates, objects: manifests.objects, list: Some(list), obsolete: Vec::new() }
}

/// Takes out the snapshots that the grid of the table does not keep, and the pins that have ended. In the swap that adds
/// a snapshot: otherwise the metadata would grow with each commit (ADR 47).
fn retired(base: &Base<'_>, new: &Snapshot) -> Vec<TableUpdate> {
    let now = (base.environment.unix_ms)();
    let mut updates = Vec::new();
    let snapshot_ids = retention::thinned(base.head, new, now);
    if !snapshot_ids.is_empty() {
        updates.push(TableUpdate::RemoveSnapshots { snapshot_ids });
    }
    let removals = retention::ended_pins(base.head.metadata.properties(), now);
    if !removals.is_empty() {
        updates.push(TableUpdate::RemoveProperties { removals });
    }
    updates
}

fn unlimited_retention() -> SnapshotRetention {
    SnapshotRetention::branch(None, None, None)
}

/// Where the table stands, in the summary of a snapshot that moves no offsets.
pub(super) fn standing(head: &HeadFacts) -> HashMap<String, String> {
    match head.offsets_complete {
        true => HashMap::from([(SUMMARY_OFFSETS.to_owned(), other_offsets(&head.offsets, &[]))]),
        false => HashMap::new(),
    }
}

/// The totals of an older snapshot, for one with the same files.
pub(super) fn totals(of: &Snapshot) -> HashMap<String, String> {
    let properties = of.summary().additional_properties.iter();
    // The counts of added and removed files describe the older change and not this one.
    let totals = properties.filter(|(key, _)| key.starts_with("total-"));
    totals.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What changes of the totals in a snapshot's summary.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    files: u64,
    records: u64,
    bytes: u64,
}

impl Counts {
    pub(super) fn of<'f>(files: impl IntoIterator<Item = &'f DataFile>) -> Self {
        let mut counts = Self::default();
        for file in files {
            counts.files += 1;
            counts.records += file.record_count();
            counts.bytes += file.file_size_in_bytes();
        }
        counts
    }

    fn named(self) -> [(&'static str, u64); 3] {
        [("data-files", self.files), ("records", self.records), ("files-size", self.bytes)]
    }
}

/// The summary of a snapshot that adds and removes files (Iceberg spec, "Optional Snapshot Summary Fields").
pub(super) fn summary(
    previous: Option<&HashMap<String, String>>,
    added: Counts,
    removed: Counts,
) -> HashMap<String, String> {
    let mut summary = HashMap::new();
    for ((name, added), (_, removed)) in added.named().into_iter().zip(removed.named()) {
        set_total(&mut summary, previous, name, i128::from(added) - i128::from(removed));
        if added > 0 {
            summary.insert(format!("added-{name}"), added.to_string());
        }
        // The specification's names: `deleted-data-files`, `deleted-records`, `removed-files-size`.
        let verb = if name == "files-size" { "removed" } else { "deleted" };
        if removed > 0 {
            summary.insert(format!("{verb}-{name}"), removed.to_string());
        }
    }
    // Delete files are neither added nor removed here: their totals are carried on.
    for name in ["delete-files", "position-deletes", "equality-deletes"] {
        set_total(&mut summary, previous, name, 0);
    }
    summary
}

fn set_total(
    summary: &mut HashMap<String, String>,
    previous: Option<&HashMap<String, String>>,
    name: &str,
    change: i128,
) {
    let total = format!("total-{name}");
    let before = match previous {
        None => Some(0),
        Some(previous) => previous.get(&total).and_then(|n| n.parse::<i128>().ok()),
    };
    // Once a program has left a total out, it is unknown in all later snapshots.
    if let Some(before) = before {
        // A total that another program wrote too low must not become negative.
        summary.insert(total, (before + change).max(0).to_string());
    }
}
