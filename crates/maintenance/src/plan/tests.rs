//! The planner over simulated days: what it leaves of them, and what that costs.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NAME: TableName = TableName { namespace: "silver", name: "t" };
/// A day, and a time within it.
const DAY: i32 = 20_454;
const NOON_MS: i64 = DAY as i64 * DAY_MS + DAY_MS / 2;
const NEXT_WEEK_MS: i64 = NOON_MS + 7 * DAY_MS;

const POLICY: Policy =
    Policy { target_bytes: 1_000_000, fan_in: 8, files_per_commit: 32, quiet: Duration::from_secs(3_600) };

fn file(number: u64, rows: u64, bytes: u64) -> FileFacts {
    let input = Input {
        location: format!("file-{number:06}"),
        size_bytes: bytes,
        rows,
        is_sorted: true,
        row_group_bytes: bytes,
        row_bytes: 100,
    };
    let first_us = Some(i64::try_from(number).unwrap());
    FileFacts { input, day: Some(DAY), first_us, added_ms: Some(NOON_MS) }
}

fn table(files: Vec<FileFacts>) -> TableFacts {
    TableFacts { table: NAME, base: 1, is_by_day: true, files }
}

fn rewrites(plan: Plan) -> Vec<Rewrite> {
    plan.tasks.into_iter().map(|Task { work: Work::Rewrite(rewrite), .. }| rewrite).collect()
}

/// A table whose tasks are done as they are planned. A row takes ten bytes in a file of any size, and each file a
/// thousand more.
struct Simulation {
    table: TableFacts,
    made: u64,
    /// Bytes that were written by rewrites.
    rewritten: u64,
}

const ROW: u64 = 10;
const FILE: u64 = 1_000;

impl Simulation {
    fn new() -> Self {
        Self { table: table(Vec::new()), made: 0, rewritten: 0 }
    }

    fn add(&mut self, rows: u64) {
        self.made += 1;
        self.table.files.push(file(self.made, rows, FILE + ROW * rows));
    }

    fn rows(&self) -> u64 {
        self.table.files.iter().map(|file| file.input.rows).sum()
    }

    /// Does one task as `Rewriter` does; `false` when there is none.
    fn step(&mut self, now_ms: i64) -> bool {
        let Some(rewrite) = rewrites(plan(&self.table, &POLICY, now_ms)).into_iter().next() else { return false };
        let taken: BTreeSet<&str> = rewrite.inputs.iter().map(|input| input.location.as_str()).collect();
        let first =
            self.table.files.iter().filter(|f| taken.contains(f.input.location.as_str())).map(|f| f.first_us).min();
        let first = first.unwrap();
        let taken: BTreeSet<String> = taken.into_iter().map(str::to_owned).collect();
        self.table.files.retain(|file| !taken.contains(&file.input.location));
        let mut rows = rewrite.rows();
        let of_file = rows.div_ceil(rewrite.outputs);
        while rows > 0 {
            let part = of_file.min(rows);
            rows -= part;
            self.add(part);
            let made = self.table.files.last_mut().unwrap();
            made.first_us = first;
            self.rewritten += made.input.size_bytes;
        }
        true
    }

