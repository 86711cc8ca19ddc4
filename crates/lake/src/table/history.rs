//! Which snapshots the current content of a table came from.

use std::sync::Arc;

use iceberg::spec::{Snapshot, TableMetadata};

/// In the summary of a snapshot that rolled the table back: the sequence number of the snapshot it went back to.
pub(crate) const ROLLED_BACK_TO: &str = "causeway.rolled-back-to";

/// The snapshots still in the metadata, oldest first, without those that were rolled back. Sequence numbers say which
/// these are and not the parents: a parent may have expired.
pub(crate) fn current_history(table: &TableMetadata) -> Vec<Arc<Snapshot>> {
    let mut snapshots: Vec<_> = table.snapshots().cloned().collect();
    snapshots.sort_by_key(|snapshot| snapshot.sequence_number());
    let mut history: Vec<Arc<Snapshot>> = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        if let Some(sequence) = rolled_back_to(&snapshot) {
            // A roll back takes out what lies between its target and itself, including earlier roll backs.
            history.retain(|earlier| earlier.sequence_number() <= sequence);
        }
        history.push(snapshot);
    }
    history
}

fn rolled_back_to(snapshot: &Snapshot) -> Option<i64> {
    snapshot.summary().additional_properties.get(ROLLED_BACK_TO)?.parse().ok()
}
