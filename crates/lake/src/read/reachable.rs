//! Every object that a table needs: what its metadata names, directly and through manifest lists and manifests.
//! Whatever else lies below its location is an orphan, or is being written.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures::FutureExt;
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

    /// Whether a name was added.
    pub fn contains(&self, name: &str) -> bool {
        self.hashes.contains(&self.hash(name))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
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
    /// The table's last sequence number.
    pub sequence_number: i64,
    /// The snapshots whose files were named, in this walk or in those before it.
    pub snapshots: BTreeSet<i64>,
    /// Objects that were named; one in several snapshots counts once.
    pub objects: u64,
}

/// Names everything that a head reaches; after an earlier walk only what has been added since. A manifest is read once
/// however many snapshots share it.
pub(super) async fn walk(
    store: &Store,
    head: &Head,
    since: Option<&Reached>,
    mut name: impl FnMut(&str),
) -> Result<Reached, ReadError> {
    let table = &head.metadata;
    let mut walked = since.map(|since| since.snapshots.clone()).unwrap_or_default();
    let snapshots: Vec<Arc<Snapshot>> =
        table.snapshots().filter(|snapshot| walked.insert(snapshot.snapshot_id())).cloned().collect();
    let mut objects = 0;
    let logged = table.metadata_log().iter().map(|log| log.metadata_file.as_str());
    // Attachments too: they are statistics files (ADR 33).
    let statistics = table.statistics_iter().map(|file| file.statistics_path.as_str());
    let partition_statistics = table.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    let lists = snapshots.iter().map(|snapshot| snapshot.manifest_list());
    for location in
        [&*head.location].into_iter().chain(logged).chain(statistics).chain(partition_statistics).chain(lists)
    {
        name(&as_listed(store, location));
        objects += 1;
    }
    let mut manifests = manifests(store, &snapshots).await?;
    if let Some(since) = since {
        // A manifest of an older commit was carried on from snapshot to snapshot, and so was in one of the earlier walk.
        manifests.retain(|manifest| manifest.sequence_number > since.sequence_number);
    }
    for manifest in &manifests {
        name(&as_listed(store, &manifest.manifest_path));
        objects += 1;
    }
    objects += files(store, &manifests, name).await?;
    Ok(Reached {
        location: table.location().trim_end_matches('/').to_owned(),
        metadata_location: head.location.to_string(),
        sequence_number: table.last_sequence_number(),
        snapshots: walked,
        objects,
    })
}

/// A location as the store lists it: other programs write that of a local file in another form. Compared by its text, a
/// live file of theirs would be taken for an orphan.
fn as_listed<'l>(store: &Store, location: &'l str) -> Cow<'l, str> {
    match store.path(location) {
        Ok(path) => format!("{}/{path}", store.root()).into(),
        // Outside the warehouse, where nothing is listed.
        Err(_) => location.into(),
    }
}

/// The manifests of snapshots, each once.
async fn manifests(store: &Store, snapshots: &[Arc<Snapshot>]) -> Result<Vec<ManifestFile>, ReadError> {
    let loads: Vec<_> = snapshots.iter().map(|snapshot| load_list(store, snapshot.manifest_list()).boxed()).collect();
    let mut lists = stream::iter(loads).buffer_unordered(READS_AT_ONCE);
    let mut known = Hashed::default();
    let mut manifests = Vec::new();
    while let Some(list) = lists.next().await {
        // Of a list only those are kept that no list before it named: the lists of a year have most in common.
        manifests.extend(list?.into_iter().filter(|manifest| known.insert(&manifest.manifest_path)));
    }
    Ok(manifests)
}

/// Names the live files of manifests; their number.
async fn files(store: &Store, manifests: &[ManifestFile], mut name: impl FnMut(&str)) -> Result<u64, ReadError> {
    let loads: Vec<_> = manifests.iter().map(|manifest| load_entries(store, manifest).boxed()).collect();
    let mut loaded = stream::iter(loads).buffer_unordered(READS_AT_ONCE);
    let mut known = Hashed::default();
    while let Some(entries) = loaded.next().await {
        // A deleted entry names a file that its snapshot does not read. An older snapshot that still reads it has a
        // manifest with a live entry of it.
        for entry in entries?.1.iter().filter(|entry| entry.is_alive()) {
            if known.insert(entry.file_path()) {
                name(&as_listed(store, entry.file_path()));
            }
        }
    }
    Ok(known.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_spark_wrote_is_named_as_the_store_lists_it() {
        let store = Store::open("/w/lake", None).unwrap();
        for location in ["file:/w/lake/t/data/a.parquet", "file:///w/lake/t/data/a.parquet"] {
            assert_eq!(as_listed(&store, location), "file:///w/lake/t/data/a.parquet");
        }
        assert_eq!(as_listed(&store, "s3://elsewhere/a"), "s3://elsewhere/a");
    }

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
