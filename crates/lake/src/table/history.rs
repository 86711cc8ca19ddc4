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

/// The newest part of [`current_history`] in which no snapshot is missing. One in the middle may be: it expired by its
/// id, or an earlier one stayed because a tag or a pin holds it.
pub(crate) fn unbroken_history(table: &TableMetadata) -> Vec<Arc<Snapshot>> {
    let mut history = current_history(table);
    let broken = history.windows(2).rposition(|pair| !pair_is_unbroken(pair));
    history.drain(..broken.map_or(0, |position| position + 1));
    history
}

/// Whether the second snapshot of two is the one that was committed after the first.
fn pair_is_unbroken(pair: &[Arc<Snapshot>]) -> bool {
    let [earlier, later] = pair else { return true };
    // What a roll back took out is no part of the history, whether or not it has expired since.
    let expected = rolled_back_to(later).unwrap_or(later.sequence_number() - 1);
    earlier.sequence_number() == expected
}

fn rolled_back_to(snapshot: &Snapshot) -> Option<i64> {
    snapshot.summary().additional_properties.get(ROLLED_BACK_TO)?.parse().ok()
}

#[cfg(test)]
mod tests;
