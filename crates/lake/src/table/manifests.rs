//! Reads manifest lists and manifests (Iceberg spec, "Manifests" and "Manifest Lists").

use iceberg::spec::{
    FormatVersion, Manifest, ManifestContentType, ManifestEntry, ManifestFile, ManifestList, ManifestStatus,
    PartitionSpec,
};
use objects::{Store, StoreError};

/// Why a manifest or a manifest list could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The object could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is no Avro file of the expected schema.
    #[error("manifest {location} is damaged")]
    Damaged { location: String, source: iceberg::Error },
}

impl ManifestError {
    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// Reads a manifest list.
pub(crate) async fn load_list(store: &Store, location: &str) -> Result<Vec<ManifestFile>, ManifestError> {
    let bytes = store.get(location).await?;
    let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2)
        .map_err(|source| ManifestError::Damaged { location: location.to_owned(), source })?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Reads a manifest: its partition spec and its entries, with the values they inherit from the manifest list filled in.
pub(crate) async fn load_entries(
    store: &Store,
    manifest: &ManifestFile,
) -> Result<(PartitionSpec, Vec<ManifestEntry>), ManifestError> {
    let location = &manifest.manifest_path;
    let bytes = store.get(location).await?;
    let parsed =
        Manifest::parse_avro(&bytes).map_err(|source| ManifestError::Damaged { location: location.clone(), source })?;
    let (entries, metadata) = parsed.into_parts();
    let entries = entries.into_iter().map(|entry| inherit(std::sync::Arc::unwrap_or_clone(entry), manifest)).collect();
    Ok((metadata.partition_spec, entries))
}

/// Whether a manifest lists delete files that are live: the table has row-level deletes.
pub(crate) fn holds_deletes(manifest: &ManifestFile) -> bool {
    manifest.content == ManifestContentType::Deletes && (manifest.has_added_files() || manifest.has_existing_files())
}

/// Iceberg spec, "Sequence Number Inheritance".
fn inherit(mut entry: ManifestEntry, manifest: &ManifestFile) -> ManifestEntry {
    entry.snapshot_id = entry.snapshot_id.or(Some(manifest.added_snapshot_id));
    // Existing entries carry their own numbers. Number 0 is that of a version 1 manifest, all of whose entries inherit
    // it.
    if entry.status == ManifestStatus::Added || manifest.sequence_number == 0 {
        entry.sequence_number = entry.sequence_number.or(Some(manifest.sequence_number));
        entry.file_sequence_number = entry.file_sequence_number.or(Some(manifest.sequence_number));
    }
    entry
}
