//! The tables of the lake, each with a reader that remembers its newest snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lake::{HeadError, Lake, ReadError, TableIdent, TableReader, TableSnapshot};

use crate::error::QueryError;

/// The readers of all tables that were asked for so far.
pub(crate) struct Readers {
    lake: Lake,
    known: Mutex<HashMap<TableIdent, TableReader>>,
}

impl Readers {
    pub(crate) fn new(lake: Lake) -> Self {
        Self { lake, known: Mutex::default() }
    }

    /// The reader of a table. Whether the table exists shows when it is read.
    pub(crate) fn of(&self, table: &TableIdent) -> TableReader {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(table.clone()).or_insert_with(|| self.lake.table(&table.namespace, &table.name)).clone()
    }

    /// A table as it is now; `None` when nothing made it yet.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn snapshot(&self, table: &TableIdent) -> Result<Option<Arc<TableSnapshot>>, QueryError> {
        match self.of(table).snapshot().await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(ReadError::Head(HeadError::NotFound(_))) => Ok(None),
            Err(error) => Err(QueryError::lake(&error)),
        }
    }

    /// Asks the catalog for a table and the store for the metadata file it points at, which readers remember otherwise.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn check(&self, table: &TableIdent) -> Result<(), QueryError> {
        if let Some(snapshot) = self.snapshot(table).await? {
            let fetched = self.lake.store().get(snapshot.metadata_location()).await;
            fetched.map_err(|error| QueryError::lake(&error.into()))?;
        }
        Ok(())
    }
}