    /// Does all there is to do; how many tasks that were.
    fn settle(&mut self, now_ms: i64) -> usize {
        (0..10_000).take_while(|_| self.step(now_ms)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_day_of_commits_has_few_files_and_each_row_is_rewritten_a_logarithmic_number_of_times(
        commits in 50..600_usize,
        rows in 1..2_000_u64,
    ) {
        let mut day = Simulation::new();
        for _ in 0..commits {
            day.add(rows);
            day.settle(NOON_MS);
        }
        let total = rows * commits as u64;
        prop_assert_eq!(day.rows(), total);
        // A level for each power of the fan-in between a commit and the target, and one near the target.
        let levels = u64::from((POLICY.target_bytes / (ROW * rows)).max(1).ilog(8)) + 2;
        let ideal = (total * ROW).div_ceil(POLICY.target_bytes);
        prop_assert!(day.table.files.len() as u64 <= levels * 8 + 2 * ideal, "{} files", day.table.files.len());
        prop_assert!(
            day.rewritten <= levels * (total * ROW + commits as u64 * FILE),
            "{} bytes rewritten of {}", day.rewritten, total * ROW
        );
    }

    #[test]
    fn a_day_that_is_over_is_merged_to_files_of_the_target_size_and_left_alone_then(
        sizes in proptest::collection::vec(1..60_000_u64, 1..80),
    ) {
        let mut day = Simulation::new();
        sizes.iter().for_each(|rows| day.add(*rows));
        prop_assert!(day.settle(NEXT_WEEK_MS) < 10_000, "it ends");
        prop_assert_eq!(day.rows(), sizes.iter().sum::<u64>());
        let small = day.table.files.iter().filter(|file| !POLICY.is_full(file.input.size_bytes)).count();
        // Each of those is many times larger than all smaller ones together.
        prop_assert!(small <= 8, "{small} small files");
        prop_assert_eq!(day.settle(NEXT_WEEK_MS), 0);
    }

    #[test]
    fn no_file_is_in_two_tasks_and_no_task_takes_more_than_it_may(
        files in proptest::collection::vec((1..1_000_000_u64, 1..2_000_000_u64, any::<bool>()), 0..200),
        is_over in any::<bool>(),
    ) {
        let facts = files.iter().zip(0..).map(|((rows, bytes, is_sorted), number)| {
            let mut facts = file(number, *rows, *bytes);
            facts.input.is_sorted = *is_sorted;
            facts
        });
        let facts = table(facts.collect());
        let now = if is_over { NEXT_WEEK_MS } else { NOON_MS };
        let mut seen = BTreeSet::new();
        for rewrite in rewrites(plan(&facts, &POLICY, now)) {
            prop_assert!(rewrite.inputs.len() <= POLICY.files_per_commit);
            prop_assert!(rewrite.inputs.len() > 1 || rewrite.why == Why::Unsorted);
            prop_assert!((rewrite.outputs as usize) < rewrite.inputs.len() || rewrite.why == Why::Unsorted);
            let largest = rewrite.inputs.iter().map(|input| input.size_bytes).max().unwrap();
            prop_assert!(rewrite.bytes() < POLICY.target_bytes * TASK_TARGETS + largest);
            for input in &rewrite.inputs {
                prop_assert!(!input.is_sorted || !POLICY.is_full(input.size_bytes), "it is as it should be");
                prop_assert!(seen.insert(input.location.clone()));
            }
        }
        let health = plan(&facts, &POLICY, now).health;
        prop_assert!(health.score <= 100 && health.files == files.len() as u64);
    }
}

#[test]
fn files_that_one_task_takes_are_neighbours_in_time() {
    let files = (0..64).map(|number| file(number, 10, 2_000)).rev().collect();
    let planned = rewrites(plan(&table(files), &POLICY, NOON_MS));
    assert_eq!(planned.len(), 2);
    for rewrite in planned {
        assert_eq!((rewrite.why, rewrite.outputs), (Why::Level(1), 1));
        let names: Vec<&str> = rewrite.inputs.iter().map(|input| input.location.as_str()).collect();
        let numbers: Vec<u64> = names.iter().map(|name| name["file-".len()..].parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}

#[test]
fn a_late_row_does_not_rewrite_a_large_file_of_its_day() {
    let mut files = vec![file(1, 50_000, 500_000), file(2, 10, 2_000)];
    assert_eq!(rewrites(plan(&table(files.clone()), &POLICY, NEXT_WEEK_MS)), []);
    files.push(file(3, 10, 2_000));
    let planned = rewrites(plan(&table(files.clone()), &POLICY, NEXT_WEEK_MS));
    assert_eq!(planned.len(), 1);
    assert_eq!(planned[0].inputs.len(), 2, "the late ones among themselves");
    files.push(file(4, 6_000, 60_000));
    let planned = rewrites(plan(&table(files), &POLICY, NEXT_WEEK_MS));
    assert_eq!(planned[0].inputs.len(), 4);
    assert_eq!(planned[0].why, Why::ClosedDay);
}

#[test]
fn a_day_is_over_only_when_nothing_has_come_for_a_while() {
    let mut files = vec![file(1, 10, 2_000), file(2, 10, 2_000)];
    let midnight = i64::from(DAY + 1) * DAY_MS;
    assert_eq!(rewrites(plan(&table(files.clone()), &POLICY, midnight + 3_599_000)).len(), 0);
    assert_eq!(rewrites(plan(&table(files.clone()), &POLICY, midnight + 3_600_000)).len(), 1);
    files[1].added_ms = Some(midnight + 3_000_000);
    assert_eq!(rewrites(plan(&table(files.clone()), &POLICY, midnight + 3_600_000)).len(), 0);
    files[1].added_ms = None;
    assert_eq!(
        rewrites(plan(&table(files), &POLICY, midnight + 3_600_000)).len(),
        1,
        "its snapshot is gone: it is old"
    );
}

#[test]
fn files_of_another_partitioning_are_counted_and_left_alone() {
    let mut files: Vec<_> = (0..16).map(|number| file(number, 10, 2_000)).collect();
    files.iter_mut().for_each(|file| file.day = None);
    let found = plan(&table(files.clone()), &POLICY, NOON_MS);
    assert_eq!((found.tasks.len(), found.health.foreign_files), (0, 16));
    let unpartitioned = TableFacts { is_by_day: false, ..table(files) };
    let found = plan(&unpartitioned, &POLICY, NOON_MS);
    assert_eq!((found.tasks.len(), found.health.foreign_files), (1, 0));
}

#[test]
fn the_score_is_what_reading_would_cost_at_best() {
    assert_eq!(plan(&table(Vec::new()), &POLICY, NOON_MS).health.score, 100);
    assert_eq!(plan(&table(vec![file(1, 10, 900_000)]), &POLICY, NOON_MS).health.score, 100);
    let split = plan(&table((0..10).map(|number| file(number, 10, 90_000)).collect()), &POLICY, NOON_MS).health;
    assert_eq!((split.files, split.ideal_files, split.score), (10, 1, 11));
    let mut unsorted = file(1, 10, 900_000);
    unsorted.input.is_sorted = false;
    let found = plan(&table(vec![unsorted]), &POLICY, NOON_MS);
    assert_eq!((found.health.unsorted_files, found.tasks.len()), (1, 1));
    assert!(found.health.score < 100);
}
