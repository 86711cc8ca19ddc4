//! Which files to merge: size tiers within a day, as in a log-structured merge tree, and once more when the day is
//! over. Pure: from the files of a snapshot, the policy and the time follow the tasks.
//!
//! The level of a file is the power of the fan-in that its rows reach, so that files of one level that are merged make
//! one of a higher level: rows are kept, while bytes shrink. A file beyond the target divided by the fan-in waits for
//! as many as make a file of the target size. So a row is rewritten once per level, once near the target, and once at
//! the end of its day. Files of one level are taken in the order of their earliest rows: what is written covers a
//! stretch of time.

use std::collections::{BTreeMap, BTreeSet};

use tables::def::TableName;

use crate::policy::Policy;
use crate::task::{Input, OPEN_BYTES, Rewrite, Task, Why, Work};

/// Bytes of one task at most, in target sizes.
const TASK_TARGETS: u64 = 8;
const DAY_MS: i64 = 86_400_000;

/// A file as the manifests describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// What a rewrite reads of it.
    pub input: Input,
    /// Days since 1970-01-01 of its partition.
    pub day: Option<i32>,
    /// Its earliest time, unix microseconds; `None` when unknown.
    pub first_us: Option<i64>,
    /// When its rows were committed, unix milliseconds; `None` when the snapshot that added it is a rewrite, or is not
    /// kept any more.
    pub added_ms: Option<i64>,
}

/// A table at one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its name.
    pub table: TableName,
    /// Id of the snapshot.
    pub base: i64,
    /// Whether every file belongs to a day.
    pub is_by_day: bool,
    /// The files of the snapshot.
    pub files: Vec<FileFacts>,
}

/// What is to be done with a table, and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The tasks, the most gainful first. No file is in two of them.
    pub tasks: Vec<Task>,
    /// How the table stands.
    pub health: Health,
}

/// How a table's files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the bytes would be in files of the target size, day by day.
    pub ideal_files: u64,
    /// Files whose rows are not known to be in the table's sort order.
    pub unsorted_files: u64,
    /// Files of another partitioning, which are left alone.
    pub foreign_files: u64,
    /// What reading the whole table would cost if every day were in sorted files of the target size, as a percentage of
    /// what it costs now; 100 of an empty table.
    pub score: u8,
}

/// Plans the rewrites of a table.
pub fn plan(table: &TableFacts, policy: &Policy, now_ms: i64) -> Plan {
    let mut days: BTreeMap<Option<i32>, Vec<&FileFacts>> = BTreeMap::new();
    for file in &table.files {
        // Written with another partition spec: it may have rows of several days.
        if !is_foreign(table, file) {
            days.entry(file.day).or_default().push(file);
        }
    }
    let mut rewrites: Vec<Rewrite> = Vec::new();
    for (day, mut files) in days {
        files.sort_by(|a, b| (a.first_us, &a.input.location).cmp(&(b.first_us, &b.input.location)));
        rewrites.extend(of_day(day, &files, policy, now_ms));
    }
    rewrites.sort_by(|a, b| b.gain().total_cmp(&a.gain()));
    let tasks = rewrites.into_iter();
    let tasks = tasks.map(|rewrite| Task { table: table.table, base: table.base, work: Work::Rewrite(rewrite) });
    Plan { tasks: tasks.collect(), health: health(table, policy) }
}

fn is_foreign(table: &TableFacts, file: &FileFacts) -> bool {
    table.is_by_day && file.day.is_none()
}

/// The rewrites of one partition, whose files come in the order of their earliest rows.
fn of_day(day: Option<i32>, files: &[&FileFacts], policy: &Policy, now_ms: i64) -> Vec<Rewrite> {
    let small: Vec<&FileFacts> = files.iter().filter(|file| !policy.is_full(file.input.size_bytes)).copied().collect();
    let is_over = is_closed(day, files, policy, now_ms);
    let chosen = if is_over { at_end(&small, policy) } else { by_level(&small, policy) };
    // Files of the target size are merged no more, nor is the last small one of a day. One that is not sorted is sorted
    // alone.
    let taken: BTreeSet<&str> = chosen.iter().flat_map(|(_, files)| files).map(|f| f.input.location.as_str()).collect();
    let left = files.iter().filter(|file| is_over || policy.is_full(file.input.size_bytes));
    let left = left.filter(|file| !taken.contains(file.input.location.as_str()));
    let unsorted: Chosen<'_> =
        left.filter(|file| !file.input.is_sorted).map(|file| (Why::Unsorted, vec![*file])).collect();
    let chosen = chosen.into_iter().chain(unsorted);
    let rewrites = chosen.map(|(why, files)| {
        let bytes = files.iter().map(|file| file.input.size_bytes).sum();
        let inputs = files.iter().map(|file| file.input.clone()).collect();
        Rewrite { day, inputs, outputs: policy.files_of(bytes), why }
    });
    rewrites.collect()
}

