//! The catalog as Iceberg's JDBC catalog keeps it: a pointer per table in an SQL database, to metadata files that the
//! client writes. What was read of a metadata file is kept, because metadata files never change.

mod database;
pub(crate) mod homes;
pub(crate) mod leases;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::spec::TableMetadata;
use objects::Store;

use super::metadata_file::{self, Encoded};
use super::{
    Catalog, CatalogError, CommitReply, CreateError, Head, HeadError, MetadataFileError, PreparedCommit, Version,
};
use crate::environment::Environment;
use crate::table::TableIdent;
use crate::table::schema::DELETE_OLD_METADATA;

pub use database::sqlite_uri;
pub(crate) use database::{Database, SwapReply, must_exist};

/// A catalog in an SQL database.
#[derive(Debug)]
pub(crate) struct SqlCatalog {
    database: Arc<Database>,
    store: Store,
    environment: Environment,
    /// The newest version read or written of each table.
    newest: Mutex<BTreeMap<TableIdent, Head>>,
    /// Tables with a swap whose fate is unknown, and the pointer it started from: once the pointer has left that place,
    /// the swap cannot be applied any more.
    in_doubt: Mutex<BTreeMap<TableIdent, Arc<str>>>,
}

impl SqlCatalog {
    pub(crate) fn new(database: Arc<Database>, store: Store, environment: Environment) -> Self {
        Self { database, store, environment, newest: Mutex::default(), in_doubt: Mutex::default() }
    }

    async fn load_once(&self, ident: &TableIdent) -> Result<Head, HeadError> {
        let location = match self.doubtful_base(ident) {
            None => self.database.location(ident).await?,
            // A pooled connection may belong to the session of the lost request and answer from its transaction. A new
            // one shares nothing with it.
            Some(base) => {
                let location = self.database.location_over_new_connection(ident).await?;
                // The lost swap requires that the pointer is at `base`. Once it is elsewhere, the swap cannot be
                // applied any more.
                if location.as_deref() != Some(&*base) {
                    self.end_doubt(ident, &base);
                }
                location
            }
        };
        let location = location.ok_or_else(|| HeadError::NotFound(ident.clone()))?;
        // Metadata files are immutable: the same location is the same content.
        if let Some(head) = self.known(ident).filter(|head| *head.location == location) {
            return Ok(head);
        }
        let file = self.store.get(&location).await?;
        let name = location.clone();
        // Megabytes of JSON take a tenth of a second, in which a thread of the async runtime would serve nothing else.
        let head = tokio::task::spawn_blocking(move || Head::parse(&name, &file)).await;
        let head = head.map_err(|source| HeadError::Interrupted { location, source })??;
        self.remember(ident, head.clone());
        Ok(head)
    }

    fn doubtful_base(&self, ident: &TableIdent) -> Option<Arc<str>> {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner).get(ident).cloned()
    }

    /// Ends the doubt about a swap from `base`.
    fn end_doubt(&self, ident: &TableIdent, base: &str) {
        let mut in_doubt = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        // Since the pointer was asked for, the committer may have lost another reply: that doubt stays.
        if in_doubt.get(ident).is_some_and(|doubtful| **doubtful == *base) {
            in_doubt.remove(ident);
        }
    }

    fn known(&self, ident: &TableIdent) -> Option<Head> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(ident).cloned()
    }

    fn remember(&self, ident: &TableIdent, head: Head) {
        let before = self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(ident.clone(), head);
        if before.is_none() {
            // Commits of different tables run at the same time, those of one table one after another: one connection
            // each.
            self.database.add_connection();
        }
    }

    /// Writes a metadata file under a name never used before; returns its location.
    async fn write_metadata(&self, table: &Arc<TableMetadata>, version: u32) -> Result<String, MetadataFileError> {
        let directory = table.location().trim_end_matches('/').to_owned();
        let table = Arc::clone(table);
        // As in `load_once`: encoding takes as long as parsing.
        let Encoded { bytes, suffix } = tokio::task::spawn_blocking(move || metadata_file::encode(&table)).await??;
        // A name is never used twice: an attempt that is repeated cannot overwrite a file that a pointer already names.
        let id = objects::stamp((self.environment.new_id)(), &bytes);
        let location = format!("{directory}/metadata/{version:05}-{id}{suffix}");
        self.store.put(&location, Bytes::from(bytes)).await?;
        Ok(location)
    }

    /// Deletes metadata files that nothing names any more, without waiting: a file that stays is an orphan and
    /// harmless.
    fn delete_metadata(&self, locations: Vec<String>) {
        tokio::spawn(delete_all(self.store.clone(), locations));
    }
}

