//! Which snapshots may leave a table's metadata. Their files stay for the cleaner.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::catalog::Head;
use crate::table::schema::SNAPSHOTS_TO_KEEP;

/// Snapshots kept in the metadata when the table has no such property. Every commit writes the whole history again: a
/// hundred snapshots are about 70 kB.
const DEFAULT_SNAPSHOTS_TO_KEEP: usize = 100;

/// `causeway.pin.<snapshot id>` = unix milliseconds until which a reader needs the snapshot.
pub const PIN_PREFIX: &str = "causeway.pin.";

/// What holds a snapshot in the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It is the current one.
    Current,
    /// A branch or tag names it.
    Reference,
    /// A reader has pinned it for a limited time.
    Pin,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "it is the current snapshot",
            Self::Reference => "a branch or tag names it",
            Self::Pin => "a reader has pinned it",
        })
    }
}

/// The snapshots that must stay, of one head at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// The current snapshot of `main`.
    pub current: Option<i64>,
    /// Those that other branches and tags name.
    pub referenced: BTreeSet<i64>,
    /// Those with a pin that has not ended.
    pub pinned: BTreeSet<i64>,
}

impl Held {
    pub(crate) fn of(head: &Head, unix_ms: i64) -> Self {
        Self {
            current: head.metadata.current_snapshot_id(),
            referenced: head.referenced(),
            pinned: pinned(head.metadata.properties(), unix_ms),
        }
    }

    fn holder(&self, snapshot: i64) -> Option<Holder> {
        if self.current == Some(snapshot) {
            return Some(Holder::Current);
        }
        if self.referenced.contains(&snapshot) {
            return Some(Holder::Reference);
        }
        self.pinned.contains(&snapshot).then_some(Holder::Pin)
    }
}

/// A snapshot that must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// Its id.
    pub snapshot: i64,
    /// Why.
    pub holder: Holder,
}

/// Whether these snapshots may leave the metadata.
///
/// # Errors
/// The first of them that is held.
pub fn may_expire(snapshots: &BTreeSet<i64>, held: &Held) -> Result<(), Retained> {
    for snapshot in snapshots {
        if let Some(holder) = held.holder(*snapshot) {
            return Err(Retained { snapshot: *snapshot, holder });
        }
    }
    Ok(())
}

/// Snapshots whose pins have not ended. A pin that cannot be read never ends, which is the safe side.
fn pinned(properties: &HashMap<String, String>, unix_ms: i64) -> BTreeSet<i64> {
    let mut pinned = BTreeSet::new();
    for (key, until) in properties {
        let Some(snapshot) = key.strip_prefix(PIN_PREFIX).and_then(|id| id.parse().ok()) else { continue };
        if until.parse::<i64>().map_or(true, |until| until > unix_ms) {
            pinned.insert(snapshot);
        }
    }
    pinned
}

/// The oldest snapshots beyond the number to keep, with one place for a new snapshot; those that are held stay.
pub(crate) fn too_many(head: &Head, unix_ms: i64) -> Vec<i64> {
    let table = &head.metadata;
    let keep =
        table.properties().get(SNAPSHOTS_TO_KEEP).and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_SNAPSHOTS_TO_KEEP);
    // The new snapshot counts too, and is kept whatever the property says.
    let excess = (table.snapshots().len() + 1).saturating_sub(keep.max(1));
    if excess == 0 {
        return Vec::new();
    }
    // The new snapshot becomes the current one, so that the present one is not held for that reason any more.
    let held = Held { current: None, ..Held::of(head, unix_ms) };
    let mut free: Vec<_> = table.snapshots().map(|s| (s.sequence_number(), s.snapshot_id())).collect();
    free.retain(|(_, id)| held.holder(*id).is_none());
    // By sequence number and not by time: the clocks of writers may differ.
    free.sort_unstable();
    free.into_iter().take(excess).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        Held { current: Some(9), referenced: BTreeSet::from([3]), pinned: BTreeSet::from([4]) }
    }

    #[test]
    fn a_snapshot_that_is_current_named_or_pinned_does_not_expire() {
        assert_eq!(may_expire(&BTreeSet::from([1, 2]), &held()), Ok(()));
        for (snapshot, holder) in [(9, Holder::Current), (3, Holder::Reference), (4, Holder::Pin)] {
            assert_eq!(may_expire(&BTreeSet::from([1, snapshot]), &held()), Err(Retained { snapshot, holder }));
        }
    }

    #[test]
    fn a_pin_ends_at_its_time_and_one_that_cannot_be_read_never_ends() {
        let properties = [("causeway.pin.1", "1000"), ("causeway.pin.2", "2000"), ("causeway.pin.3", "soon")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(pinned(&properties, 999), BTreeSet::from([1, 2, 3]));
        assert_eq!(pinned(&properties, 1000), BTreeSet::from([2, 3]));
        assert_eq!(pinned(&properties, 5000), BTreeSet::from([3]));
    }
}
