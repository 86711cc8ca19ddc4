//! A version of a table: the one that a catalog has, and the one that a commit proposes in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{FormatVersion, MAIN_BRANCH, SnapshotReference, TableMetadata, TableMetadataBuildResult};
use iceberg::{TableRequirement, TableUpdate};
use serde::Deserialize;

use super::{HeadError, metadata_file};

/// The table as one read of the catalog returned it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The metadata file: two heads with the same location are the same.
    pub(crate) location: Arc<str>,
    pub(crate) metadata: Arc<TableMetadata>,
    /// Branches and tags by name, which `iceberg` parses but does not show.
    pub(crate) refs: Arc<BTreeMap<String, SnapshotReference>>,
}

impl Head {
    /// Parses a metadata file, compressed or not.
    pub(crate) fn parse(location: &str, file: &[u8]) -> Result<Self, HeadError> {
        let json = metadata_file::decode(file);
        let json = json.map_err(|source| HeadError::Compressed { location: location.to_owned(), source })?;
        let damaged = |source| HeadError::Damaged { location: location.to_owned(), source };
        let hidden: HiddenFields = serde_json::from_slice(&json).map_err(damaged)?;
        // Checked first: `iceberg` also parses version 3, whose deletion vectors and row lineage are not implemented
        // here.
        if hidden.format_version != FormatVersion::V2 as u8 {
            return Err(HeadError::Format { location: location.to_owned(), version: hidden.format_version });
        }
        let metadata: TableMetadata = serde_json::from_slice(&json).map_err(damaged)?;
        Ok(Self { location: location.into(), metadata: Arc::new(metadata), refs: Arc::new(hidden.refs) })
    }

    /// The number in front of the metadata file's name; 0 when another program names its files differently.
    pub(crate) fn version(&self) -> u32 {
        // Names as Apache Iceberg makes them: `00042-<uuid>.metadata.json` or `….gz.metadata.json`.
        let file = self.location.rsplit('/').next().unwrap_or_default();
        file.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Snapshots that a branch or tag other than `main` names.
    pub(crate) fn referenced(&self) -> BTreeSet<i64> {
        let others = self.refs.iter().filter(|(name, _)| *name != MAIN_BRANCH);
        others.map(|(_, reference)| reference.snapshot_id).collect()
    }
}

/// Fields of a metadata file that `iceberg` parses but does not show.
#[derive(Deserialize)]
struct HiddenFields {
    #[serde(default)]
    refs: BTreeMap<String, SnapshotReference>,
    #[serde(rename = "format-version")]
    format_version: u8,
}

/// The version that a commit proposes, in both forms that catalogs take: the whole metadata for a client that writes
/// the metadata file itself, updates and requirements for a server that does (Iceberg REST spec, `CommitTableRequest`).
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) metadata: Arc<TableMetadata>,
    pub(crate) refs: BTreeMap<String, SnapshotReference>,
    pub(crate) updates: Vec<TableUpdate>,
    /// What must still hold of the table when the updates are applied.
    pub(crate) requirements: Vec<TableRequirement>,
    /// Metadata files that have left the log of previous versions.
    pub(crate) expired_metadata: Vec<String>,
}

/// The metadata and the references after updates of a head.
pub(crate) fn updated(
    base: &Head,
    updates: Vec<TableUpdate>,
) -> Result<(TableMetadataBuildResult, BTreeMap<String, SnapshotReference>), iceberg::Error> {
    // The builder applies references but does not return them: the same updates are applied to a copy.
    let mut refs = (*base.refs).clone();
    let mut builder = (*base.metadata).clone().into_builder(Some(base.location.to_string()));
    for update in updates {
        match &update {
            TableUpdate::SetSnapshotRef { ref_name, reference } => {
                refs.insert(ref_name.clone(), reference.clone());
            }
            TableUpdate::RemoveSnapshotRef { ref_name } => {
                refs.remove(ref_name);
            }
            _ => {}
        }
        // In their order: a reference may name a snapshot that an update before it adds.
        builder = update.apply(builder)?;
    }
    Ok((builder.build()?, refs))
}
