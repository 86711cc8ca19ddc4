//! Which snapshots the current content of a table came from.

use std::collections::BTreeSet;
use std::sync::Arc;

use iceberg::spec::{Snapshot, TableMetadata};

/// In the summary of a snapshot that rolled the table back: the sequence number of the snapshot it went back to.
pub(crate) const ROLLED_BACK_TO: &str = "causeway.rolled-back-to";

/// The snapshots still in the metadata, oldest first, without those that were rolled back. Sequence numbers say which
/// these are and not the parents: a parent may have expired.
pub(crate) fn current_history(table: &TableMetadata) -> Vec<Arc<Snapshot>> {
    let mut history: Vec<Arc<Snapshot>> = Vec::with_capacity(table.snapshots().len());
    let mut snapshots: Vec<_> = table.snapshots().cloned().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    for snapshot in snapshots {
        if let Some(sequence) = rolled_back_to(&snapshot) {
            // A roll back takes out what lies between its target and itself, including earlier roll backs.
            history.retain(|earlier| earlier.sequence_number() <= sequence);
        }
        history.push(snapshot);
    }
    history
}

/// The roll backs that took out a snapshot which is still in the metadata. Without them it would look as if the table
/// still had what it holds.
pub(crate) fn hiding(table: &TableMetadata) -> BTreeSet<i64> {
    let mut hiding = BTreeSet::new();
    for roll_back in table.snapshots() {
        let Some(sequence) = rolled_back_to(roll_back) else { continue };
        let taken_out = sequence + 1..roll_back.sequence_number();
        if table.snapshots().any(|snapshot| taken_out.contains(&snapshot.sequence_number())) {
            hiding.insert(roll_back.snapshot_id());
        }
    }
    hiding
}

/// The snapshot that was current at a time, or of those still in the metadata the last before it.
pub(crate) fn as_of(table: &TableMetadata, unix_ms: i64) -> Option<Arc<Snapshot>> {
    // The log has what was current, also what was rolled back since. It begins behind the newest snapshot that left the
    // metadata (Iceberg spec, "Table Metadata Fields", `snapshot-log`).
    let logged = table.history().iter().rev().find(|entry| entry.timestamp_ms() <= unix_ms);
    if let Some(snapshot) = logged.and_then(|entry| table.snapshot_by_id(entry.snapshot_id)) {
        return Some(Arc::clone(snapshot));
    }
    let mut history = current_history(table).into_iter().rev();
    history.find(|snapshot| snapshot.timestamp_ms() <= unix_ms)
}

/// Whether a snapshot of the history follows the one before it directly: nothing that was between them in the history
/// has left the metadata. `before` is `None` of the oldest.
pub(crate) fn follows(snapshot: &Snapshot, before: Option<&Snapshot>) -> bool {
    // A table begins with sequence number 1. A roll back follows the snapshot that it went back to.
    let expected = rolled_back_to(snapshot).unwrap_or(snapshot.sequence_number() - 1);
    before.map_or(0, Snapshot::sequence_number) == expected
}

fn rolled_back_to(snapshot: &Snapshot) -> Option<i64> {
    snapshot.summary().additional_properties.get(ROLLED_BACK_TO)?.parse().ok()
}

#[cfg(test)]
mod tests;
