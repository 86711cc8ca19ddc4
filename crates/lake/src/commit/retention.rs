//! Which snapshots may leave a table's metadata, and which do with each commit. What only they needed stays in the
//! store until the removal of orphans finds it.

mod grid;
mod pins;
mod thin;

use std::collections::BTreeSet;
use std::fmt;

use iceberg::spec::{Operation, Snapshot, TableMetadata};

use crate::catalog::Head;
use crate::table::history::{current_history, hiding};
use crate::table::positions::SUMMARY_REWROTE;

pub use grid::{Grid, KEEP_DAYS, KEEP_EVERY, KEEP_HOURS, KEEP_MINUTES, parse_age};
pub use pins::{MalformedPin, PIN_PREFIX, Pin};
pub use thin::{Aged, Made, thin};

pub(crate) use grid::problem;
pub(crate) use pins::{ended_pins, pin_key, pins_of};

use grid::DAY_MS;

/// What holds a snapshot in the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It is the current one.
    Current,
    /// A branch or tag names it.
    Reference,
    /// A reader has pinned it for a limited time.
    Pin,
    /// It is a roll back, and a snapshot that it took out of the history is still there.
    RollBack,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "it is the current snapshot",
            Self::Reference => "a branch or tag names it",
            Self::Pin => "it is pinned",
            Self::RollBack => "it is a roll back, and a snapshot that it took out is still in the metadata",
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
    /// Roll backs without which a snapshot that they took out would count as history again.
    pub hiding: BTreeSet<i64>,
}

impl Held {
    pub(crate) fn of(head: &Head, unix_ms: i64) -> Self {
        let pins = pins_of(head.metadata.properties()).into_iter().filter(|pin| !pin.has_ended(unix_ms));
        Self {
            current: head.metadata.current_snapshot_id(),
            referenced: head.referenced(),
            pinned: pins.map(|pin| pin.snapshot).collect(),
            hiding: hiding(&head.metadata),
        }
    }

    fn holder(&self, snapshot: i64) -> Option<Holder> {
        if self.current == Some(snapshot) {
            return Some(Holder::Current);
        }
        if self.referenced.contains(&snapshot) {
            return Some(Holder::Reference);
        }
        if self.pinned.contains(&snapshot) {
            return Some(Holder::Pin);
        }
        self.hiding.contains(&snapshot).then_some(Holder::RollBack)
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

/// The snapshots that leave with a commit that adds `new` to a head.
pub(crate) fn thinned(head: &Head, new: &Snapshot, unix_ms: i64) -> Vec<i64> {
    let table = &head.metadata;
    let grid = Grid::of(table.properties());
    // The new snapshot becomes the current one, so that the present one is not held for that reason any more.
    let held = Held { current: None, ..Held::of(head, unix_ms) };
    let mut aged = aged(table);
    aged.push(of(new));
    thin(&aged, &grid, |id| held.holder(id).is_some(), unix_ms).into_iter().collect()
}

/// The snapshots of a table in the order of their commits.
fn aged(table: &TableMetadata) -> Vec<Aged> {
    let history: BTreeSet<i64> = current_history(table).iter().map(|snapshot| snapshot.snapshot_id()).collect();
    let mut snapshots: Vec<_> = table.snapshots().collect();
    // By sequence number and not by time: the clocks of writers may differ.
    snapshots.sort_unstable_by_key(|snapshot| snapshot.sequence_number());
    let mut aged = Vec::with_capacity(snapshots.len() + 1);
    for snapshot in snapshots {
        let made = if history.contains(&snapshot.snapshot_id()) { of(snapshot).made } else { Made::RolledBack };
        aged.push(Aged { made, ..of(snapshot) });
    }
    aged
}

fn of(snapshot: &Snapshot) -> Aged {
    let day_before = snapshot.timestamp_ms().div_euclid(DAY_MS) - 1;
    let rewrote = snapshot.summary().additional_properties.get(SUMMARY_REWROTE);
    let made = match &snapshot.summary().operation {
        Operation::Replace if rewrote.and_then(|day| day.parse::<i64>().ok()) == Some(day_before) => Made::CloseOfDay,
        Operation::Replace => Made::Rewrite,
        _ => Made::Otherwise,
    };
    Aged { id: snapshot.snapshot_id(), unix_ms: snapshot.timestamp_ms(), made }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        Held {
            current: Some(9),
            referenced: BTreeSet::from([3]),
            pinned: BTreeSet::from([4]),
            hiding: BTreeSet::from([5]),
        }
    }

    #[test]
    fn a_snapshot_that_is_current_named_pinned_or_a_needed_roll_back_does_not_expire() {
        assert_eq!(may_expire(&BTreeSet::from([1, 2]), &held()), Ok(()));
        let holders = [(9, Holder::Current), (3, Holder::Reference), (4, Holder::Pin), (5, Holder::RollBack)];
        for (snapshot, holder) in holders {
            assert_eq!(may_expire(&BTreeSet::from([1, snapshot]), &held()), Err(Retained { snapshot, holder }));
        }
    }
}