async fn delete_all(store: Store, locations: Vec<String>) {
    for location in locations {
        if let Err(error) = store.delete(&location).await {
            tracing::debug!(location, %error, "an old metadata file stays");
        }
    }
}

#[async_trait]
impl Catalog for SqlCatalog {
    async fn load(&self, ident: &TableIdent) -> Result<Head, HeadError> {
        match self.load_once(ident).await {
            // The pointer may have moved so far since it was read that its old file is deleted (ADR 11). It is read
            // again, once: to be overtaken twice takes another hundred commits between two requests.
            Err(HeadError::Store(error)) if error.is_not_found() => self.load_once(ident).await,
            head => head,
        }
    }

    async fn create(&self, ident: &TableIdent, metadata: &TableMetadata) -> Result<bool, CreateError> {
        // The file first: a crash in between leaves an orphan, and not a table whose metadata file is absent.
        let location = self.write_metadata(&Arc::new(metadata.clone()), 0).await?;
        self.database.ensure_namespace(&ident.namespace).await?;
        Ok(self.database.create(ident, &location).await?)
    }

    async fn prepare<'a>(
        &'a self,
        ident: &'a TableIdent,
        base: &'a Head,
        version: Version,
    ) -> Result<Box<dyn PreparedCommit + 'a>, MetadataFileError> {
        // Write-ahead: the pointer must never name a file that is not durable.
        let location = self.write_metadata(&version.metadata, base.version() + 1).await?;
        Ok(Box::new(PointerSwap { catalog: self, ident, base, location: location.into(), version }))
    }

    async fn list(&self) -> Result<Vec<TableIdent>, CatalogError> {
        self.database.list().await
    }
}

/// A swap of the pointer to a metadata file that is written.
struct PointerSwap<'a> {
    catalog: &'a SqlCatalog,
    ident: &'a TableIdent,
    base: &'a Head,
    location: Arc<str>,
    version: Version,
}

#[async_trait]
impl PreparedCommit for PointerSwap<'_> {
    async fn commit(self: Box<Self>) -> CommitReply {
        let Self { catalog, ident, base, location, version } = *self;
        match catalog.database.swap(ident, &base.location, &location).await {
            SwapReply::Lost => CommitReply::Lost,
            SwapReply::NotSent(error) => CommitReply::NotSent(error),
            SwapReply::Unknown(error) => {
                // Recorded before the reply is returned: the next `load` must not ask over the pool.
                let mut in_doubt = catalog.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
                in_doubt.insert(ident.clone(), Arc::clone(&base.location));
                CommitReply::Unknown(error)
            }
            SwapReply::Applied => {
                let properties = version.metadata.properties();
                // Only after the swap, because the base still lists these files. The property is Iceberg's: other
                // programs respect it too.
                if properties.get(DELETE_OLD_METADATA).is_some_and(|value| value == "true") {
                    catalog.delete_metadata(version.expired_metadata);
                }
                let head = Head { location, metadata: version.metadata, refs: Arc::new(version.refs) };
                catalog.remember(ident, head.clone());
                CommitReply::Applied(head)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join;

    use super::*;

    fn lose_reply(catalog: &SqlCatalog, ident: &TableIdent, base: &str) {
        catalog.in_doubt.lock().unwrap().insert(ident.clone(), base.into());
    }

    #[tokio::test]
    async fn an_answer_about_one_lost_reply_does_not_end_the_doubt_about_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let database = Database::open(&sqlite_uri(&format!("{path}/catalog.sqlite"))).await.unwrap();
        let store = Store::open(path, None).unwrap();
        let catalog = SqlCatalog::new(Arc::new(database), store, Environment::default());
        let ident = TableIdent::new("silver", "t");
        lose_reply(&catalog, &ident, "first");
        // `join` polls in this order: the question is on its way when the committer loses the second reply.
        let found = join(catalog.load(&ident), async { lose_reply(&catalog, &ident, "second") }).await.0;
        assert!(matches!(found, Err(HeadError::NotFound(_))), "{found:?}");
        assert_eq!(catalog.doubtful_base(&ident).as_deref(), Some("second"));
        catalog.load(&ident).await.unwrap_err();
        assert_eq!(catalog.doubtful_base(&ident), None, "the pointer has left the base of the last doubt");
    }
}
