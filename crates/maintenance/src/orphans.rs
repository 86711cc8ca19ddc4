//! Objects of a table that no snapshot needs: left by commits that lost, by replaced manifests and by snapshots that
//! have left the metadata. They are found by reachability and age, and removed.
//!
//! The order of the steps is what protects a live file (ADR 48):
//!
//! 1. **List** what lies below the table. What is listed late or not at all stays.
//! 2. **Load the head**, after the listing: what was committed before the end of the listing is reached. Everything
//!    that any snapshot in the metadata reaches is taken off the list, pinned ones included.
//! 3. Of the rest, only what **both clocks** say is older than the guard: it is longer than any writer takes from the
//!    upload of a file to its commit.
//! 4. Before the removal and after it the head is loaded again, and what was committed meanwhile is reached too.

mod name;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use lake::{CatalogError, Hashed, HeadError, Lake, Reached, ReadError, TableIdent, TableReader};
use objects::{ListError, ObjectInfo};
use serde::Serialize;

use name::Name;

/// Objects removed at the same time.
const REMOVALS_AT_ONCE: usize = 8;

/// What counts as an orphan, and how many are removed in one run.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Objects that are younger may be of a commit that is being made. The limit of a commit is seconds, that of a
    /// rewrite hours.
    pub older_than: Duration,
    /// A run names and removes at most so many; the next run goes on.
    pub most: usize,
}

impl Policy {
    /// The least age that a policy may have: a day, above every limit of a commit or a rewrite.
    pub const LEAST_AGE: Duration = Duration::from_secs(86_400);
}

impl Default for Policy {
    /// Three days, as Iceberg's own action, and 100,000 objects.
    fn default() -> Self {
        Self { older_than: Duration::from_secs(3 * 86_400), most: 100_000 }
    }
}

/// Why orphans were not found or not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrphanError {
    #[error("orphans must be {least_s} s old at least, not {asked_s} s: a commit may still be adding younger objects")]
    TooYoung { asked_s: u64, least_s: u64 },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(
        "the files of {table} and {other} lie in one place, {location}: what one needs looks like an orphan of the \
         other"
    )]
    Shared { table: TableIdent, other: TableIdent, location: String },
}

/// An object that no snapshot needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Full location.
    pub location: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When the store says that it was written, unix milliseconds.
    pub modified_unix_ms: i64,
}

impl From<ObjectInfo> for Orphan {
    fn from(info: ObjectInfo) -> Self {
        Self { location: info.location, size_bytes: info.size_bytes, modified_unix_ms: info.modified_unix_ms }
    }
}

/// What a search found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// `namespace.name`.
    pub table: String,
    /// Objects below the table's location.
    pub listed: u64,
    /// Objects that the table needs.
    pub reachable: u64,
    /// Objects that are not reached and younger than the guard.
    pub young: u64,
    /// Objects that are not reached and that no writer of tables makes: they stay.
    pub unknown: u64,
    /// The orphans, at most as many as the policy allows.
    pub orphans: Vec<Orphan>,
    /// Orphans beyond that number.
    pub more: u64,
    /// How far the table was walked.
    #[serde(skip)]
    pub reached: Reached,
}

impl Report {
    /// Bytes of the orphans that are listed.
    pub fn bytes(&self) -> u64 {
        self.orphans.iter().map(|orphan| orphan.size_bytes).sum()
    }
}

/// What a removal did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Removed {
    /// Objects that are gone.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Orphans that a commit has begun to need since they were found: they stay.
    pub kept: Vec<String>,
    /// Orphans that the store did not delete, and why.
    pub failed: Vec<String>,
    /// Removed objects that the table needs after all: it is damaged. A writer took longer to commit than the guard.
    pub damaged: Vec<String>,
}

/// Finds the orphans of a table; nothing is changed. The memory follows the number of objects, at about 30 bytes each.
///
/// # Errors
/// The policy is too young, or catalog or store cannot be read. A manifest that cannot be read ends the search: what it
/// names would look like orphans.
pub async fn find(lake: &Lake, table: &TableIdent, policy: &Policy) -> Result<Report, OrphanError> {
    if policy.older_than < Policy::LEAST_AGE {
        let [asked_s, least_s] = [policy.older_than, Policy::LEAST_AGE].map(|age| age.as_secs());
        return Err(OrphanError::TooYoung { asked_s, least_s });
    }
    let guard_ms = i64::try_from(policy.older_than.as_millis()).unwrap_or(i64::MAX);
    // Before the listing: what is written from here on is young.
    let old_before = lake.unix_ms().saturating_sub(guard_ms);
    let reader = lake.table(&table.namespace, &table.name);
    let location = reader.location().await?;
    refuse_shared(lake, table, &location).await?;

    let mut report = Report { table: table.to_string(), ..Report::default() };
    // First pass: hashes of names alone.
    let mut unreached = Hashed::default();
    let mut listing = lake.store().list(&location)?;
    while let Some(info) = listing.try_next().await? {
        report.listed += 1;
        unreached.insert(&info.location);
    }
    drop(listing);
    // After the listing, never before it: a file that was committed in between would be listed and not reached.
    let reached = reader.reachable(None, |needed| take(&mut unreached, needed)).await?;
    report.reachable = reached.objects;
    report.reached = reached;
    // Second pass: names, sizes and times of what is left, which is little.
    let mut listing = lake.store().list(&location)?;
    while let Some(info) = listing.try_next().await? {
        if unreached.contains(&info.location) {
            report.judge(info, &location, old_before, policy.most);
        }
    }
    Ok(report)
}