/// Whether no more rows of a day are expected.
fn is_closed(day: Option<i32>, files: &[&FileFacts], policy: &Policy, now_ms: i64) -> bool {
    let Some(day) = day else { return false };
    let quiet_ms = i64::try_from(policy.quiet.as_millis()).unwrap_or(i64::MAX);
    let end_ms = (i64::from(day) + 1).saturating_mul(DAY_MS);
    // A file whose snapshot is not kept any more is older than those that are.
    let newest_ms = files.iter().filter_map(|file| file.added_ms).max();
    [Some(end_ms), newest_ms].into_iter().flatten().all(|since_ms| since_ms.saturating_add(quiet_ms) <= now_ms)
}

type Chosen<'a> = Vec<(Why, Vec<&'a FileFacts>)>;

/// Groups of files of one level, of a day that goes on.
fn by_level<'a>(files: &[&'a FileFacts], policy: &Policy) -> Chosen<'a> {
    // A logarithm needs a base of two or more.
    let fan_in = (policy.fan_in as u64).max(2);
    let mut levels: BTreeMap<Why, Vec<&FileFacts>> = BTreeMap::new();
    for file in files {
        let is_near_target = file.input.size_bytes.saturating_mul(fan_in) >= policy.target_bytes;
        let why = if is_near_target { Why::NearTarget } else { Why::Level(file.input.rows.max(1).ilog(fan_in)) };
        levels.entry(why).or_default().push(file);
    }
    let groups = levels.into_iter().flat_map(|(why, files)| {
        groups_of(&files, policy)
            .into_iter()
            .filter(move |group| is_enough(why, group, policy))
            .map(move |group| (why, group))
    });
    groups.collect()
}

fn is_enough(why: Why, group: &[&FileFacts], policy: &Policy) -> bool {
    match why {
        Why::NearTarget => group.len() > 1 && bytes(group) >= policy.target_bytes,
        _ => group.len() >= policy.fan_in.max(2),
    }
}

/// Neighbours that one task takes: up to the target size, as many as one commit may take.
fn groups_of<'a>(files: &[&'a FileFacts], policy: &Policy) -> Vec<Vec<&'a FileFacts>> {
    let most = policy.files_per_commit.max(2);
    let mut groups: Vec<Vec<&FileFacts>> = Vec::new();
    for file in files {
        match groups.last_mut().filter(|group| group.len() < most && bytes(group) < policy.target_bytes) {
            Some(group) => group.push(file),
            None => groups.push(vec![file]),
        }
    }
    groups
}

/// Groups of all files of a day that is over but those of the target size.
fn at_end<'a>(files: &[&'a FileFacts], policy: &Policy) -> Chosen<'a> {
    let mut sizes: Vec<u64> = files.iter().map(|file| file.input.size_bytes).collect();
    sizes.sort_unstable();
    // A late row must not rewrite a file that is many times larger: such files wait until more has come.
    let fan_in = (policy.fan_in as u64).max(2);
    let mut rest: u64 = sizes.iter().sum();
    let mut largest = 0;
    while let Some(size) = sizes.pop() {
        rest -= size;
        largest = size;
        if rest.saturating_mul(fan_in) >= size {
            break;
        }
    }
    let taken: Vec<&FileFacts> = files.iter().filter(|file| file.input.size_bytes <= largest).copied().collect();
    let most_bytes = policy.target_bytes.saturating_mul(TASK_TARGETS);
    let wide = Policy { target_bytes: most_bytes, ..*policy };
    let groups = groups_of(&taken, &wide).into_iter();
    // A group of which as many files would be written as are read gains nothing.
    let gainful = groups.filter(|group| (group.len() as u64) > policy.files_of(bytes(group)));
    gainful.map(|group| (Why::ClosedDay, group)).collect()
}

fn bytes(files: &[&FileFacts]) -> u64 {
    files.iter().map(|file| file.input.size_bytes).sum()
}

/// How the files are laid out.
fn health(table: &TableFacts, policy: &Policy) -> Health {
    let mut health = Health::default();
    let mut days: BTreeMap<Option<i32>, u64> = BTreeMap::new();
    let mut cost = 0_u64;
    for file in &table.files {
        let bytes = file.input.size_bytes;
        health.files += 1;
        health.bytes += bytes;
        health.foreign_files += u64::from(is_foreign(table, file));
        health.unsorted_files += u64::from(!file.input.is_sorted);
        *days.entry(file.day).or_default() += bytes;
        // Of a sorted file a reader leaves out what it does not want: counted as a half.
        let read = if file.input.is_sorted { bytes } else { bytes.saturating_mul(2) };
        cost = cost.saturating_add(OPEN_BYTES).saturating_add(read);
    }
    health.ideal_files = days.values().map(|bytes| bytes.div_ceil(policy.target_bytes.max(1)).max(1)).sum();
    let ideal = health.ideal_files.saturating_mul(OPEN_BYTES).saturating_add(health.bytes);
    let percent = if cost == 0 { 100 } else { (u128::from(ideal) * 100 / u128::from(cost)).min(100) };
    // At most 100.
    health.score = u8::try_from(percent).unwrap_or(100);
    health
}

#[cfg(test)]
mod tests;
