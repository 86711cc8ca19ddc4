use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_767_225_600_000;

fn aged(id: i64, unix_ms: i64, made: Made) -> Aged {
    Aged { id, unix_ms, made }
}

/// What stays, in the order of commits.
fn stays(snapshots: &[Aged], grid: &Grid, held: &BTreeSet<i64>, now_ms: i64) -> Vec<Aged> {
    let leaving = thin(snapshots, grid, |id| held.contains(&id), now_ms);
    snapshots.iter().copied().filter(|snapshot| !leaving.contains(&snapshot.id)).collect()
}

fn only_by_age(mut grid: Grid) -> Grid {
    grid.newest = 1;
    grid
}

/// A table with a commit every `step_ms` for `span_ms`, up to now.
fn commits(step_ms: i64, span_ms: i64) -> Vec<Aged> {
    (0..span_ms / step_ms).map(|i| aged(i, NOW - span_ms + (i + 1) * step_ms, Made::Otherwise)).collect()
}

#[test]
fn a_year_of_minutes_is_a_few_thousand_snapshots_that_reach_any_day_of_it() {
    let all = commits(MINUTE_MS, 365 * DAY_MS);
    let kept = stays(&all, &Grid::DEFAULT, &BTreeSet::new(), NOW);
    // A day of minutes, 29 days of hours, 335 days.
    assert!((1_440 + 29 * 24 + 335 - 3..=1_440 + 29 * 24 + 335 + 3).contains(&kept.len()), "{}", kept.len());
    for day in 0..365 {
        let start = NOW - (day + 1) * DAY_MS;
        assert!(kept.iter().any(|s| (start..start + DAY_MS).contains(&s.unix_ms)), "day {day}");
    }
}

#[test]
fn a_commit_every_second_leaves_an_hour_of_seconds() {
    let all = commits(1_000, 2 * DAY_MS);
    let kept = stays(&all, &Grid::DEFAULT, &BTreeSet::new(), NOW);
    let young = kept.iter().filter(|s| NOW - s.unix_ms < HOUR_MS).count();
    assert_eq!(young, 3_600);
    assert!(kept.len() - young <= 23 * 60 + 24 + 2, "{}", kept.len());
}

#[test]
fn a_day_is_kept_as_it_was_when_the_day_before_had_been_compacted() {
    use Made::{CloseOfDay, Otherwise, Rewrite, RolledBack};
    // Over a year ago, so that only days are kept.
    let day = NOW - 400 * DAY_MS;
    let at = |hours: i64| day + hours * HOUR_MS;
    let with = |made: &[Made]| -> Vec<i64> {
        let mut all: Vec<Aged> = (0..).zip(made).map(|(i, made)| aged(i, at(i + 1), *made)).collect();
        all.push(aged(99, NOW, Otherwise));
        stays(&all, &only_by_age(Grid::DEFAULT), &BTreeSet::new(), NOW).iter().map(|s| s.id).collect()
    };
    assert_eq!(with(&[Otherwise, CloseOfDay, CloseOfDay, Rewrite, Otherwise]), [2, 99]);
    assert_eq!(with(&[Otherwise, Rewrite, Rewrite, Otherwise]), [2, 99]);
    assert_eq!(with(&[Otherwise, Otherwise, RolledBack]), [1, 99]);
    assert_eq!(with(&[RolledBack]), [99]);
}

#[test]
fn the_newest_stay_whatever_their_age() {
    let old: Vec<Aged> = (0..300).map(|i| aged(i, i, Made::Otherwise)).collect();
    let kept = stays(&old, &Grid::DEFAULT, &BTreeSet::new(), NOW);
    assert_eq!(kept, old[200..], "a table that is idle for years keeps a hundred");
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![Just(Made::RolledBack), Just(Made::Otherwise), Just(Made::Rewrite), Just(Made::CloseOfDay)]
}

/// Snapshots in the order of commits, some of a time ahead of now, as of a machine whose clock is.
fn history() -> impl Strategy<Value = Vec<Aged>> {
    let age = prop_oneof![-HOUR_MS..3 * HOUR_MS, 0..3 * DAY_MS, 0..900 * DAY_MS];
    vec((age, made()), 0..120).prop_map(|mut ages| {
        ages.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        (0..).zip(ages).map(|(id, (age, made))| aged(id, NOW - age, made)).collect()
    })
}

fn grid() -> impl Strategy<Value = Grid> {
    let ages = (0..2 * HOUR_MS, 0..2 * DAY_MS, 0..60 * DAY_MS, 0..800 * DAY_MS);
    (ages, 1..20usize)
        .prop_map(|((every, minutes, hours, days), newest)| Grid { newest, ..Grid::new(every, minutes, hours, days) })
}

proptest! {
    #[test]
    fn what_stays_stays_when_it_is_thinned_again(all in history(), grid in grid(), held in vec(0..120i64, 0..5)) {
        let held = held.into_iter().collect();
        let once = stays(&all, &grid, &held, NOW);
        prop_assert_eq!(stays(&once, &grid, &held, NOW), once);
    }

    #[test]
    fn what_is_held_or_young_or_among_the_newest_stays(all in history(), grid in grid(), held in vec(0..120i64, 0..5)) {
        let held: BTreeSet<i64> = held.into_iter().collect();
        let leaving = thin(&all, &grid, |id| held.contains(&id), NOW);
        for (at, snapshot) in all.iter().enumerate() {
            let is_needed = held.contains(&snapshot.id)
                || NOW - snapshot.unix_ms < grid.every_ms
                || at + grid.newest >= all.len();
            prop_assert!(!is_needed || !leaving.contains(&snapshot.id), "{:?}", snapshot);
        }
    }

    #[test]
    fn every_unit_of_its_range_that_had_a_snapshot_keeps_one(all in history(), grid in grid()) {
        let kept = stays(&all, &grid, &BTreeSet::new(), NOW);
        for (unit, range) in [(MINUTE_MS, grid.minutes_ms), (HOUR_MS, grid.hours_ms), (DAY_MS, grid.days_ms)] {
            let units = |of: &[Aged]| -> BTreeSet<i64> {
                // A unit is in the range when all of it is.
                let in_range = of.iter().filter(|s| {
                    s.made != Made::RolledBack && NOW - s.unix_ms.div_euclid(unit) * unit < range
                });
                in_range.map(|s| s.unix_ms.div_euclid(unit)).collect()
            };
            prop_assert_eq!(units(&kept), units(&all));
        }
    }

    #[test]
    fn with_time_more_leaves_and_nothing_comes_back(all in history(), grid in grid(), later in 0..100 * DAY_MS) {
        let now = thin(&all, &grid, |_| false, NOW);
        prop_assert!(now.is_subset(&thin(&all, &grid, |_| false, NOW + later)));
    }

    #[test]
    fn thinning_with_every_commit_leaves_what_thinning_once_leaves(all in history(), grid in grid()) {
        // The newest are counted from what is there: only without that rule are both the same.
        let grid = only_by_age(grid);
        let mut kept: Vec<Aged> = Vec::new();
        for snapshot in &all {
            kept.push(*snapshot);
            kept = stays(&kept, &grid, &BTreeSet::new(), snapshot.unix_ms.min(NOW));
        }
        prop_assert_eq!(stays(&kept, &grid, &BTreeSet::new(), NOW), stays(&all, &grid, &BTreeSet::new(), NOW));
    }
}
