//! The manifests of the next snapshot. Every commit adds one small manifest; when a size class is full its members are
//! merged into one of the next class, as in a log-structured merge tree. So a snapshot has at most about sixteen
//! manifests per class, and each entry is rewritten a logarithmic number of times.
//!
//! A manifest beyond half the target size is sealed and only named from then on. Of a table that gets a file every
//! second one of 4,096 entries is sealed every 68 minutes, about 7,700 in a year; each commit's list names them all,
//! with about 160 bytes each. That list, 1.2 MB after a year, is what a commit costs more than on the first day.
//!
//! Everything is made in memory and uploaded by the committer in one go. A name holds the checksum of its content, so
//! that it is given when the content is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use iceberg::io::{MemoryStorage, OutputFile, Storage};
use iceberg::spec::{
    DataFile, ManifestContentType, ManifestEntry, ManifestFile, ManifestListWriter, ManifestWriterBuilder,
    TableMetadata, UNASSIGNED_SEQUENCE_NUMBER,
};

use super::base::Base;
use super::outcome::CommitError;
use crate::table::manifests::load_entries;
use objects::Store;

const READ_BACK: &str = "read back a manifest from memory";

/// When manifests are merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct MergePolicy {
    /// Members of a size class that make it full; each class is this many times larger than the one below.
    pub(crate) fanout: usize,
    /// A manifest beyond half of either is merged no more.
    pub(crate) target_bytes: u64,
    pub(crate) target_entries: u64,
}

impl MergePolicy {
    pub(super) const DEFAULT: Self = Self { fanout: 16, target_bytes: 8 << 20, target_entries: 5_000 };
}

/// What the merge decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl Size {
    fn of(manifest: &ManifestFile) -> Self {
        let files = [manifest.added_files_count, manifest.existing_files_count];
        Self {
            // Deleted entries do not count, because a merge leaves them out.
            entries: files.iter().map(|count| u64::from(count.unwrap_or(0))).sum(),
            bytes: manifest.manifest_length.unsigned_abs(),
        }
    }

    /// Whether a manifest of this size is merged no more.
    fn is_sealed(self, policy: MergePolicy) -> bool {
        self.bytes * 2 > policy.target_bytes || self.entries * 2 > policy.target_entries
    }

    /// The size class: the power of the fanout that the entries reach.
    fn class(self, fanout: u64) -> u32 {
        self.entries.max(1).ilog(fanout)
    }
}

/// Which manifests to merge into one: the members of the lowest full size class, oldest first, as many as the target
/// size holds. Indices into `sizes`; empty when no class is full.
pub(super) fn members_to_merge(sizes: &[Size], policy: MergePolicy) -> Vec<usize> {
    // A logarithm needs a base of two or more.
    let fanout = u64::try_from(policy.fanout).unwrap_or(u64::MAX).max(2);
    let open: Vec<usize> = (0..sizes.len()).filter(|i| !sizes[*i].is_sealed(policy)).collect();
    let highest = open.iter().map(|i| sizes[*i].class(fanout)).max().unwrap_or(0);
    // The lowest full class is the cheapest to merge. If the result fills the class above, the next commit merges that
    // one.
    for level in 0..=highest {
        let members: Vec<usize> = open.iter().copied().filter(|i| sizes[*i].class(fanout) == level).collect();
        if members.len() >= policy.fanout {
            return fitting(&members, sizes, policy);
        }
    }
    Vec::new()
}

fn fitting(members: &[usize], sizes: &[Size], policy: MergePolicy) -> Vec<usize> {
    let mut sum = Size { entries: 0, bytes: 0 };
    let taken = members.iter().copied().take_while(|i| {
        sum = Size { entries: sum.entries + sizes[*i].entries, bytes: sum.bytes + sizes[*i].bytes };
        sum.bytes <= policy.target_bytes && sum.entries <= policy.target_entries
    });
    let taken: Vec<usize> = taken.collect();
    // A single manifest would only be rewritten.
    if taken.len() > 1 { taken } else { Vec::new() }
}

/// Manifests, manifest list, and the objects to upload for them.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(crate) manifests: Vec<ManifestFile>,
    pub(crate) list_location: String,
    pub(crate) objects: Vec<(String, Bytes)>,
}

/// Files that leave a snapshot.
pub(super) struct Removal<'a> {
    pub(crate) paths: &'a BTreeSet<String>,
    /// The entries of every manifest that holds one of them, by the manifest's path.
    pub(crate) touched: BTreeMap<String, Arc<Vec<ManifestEntry>>>,
}

