//! What the catalog points at: for each table one metadata file, swapped by compare-and-swap. [`sql`] talks to the
//! database; here a pointer becomes the table's metadata, read through the store and cached, because metadata files never
//! change.

pub(crate) mod homes;
pub(crate) mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use iceberg::spec::{FormatVersion, TableMetadata};
use serde::Deserialize;

use objects::{Store, StoreError};
use sql::{CatalogError, SqlCatalog};

use crate::table::TableIdent;

/// Why the head of a table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    #[error("table {0} does not exist")]
    NotFound(TableIdent),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("table metadata {location} is damaged")]
    Damaged { location: String, source: serde_json::Error },
    #[error("table metadata {location} has format version {version}: only version 2 is read and written")]
    Format { location: String, version: u8 },
}

impl HeadError {
    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::NotFound(_) | Self::Damaged { .. } | Self::Format { .. } => false,
        }
    }
}

/// The table as one catalog read saw it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) location: Arc<str>,
    pub(crate) metadata: Arc<TableMetadata>,
    /// Snapshots that a branch or tag holds; expiry must leave them.
    pub(crate) referenced: Arc<BTreeSet<i64>>,
}

impl Head {
    /// The number in front of the metadata file's name; 0 when another program names its files differently.
    pub(crate) fn version(&self) -> u32 {
        let file = self.location.rsplit('/').next().unwrap_or_default();
        file.split('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

/// Reads heads and remembers the newest metadata of each table.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) catalog: SqlCatalog,
    pub(crate) store: Store,
    newest: Mutex<BTreeMap<TableIdent, Head>>,
}

/// Over which connection to ask the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Pool,
    /// After a lost reply: a connection that cannot hold anything of the failed one.
    FreshConnection,
}

impl Heads {
    pub(crate) fn new(catalog: SqlCatalog, store: Store) -> Self {
        Self { catalog, store, newest: Mutex::default() }
    }

    /// The table's current head: always asks the catalog, reads metadata only when the pointer moved.
    pub(crate) async fn read(&self, ident: &TableIdent, via: Via) -> Result<Head, HeadError> {
        match self.read_once(ident, via).await {
            // Old metadata is deleted: the pointer may have moved on far while we were asking.
            Err(HeadError::Store(error)) if error.is_not_found() => self.read_once(ident, via).await,
            head => head,
        }
    }

    async fn read_once(&self, ident: &TableIdent, via: Via) -> Result<Head, HeadError> {
        let location = match via {
            Via::Pool => self.catalog.location(ident).await?,
            Via::FreshConnection => self.catalog.location_fresh(ident).await?,
        };
        let location = location.ok_or_else(|| HeadError::NotFound(ident.clone()))?;
        if let Some(head) = self.cached(ident).filter(|head| *head.location == location) {
            return Ok(head);
        }
        let head = parse_head(&location, &self.store.get(&location).await?)?;
        self.remember(ident, head.clone());
        Ok(head)
    }

    /// Keeps a head we wrote ourselves, so that the next commit need not read it back.
    pub(crate) fn remember(&self, ident: &TableIdent, head: Head) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(ident.clone(), head);
    }

    fn cached(&self, ident: &TableIdent) -> Option<Head> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(ident).cloned()
    }
}

/// The references of a metadata file, which `iceberg` parses but does not show.
#[derive(Deserialize)]
struct References {
    #[serde(default)]
    refs: BTreeMap<String, Reference>,
    #[serde(rename = "format-version")]
    format_version: u8,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "snapshot-id")]
    snapshot_id: i64,
}

fn parse_head(location: &str, json: &[u8]) -> Result<Head, HeadError> {
    let damaged = |source| HeadError::Damaged { location: location.to_owned(), source };
    let references: References = serde_json::from_slice(json).map_err(damaged)?;
    if references.format_version != FormatVersion::V2 as u8 {
        return Err(HeadError::Format { location: location.to_owned(), version: references.format_version });
    }
    let metadata: TableMetadata = serde_json::from_slice(json).map_err(damaged)?;
    let held = references.refs.into_iter().filter(|(name, _)| name != iceberg::spec::MAIN_BRANCH);
    Ok(Head {
        location: location.into(),
        metadata: Arc::new(metadata),
        referenced: Arc::new(held.map(|(_, reference)| reference.snapshot_id).collect()),
    })
}
