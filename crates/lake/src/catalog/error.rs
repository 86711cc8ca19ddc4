//! Why a request to a catalog failed. The causes are kept as plain errors: nothing above a catalog depends on the
//! library that it uses.

use objects::StoreError;

use crate::table::TableIdent;

/// The error of the library that a catalog uses.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the catalog did not answer, or the error that it answered with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The address cannot be parsed.
    #[error("catalog address is neither sqlite:///path nor postgres://user@host/database")]
    Address { source: BoxError },
    /// The directory of an SQLite catalog cannot be made.
    #[error("cannot make the directory {path} of the catalog database")]
    Directory { path: String, source: std::io::Error },
    /// A program that only reads found no SQLite file.
    #[error("there is no catalog {name}: start ingest first, which makes it, or correct `catalog.uri`")]
    Absent { name: String },
    /// No connection could be made.
    #[error("cannot connect to the catalog {name}: {hint}")]
    Connect { name: String, hint: &'static str, source: BoxError },
    /// The catalog answered with an error.
    #[error("the catalog {name} failed to {operation}")]
    Query { name: String, operation: &'static str, source: BoxError },
    /// The catalog did not answer in time.
    #[error("the catalog {name} did not answer a request to {operation} within {limit_s} s")]
    NoReply { name: String, operation: &'static str, limit_s: u64 },
    /// The catalog has no database for the table of home partitions.
    #[error(
        "the catalog {name} keeps no home partitions of agents' runs: reading from Kafka needs an SQL catalog, set `catalog.uri` \
         to sqlite:///path or postgres://user@host/database"
    )]
    NoHomes { name: &'static str },
    /// The catalog has no database for the table of leases.
    #[error(
        "the catalog {name} keeps no leases of work: maintenance by a service needs an SQL catalog, set `catalog.uri` to \
         sqlite:///path or postgres://user@host/database"
    )]
    NoLeases { name: &'static str },
}

impl CatalogError {
    /// The same request may succeed later, once the catalog is back.
    pub fn is_transient(&self) -> bool {
        // An error answer is among them: it may be a lock, a full disk or a shutdown, and repeating a commit is safe.
        matches!(self, Self::Connect { .. } | Self::Query { .. } | Self::NoReply { .. })
    }
}

/// Why the head of a table could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The catalog has no such table.
    #[error("table {0} does not exist")]
    NotFound(TableIdent),
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The metadata file could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata file is not valid.
    #[error("table metadata {location} is damaged")]
    Damaged { location: String, source: serde_json::Error },
    /// The metadata file is not valid gzip, or is too large to be the metadata of a table.
    #[error("table metadata {location} cannot be decompressed")]
    Compressed { location: String, source: std::io::Error },
    /// The process ends while the file is parsed.
    #[error("table metadata {location} was not read to the end")]
    Interrupted { location: String, source: tokio::task::JoinError },
    /// The table has another format version.
    #[error(
        "table metadata {location} has format version {version}, which another program gave the table: only version 2 is \
         read and written; if nothing was written since, set the catalog's pointer back to the metadata file before this one"
    )]
    Format { location: String, version: u8 },
}

impl HeadError {
    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::NotFound(_)
            | Self::Damaged { .. }
            | Self::Compressed { .. }
            | Self::Interrupted { .. }
            | Self::Format { .. } => false,
        }
    }
}

/// Why a metadata file could not be written. Nothing of the table has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataFileError {
    /// The metadata cannot be written as JSON.
    #[error("cannot encode the table's metadata")]
    Encode(#[from] serde_json::Error),
    /// The metadata cannot be compressed.
    #[error("cannot compress the table's metadata")]
    Compress(#[from] std::io::Error),
    /// The process ends while the metadata is encoded.
    #[error("the table's metadata was not encoded to the end")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a table could not be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Its first metadata file could not be written.
    #[error(transparent)]
    MetadataFile(#[from] MetadataFileError),
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}
