//! Every object that a table needs: what its metadata names, directly and through manifest lists and manifests. Whatever
//! else lies below its location is an orphan, or is being written.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use iceberg::spec::{ManifestFile, Snapshot};

use super::ReadError;
use crate::catalog::Head;
use crate::table::manifests::{load_entries, load_list};
use objects::Store;

/// Objects read at the same time.
const READS_AT_ONCE: usize = 8;

/// Hashes of 128 bits: a name takes 16 bytes instead of 150. The keys of the hash are random, so that no name can be
/// made to collide; among 100 million names the probability that any two collide is 10⁻²³.
#[derive(Debug, Clone)]
pub struct Hashed {
    keys: [RandomState; 2],
    hashes: HashSet<(u64, u64)>,
}

impl Default for Hashed {
    fn default() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], hashes: HashSet::new() }
    }
}

impl Hashed {
    fn hash(&self, name: &str) -> (u64, u64) {
        let [high, low] = &self.keys;
        (high.hash_one(name), low.hash_one(name))
    }

    /// Adds a name; `false` when it was there.
    pub fn insert(&mut self, name: &str) -> bool {
        self.hashes.insert(self.hash(name))
    }

    /// Removes a name; `false` when it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.hashes.remove(&self.hash(name))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.hashes.contains(&self.hash(name))
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// What was walked of a table.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// The table's location, without a slash at the end.
    pub location: String,
    /// The metadata file that was read.
    pub metadata_location: String,
    /// The snapshots whose files were named.
    pub snapshots: BTreeSet<i64>,
    /// Objects that were named; one in several snapshots counts once.
    pub objects: u64,
}

/// Names everything that a head reaches, but what only the snapshots in `known` reach. A manifest is read once however
/// many snapshots share it.
pub(super) async fn walk(
    store: &Store,
    head: &Head,
    known: &BTreeSet<i64>,
    mut name: impl FnMut(&str),
) -> Result<Reached, ReadError> {
    let table = &head.metadata;
    let mut reached = Reached {
        location: table.location().trim_end_matches('/').to_owned(),
        metadata_location: head.location.to_string(),
        ..Reached::default()
    };
    let mut named = |location: &str| {
        name(location);
        reached.objects += 1;
    };
    named(&head.location);
    for log in table.metadata_log() {
        named(&log.metadata_file);
    }
    // Attachments too: they are statistics files (ADR 33).
    for file in table.statistics_iter() {
        named(&file.statistics_path);
    }
    for file in table.partition_statistics_iter() {
        named(&file.statistics_path);
    }
    let snapshots: Vec<Arc<Snapshot>> =
        table.snapshots().filter(|snapshot| !known.contains(&snapshot.snapshot_id())).cloned().collect();
    for snapshot in &snapshots {
        named(snapshot.manifest_list());
    }
    let mut manifests = Hashed::default();
    // Lists first, eight at a time: the manifests that they share are read once. What is kept of a list are the
    // manifests that no list before it named.
    let lists = snapshots.iter().map(|snapshot| load_list(store, snapshot.manifest_list()));
    let lists: Vec<_> = lists.collect();
    let mut lists = stream::iter(lists).buffer_unordered(READS_AT_ONCE);
    let mut unread: Vec<ManifestFile> = Vec::new();
    while let Some(list) = lists.next().await {
        for manifest in list? {
            if manifests.insert(&manifest.manifest_path) {
                named(&manifest.manifest_path);
                unread.push(manifest);
            }
        }
    }
    drop(lists);
    let mut files = Hashed::default();
    let entries: Vec<_> = unread.iter().map(|manifest| load_entries(store, manifest)).collect();
    let mut entries = stream::iter(entries).buffer_unordered(READS_AT_ONCE);
    while let Some(manifest) = entries.next().await {
        // An entry that is deleted names a file that this snapshot does not read. Where an older snapshot still does,
        // that has the file in an entry of its own.
        for entry in manifest?.1.iter().filter(|entry| entry.is_alive()) {
            if files.insert(entry.file_path()) {
                named(entry.file_path());
            }
        }
    }
    reached.snapshots = snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_by_their_hashes() {
        let mut hashed = Hashed::default();
        assert!(hashed.is_empty());
        for i in 0..1_000 {
            assert!(hashed.insert(&format!("file:///w/t/data/{i}.parquet")));
        }
        assert!(!hashed.insert("file:///w/t/data/7.parquet"));
        assert!(hashed.remove("file:///w/t/data/7.parquet") && !hashed.contains("file:///w/t/data/7.parquet"));
        assert_eq!(hashed.len(), 999);
    }
}