/// The entries of a manifest to be written.
#[derive(Default)]
struct Entries<'a> {
    existing: Vec<ManifestEntry>,
    deleted: Vec<ManifestEntry>,
    added: &'a [DataFile],
}

impl Entries<'_> {
    fn is_empty(&self) -> bool {
        self.existing.is_empty() && self.deleted.is_empty() && self.added.is_empty()
    }
}

/// Builds the manifests of one snapshot.
pub(super) struct Builder<'a> {
    store: &'a Store,
    table: &'a TableMetadata,
    snapshot_id: i64,
    sequence_number: i64,
    policy: MergePolicy,
    /// Makes the names of new objects.
    new_id: fn() -> uuid::Uuid,
    memory: MemoryStorage,
}

impl<'a> Builder<'a> {
    /// For the snapshot that the change adds to this head.
    pub(super) fn new(base: &Base<'a>) -> Self {
        Self {
            store: base.store,
            table: &base.head.metadata,
            snapshot_id: base.token.snapshot_id(),
            sequence_number: base.head.metadata.next_sequence_number(),
            policy: MergePolicy::DEFAULT,
            new_id: base.environment.new_id,
            memory: MemoryStorage::new(),
        }
    }

    /// Adds files to the manifests of the parent snapshot.
    pub(super) async fn append(&self, parent: Vec<ManifestFile>, files: &[DataFile]) -> Result<Manifests, CommitError> {
        let spec_id = self.table.default_partition_spec_id();
        // A manifest has one content type and one partition spec (Iceberg spec, "Manifests"): others cannot hold the
        // new files.
        let candidates: Vec<usize> = (0..parent.len())
            .filter(|i| parent[*i].content == ManifestContentType::Data && parent[*i].partition_spec_id == spec_id)
            .collect();
        let mut sizes: Vec<Size> = candidates.iter().map(|i| Size::of(&parent[*i])).collect();
        if !files.is_empty() {
            // The new files are the newest: they come last, as the manifest that they would be. Its bytes are not known
            // yet.
            sizes.push(Size { entries: files.len() as u64, bytes: 0 });
        }
        let chosen = members_to_merge(&sizes, self.policy);
        let merged: Vec<usize> = chosen.iter().filter_map(|i| candidates.get(*i).copied()).collect();
        // The index behind the candidates is that of the new files, which have no manifest yet.
        let merges_new_files = chosen.len() > merged.len();

        let existing = self.load(merged.iter().map(|i| &parent[*i])).await?;
        let (with_old, alone) = if merges_new_files { (files, &[][..]) } else { (&[][..], files) };
        // In their order: `members_to_merge` relies on the oldest being first.
        let kept = parent.into_iter().enumerate().filter(|(i, _)| !merged.contains(i)).map(|(_, m)| m);
        let mut built = Manifests { manifests: kept.collect(), ..Manifests::default() };
        let old = Entries { existing, added: with_old, ..Entries::default() };
        for entries in [old, Entries { added: alone, ..Entries::default() }] {
            self.write_manifest(&mut built, spec_id, entries).await?;
        }
        self.write_list(built, self.table.current_snapshot_id()).await
    }

    /// Takes files out of the manifests of the parent snapshot, and adds others.
    pub(super) async fn rewrite(
        &self,
        parent: Vec<ManifestFile>,
        removal: Removal<'_>,
        files: &[DataFile],
    ) -> Result<Manifests, CommitError> {
        let mut built = Manifests::default();
        for manifest in parent {
            let Some(entries) = removal.touched.get(&manifest.manifest_path) else {
                // Named again, and neither read nor written: manifests are immutable, and snapshots share them.
                built.manifests.push(manifest);
                continue;
            };
            // Entries that were deleted before belong to an earlier snapshot: if carried on, they would be deleted
            // again.
            let alive = entries.iter().filter(|entry| entry.is_alive()).cloned();
            let (deleted, existing) = alive.partition(|entry| removal.paths.contains(entry.file_path()));
            // Removed files are listed as deleted in the snapshot that removes them (Iceberg spec, "Manifest Entry
            // Fields"): incremental readers find them there.
            let entries = Entries { existing, deleted, added: &[] };
            self.write_manifest(&mut built, manifest.partition_spec_id, entries).await?;
        }
        let added = Entries { added: files, ..Entries::default() };
        self.write_manifest(&mut built, self.table.default_partition_spec_id(), added).await?;
        self.write_list(built, self.table.current_snapshot_id()).await
    }

    /// Lists the manifests of an older snapshot again.
    pub(super) async fn relist(&self, manifests: Vec<ManifestFile>, of: i64) -> Result<Manifests, CommitError> {
        self.write_list(Manifests { manifests, ..Manifests::default() }, Some(of)).await
    }

