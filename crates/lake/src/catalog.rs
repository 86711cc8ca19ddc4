//! Which version of each table is current, and the swap from one to the next.
//!
//! [`Catalog`] is the only interface that the modules above use. [`sql`] is a pointer in a database beside metadata
//! files that the client writes; [`memory`] applies updates to metadata that it keeps itself, as a REST server does.

mod error;
mod head;
pub(crate) mod memory;
mod metadata_file;
pub(crate) mod sql;

use std::fmt;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;

pub use error::{BoxError, CatalogError, CreateError, HeadError, MetadataFileError};
pub(crate) use head::{Head, Version, updated};

use crate::table::TableIdent;

/// A catalog of Iceberg tables.
#[async_trait]
pub(crate) trait Catalog: fmt::Debug + Send + Sync {
    /// The current version of a table.
    ///
    /// After [`CommitReply::Unknown`] the answer is at least as new as what any request sent before it has done: the
    /// catalog asks over a connection that shares nothing with the lost request, until the table has moved on.
    async fn load(&self, ident: &TableIdent) -> Result<Head, HeadError>;

    /// Registers a table with its first version. `false`: the name was taken.
    async fn create(&self, ident: &TableIdent, metadata: &TableMetadata) -> Result<bool, CreateError>;

    /// Does what a commit needs before it is sent and changes no table: a client that writes the metadata file writes
    /// it here. The other objects of the version may be written at the same time.
    async fn prepare<'a>(
        &'a self,
        ident: &'a TableIdent,
        base: &'a Head,
        version: Version,
    ) -> Result<Box<dyn PreparedCommit + 'a>, MetadataFileError>;

    /// Every table, by name.
    async fn list(&self) -> Result<Vec<TableIdent>, CatalogError>;
}

/// A commit that is ready to be sent.
#[async_trait]
pub(crate) trait PreparedCommit: Send {
    /// Replaces the base by the new version, if the table is still at the base.
    async fn commit(self: Box<Self>) -> CommitReply;
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum CommitReply {
    /// The table is at the new version, which is this.
    Applied(Head),
    /// The table had moved; nothing was changed.
    Lost,
    /// No request left this machine; nothing was changed.
    NotSent(CatalogError),
    /// The request left and no verdict came back. It may have been applied, and may still be.
    Unknown(CatalogError),
}
