//! A catalog in the memory of one process, for tests and simulations. As a REST server it keeps the metadata itself: it
//! checks the requirements of a commit and applies its updates, and the client writes no metadata file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use iceberg::spec::TableMetadata;

use super::{
    Catalog, CatalogError, CommitReply, CreateError, Head, HeadError, MetadataFileError, PreparedCommit, Version,
    updated,
};
use crate::table::TableIdent;

/// Tables by name.
#[derive(Debug, Default)]
pub(crate) struct MemoryCatalog {
    tables: Mutex<BTreeMap<TableIdent, Head>>,
    /// What happens to the next commits, in this order; those behind the last one are carried out and answered.
    #[cfg(test)]
    pub(crate) faults: Mutex<std::collections::VecDeque<Fault>>,
}

/// What happens to a commit on its way.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out and its reply is lost.
    LoseReply,
    /// It never arrives, and the client cannot know.
    LoseRequest,
    /// It never leaves.
    NotSent,
}

impl MemoryCatalog {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<TableIdent, Head>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, ident: &TableIdent, version: Version) -> CommitReply {
        // One lock over check and change: without it this would be no compare-and-swap.
        let mut tables = self.tables();
        let Some(current) = tables.get(ident) else { return CommitReply::Lost };
        let holds = version.requirements.iter().all(|requirement| requirement.check(Some(&current.metadata)).is_ok());
        if !holds {
            return CommitReply::Lost;
        }
        match updated(current, version.updates) {
            Ok((built, refs)) => {
                let location = memory_location(ident, current.version() + 1);
                let head = Head { location, metadata: Arc::new(built.metadata), refs: Arc::new(refs) };
                tables.insert(ident.clone(), head.clone());
                CommitReply::Applied(head)
            }
            // Updates that cannot be applied have changed nothing, like a request that was not sent.
            Err(error) => CommitReply::NotSent(refused(error)),
        }
    }
}

fn memory_location(ident: &TableIdent, version: u32) -> Arc<str> {
    format!("memory:{}/{}/{version:05}-metadata", ident.namespace, ident.name).into()
}

fn refused(error: iceberg::Error) -> CatalogError {
    CatalogError::Query { name: "memory".to_owned(), operation: "apply a commit", source: error.into() }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn load(&self, ident: &TableIdent) -> Result<Head, HeadError> {
        self.tables().get(ident).cloned().ok_or_else(|| HeadError::NotFound(ident.clone()))
    }

    async fn create(&self, ident: &TableIdent, metadata: &TableMetadata) -> Result<bool, CreateError> {
        let mut tables = self.tables();
        if tables.contains_key(ident) {
            return Ok(false);
        }
        let location = memory_location(ident, 0);
        tables.insert(ident.clone(), Head { location, metadata: Arc::new(metadata.clone()), refs: Arc::default() });
        Ok(true)
    }

    async fn prepare<'a>(
        &'a self,
        ident: &'a TableIdent,
        _base: &'a Head,
        version: Version,
    ) -> Result<Box<dyn PreparedCommit + 'a>, MetadataFileError> {
        Ok(Box::new(MemoryCommit { catalog: self, ident, version }))
    }

    async fn list(&self) -> Result<Vec<TableIdent>, CatalogError> {
        Ok(self.tables().keys().cloned().collect())
    }
}

struct MemoryCommit<'a> {
    catalog: &'a MemoryCatalog,
    ident: &'a TableIdent,
    version: Version,
}

#[async_trait]
impl PreparedCommit for MemoryCommit<'_> {
    async fn commit(self: Box<Self>) -> CommitReply {
        #[cfg(test)]
        if let Some(fault) = self.catalog.next_fault() {
            return fault.meet(*self);
        }
        self.catalog.apply(self.ident, self.version)
    }
}

#[cfg(test)]
impl MemoryCatalog {
    fn next_fault(&self) -> Option<Fault> {
        self.faults.lock().unwrap().pop_front()
    }
}

#[cfg(test)]
impl Fault {
    fn meet(self, commit: MemoryCommit<'_>) -> CommitReply {
        let no_reply = CatalogError::NoReply { name: "memory".to_owned(), operation: "commit", limit_s: 0 };
        match self {
            Self::NotSent => CommitReply::NotSent(no_reply),
            Self::LoseRequest => CommitReply::Unknown(no_reply),
            Self::LoseReply => {
                commit.catalog.apply(commit.ident, commit.version);
                CommitReply::Unknown(no_reply)
            }
        }
    }
}