    async fn load<'m>(
        &self,
        manifests: impl Iterator<Item = &'m ManifestFile>,
    ) -> Result<Vec<ManifestEntry>, CommitError> {
        let loads = manifests.map(|manifest| load_entries(self.store, manifest));
        let loaded = try_join_all(loads).await.map_err(CommitError::Manifest)?;
        // Deleted entries belong to an earlier snapshot: if carried on, they would be deleted again.
        Ok(loaded.into_iter().flat_map(|(_, entries)| entries).filter(ManifestEntry::is_alive).collect())
    }

    /// Writes a manifest of files with one partition spec; nothing when there are no entries.
    async fn write_manifest(
        &self,
        built: &mut Manifests,
        spec_id: i32,
        entries: Entries<'_>,
    ) -> Result<(), CommitError> {
        if entries.is_empty() {
            return Ok(());
        }
        let error = metadata_error("write a manifest");
        let schema = Arc::clone(self.table.current_schema());
        // The metadata holds every spec that a manifest names, so that the fallback is not taken.
        let spec = self.table.partition_spec_by_id(spec_id).unwrap_or(self.table.default_partition_spec());
        let spec = spec.as_ref().clone();
        let output = self.output("m.avro");
        let mut writer = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec).build_v2_data();
        for entry in entries.existing {
            // Both are filled in when the manifest is read (`table::manifests::inherit`). They stay those of the commit
            // that added the file: row-level deletes apply to files by sequence number.
            let snapshot = entry.snapshot_id.unwrap_or_default();
            let sequence = entry.sequence_number.unwrap_or_default();
            let of_file = entry.file_sequence_number;
            writer.add_existing_file(entry.data_file, snapshot, sequence, of_file).map_err(&error)?;
        }
        for entry in entries.deleted {
            let sequence = entry.sequence_number.unwrap_or_default();
            writer.add_delete_file(entry.data_file, sequence, entry.file_sequence_number).map_err(&error)?;
        }
        for file in entries.added {
            // Inherited from the manifest list (Iceberg spec, "Sequence Number Inheritance").
            writer.add_file(file.clone(), UNASSIGNED_SEQUENCE_NUMBER).map_err(&error)?;
        }
        let mut manifest = writer.write_manifest_file().await.map_err(&error)?;
        // The writer of the manifest list assigns the number to its own copy. This one is kept for the next commit.
        for number in [&mut manifest.sequence_number, &mut manifest.min_sequence_number] {
            if *number == UNASSIGNED_SEQUENCE_NUMBER {
                *number = self.sequence_number;
            }
        }
        let bytes = self.memory.read(&manifest.manifest_path).await.map_err(metadata_error(READ_BACK))?;
        let id = objects::stamp((self.new_id)(), &bytes);
        // The name holds the checksum: the manifest was written under a provisional path.
        manifest.manifest_path = self.location(&format!("{id}-m.avro"));
        built.objects.push((manifest.manifest_path.clone(), bytes));
        built.manifests.push(manifest);
        Ok(())
    }

    async fn write_list(&self, mut built: Manifests, parent: Option<i64>) -> Result<Manifests, CommitError> {
        let error = metadata_error("write a manifest list");
        let id = self.snapshot_id;
        let output = self.output("snap.avro");
        let location = output.location().to_owned();
        let writer = output.writer().await.map_err(&error)?;
        let mut list = ManifestListWriter::v2(writer, id, parent, self.sequence_number);
        // Last of all objects, because it records path and length of each manifest.
        list.add_manifests(built.manifests.iter().cloned()).map_err(&error)?;
        list.close().await.map_err(&error)?;
        let bytes = self.memory.read(&location).await.map_err(metadata_error(READ_BACK))?;
        let name = objects::stamp((self.new_id)(), &bytes);
        built.list_location = self.location(&format!("snap-{id}-{name}.avro"));
        built.objects.push((built.list_location.clone(), bytes));
        Ok(built)
    }

    /// A place in memory, overwritten by the next manifest of the same name.
    fn output(&self, name: &str) -> OutputFile {
        OutputFile::new(Arc::new(self.memory.clone()), self.location(name))
    }

    fn location(&self, name: &str) -> String {
        format!("{}/metadata/{name}", self.table.location().trim_end_matches('/'))
    }
}

pub(super) fn metadata_error(what: &'static str) -> impl Fn(iceberg::Error) -> CommitError {
    move |source| CommitError::Metadata { what, source }
}

#[cfg(test)]
mod tests;
