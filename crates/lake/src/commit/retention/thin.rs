//! Thins snapshots as backups are thinned: pure, without a clock.

use std::collections::{BTreeMap, BTreeSet};

use super::grid::{DAY_MS, Grid, HOUR_MS, MINUTE_MS};

/// What kind of change made a snapshot, in ascending order of how well it stands for its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Made {
    /// It was rolled back: it is no part of the table's history and stands for no time.
    RolledBack,
    /// A batch, files removed, a roll back, another program's change.
    Otherwise,
    /// Files were rewritten.
    Rewrite,
    /// The files of the day before were rewritten: that day is compact from here on, and few files of the own day are
    /// there yet, which will be rewritten later. As a copy that is kept for years it costs least.
    CloseOfDay,
}

/// A snapshot, as far as thinning looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aged {
    /// Its id.
    pub id: i64,
    /// When it was made, unix milliseconds.
    pub unix_ms: i64,
    /// What made it.
    pub made: Made,
}

/// The snapshots of a table that leave, given in the order of their commits, the oldest first.
///
/// Each minute, hour and day (UTC) is represented by one snapshot for as long as the grid keeps that unit: minutes and
/// hours by their last, days by their last of the highest [`Made`]. What represents no unit leaves when it is older
/// than the age up to which every snapshot is kept, unless it is held.
///
/// The order of representatives does not depend on the time of a call, so that thinning often and thinning once leave
/// the same: what represents an hour at the end has represented it in every call since it was made.
pub fn thin(snapshots: &[Aged], grid: &Grid, held: impl Fn(i64) -> bool, now_ms: i64) -> BTreeSet<i64> {
    let newest = snapshots.len().saturating_sub(grid.newest);
    let mut leaving = BTreeSet::new();
    // The newest and the young are most of the list, and need no look at their units.
    for snapshot in snapshots.iter().take(newest) {
        if now_ms.saturating_sub(snapshot.unix_ms) >= grid.every_ms && !held(snapshot.id) {
            leaving.insert(snapshot.id);
        }
    }
    if leaving.is_empty() {
        return leaving;
    }
    for (unit_ms, kept_ms, of_day) in
        [(MINUTE_MS, grid.minutes_ms, false), (HOUR_MS, grid.hours_ms, false), (DAY_MS, grid.days_ms, true)]
    {
        for snapshot in representatives(snapshots, unit_ms, of_day) {
            if now_ms.saturating_sub(snapshot.unix_ms) < kept_ms {
                leaving.remove(&snapshot.id);
            }
        }
    }
    leaving
}

/// The snapshot of each unit of time that stands for it.
fn representatives(snapshots: &[Aged], unit_ms: i64, of_day: bool) -> impl Iterator<Item = Aged> {
    let mut by_unit: BTreeMap<i64, Aged> = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.made != Made::RolledBack) {
        let best = by_unit.entry(snapshot.unix_ms.div_euclid(unit_ms)).or_insert(*snapshot);
        // The later of two equal ones: the list is in the order of commits.
        if !of_day || snapshot.made >= best.made {
            *best = *snapshot;
        }
    }
    by_unit.into_values()
}

#[cfg(test)]
mod tests;