impl Report {
    /// Adds an object that nothing reaches.
    fn judge(&mut self, info: ObjectInfo, location: &str, old_before: i64, most: usize) {
        let path = info.location.strip_prefix(location).and_then(|path| path.strip_prefix('/'));
        match path.and_then(Name::of) {
            None => self.unknown += 1,
            Some(name) if !name.is_older(info.modified_unix_ms, old_before) => self.young += 1,
            Some(_) if self.orphans.len() >= most => self.more += 1,
            Some(_) => self.orphans.push(info.into()),
        }
    }
}

/// Removes the orphans that a search has found.
///
/// # Errors
/// Catalog or store cannot be read; after an error behind the removal it is not known whether a removed object was
/// needed.
pub async fn remove(lake: &Lake, table: &TableIdent, found: &Report) -> Result<Removed, OrphanError> {
    let reader = lake.table(&table.namespace, &table.name);
    let names: Hashed = hashed(found.orphans.iter().map(|orphan| orphan.location.as_str()));
    let mut reached = found.reached.clone();
    let needed = needed(&reader, &names, &mut reached).await?;
    let mut done = Removed::default();
    let mut unneeded = Vec::new();
    for orphan in &found.orphans {
        if needed.contains(&orphan.location) {
            done.kept.push(orphan.location.clone());
        } else {
            unneeded.push(orphan);
        }
    }
    let removed = remove_all(lake, unneeded, &mut done).await;
    // What a writer has committed while objects were removed.
    done.damaged = self::needed(&reader, &removed, &mut reached).await?.into_iter().collect();
    for location in &done.damaged {
        tracing::error!(%table, location, "an object was removed that a commit has begun to need: restore it");
    }
    Ok(done)
}

/// Removes objects, and returns the names of those that are gone.
async fn remove_all(lake: &Lake, orphans: Vec<&Orphan>, done: &mut Removed) -> Hashed {
    let removals: Vec<_> = orphans.into_iter().map(|orphan| removal(lake, orphan)).collect();
    let mut removals = stream::iter(removals).buffer_unordered(REMOVALS_AT_ONCE);
    let mut removed = Hashed::default();
    while let Some((orphan, result)) = removals.next().await {
        match result {
            Ok(()) => {
                removed.insert(&orphan.location);
                done.removed += 1;
                done.bytes += orphan.size_bytes;
            }
            // One that stays is found again by the next run.
            Err(error) => done.failed.push(format!("{}: {error}", orphan.location)),
        }
    }
    removed
}

async fn removal<'o>(lake: &Lake, orphan: &'o Orphan) -> (&'o Orphan, Result<(), objects::StoreError>) {
    (orphan, lake.store().delete(&orphan.location).await)
}

fn hashed<'n>(names: impl Iterator<Item = &'n str>) -> Hashed {
    let mut hashed = Hashed::default();
    for name in names {
        hashed.insert(name);
    }
    hashed
}

fn take(from: &mut Hashed, name: &str) {
    from.remove(name);
}

/// Which of these names have been needed since the table was walked.
async fn needed(reader: &TableReader, names: &Hashed, reached: &mut Reached) -> Result<BTreeSet<String>, OrphanError> {
    let mut needed = BTreeSet::new();
    let walk = reader.reachable(Some(&*reached), |name| {
        if names.contains(name) {
            needed.insert(name.to_owned());
        }
    });
    *reached = walk.await?;
    Ok(needed)
}

/// Refuses a table whose location holds another table, or lies in that of another.
async fn refuse_shared(lake: &Lake, table: &TableIdent, location: &str) -> Result<(), OrphanError> {
    for other in lake.list().await?.into_iter().filter(|other| other != table) {
        let theirs = match lake.table(&other.namespace, &other.name).location().await {
            Ok(theirs) => theirs,
            // Dropped since it was listed.
            Err(ReadError::Head(HeadError::NotFound(_))) => continue,
            Err(error) => return Err(error.into()),
        };
        if is_within(location, &theirs) || is_within(&theirs, location) {
            return Err(OrphanError::Shared { table: table.clone(), other, location: theirs });
        }
    }
    Ok(())
}

/// Whether a location is another one or lies below it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_lies_in_another_only_at_a_slash() {
        for (inner, outer, within) in [
            ("s3://b/silver/t", "s3://b/silver/t", true),
            ("s3://b/silver/t/x", "s3://b/silver/t", true),
            ("s3://b/silver/t2", "s3://b/silver/t", false),
            ("s3://b/silver", "s3://b/silver/t", false),
        ] {
            assert_eq!(is_within(inner, outer), within, "{inner} {outer}");
        }
    }

    #[test]
    fn a_run_names_no_more_than_its_policy_allows() {
        let info = |name: &str| ObjectInfo { location: format!("w/t/{name}"), size_bytes: 1, modified_unix_ms: 5 };
        let mut report = Report::default();
        for name in ["data/a.parquet", "data/b.parquet", "data/c.parquet", "data/notes.txt"] {
            report.judge(info(name), "w/t", 9, 2);
        }
        report.judge(info("data/d.parquet"), "w/t", 5, 9);
        assert_eq!((report.orphans.len(), report.more, report.unknown, report.young), (2, 1, 1, 1));
        assert_eq!(report.bytes(), 2);
    }
}
