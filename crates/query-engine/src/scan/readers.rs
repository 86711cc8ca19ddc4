//! The tables of the lake, each with a reader that keeps its newest snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lake::{HeadError, Lake, ReadError, TableIdent, TableReader, TableSnapshot};

use crate::error::QueryError;

/// The readers of all tables that have been read so far.
pub(crate) struct Readers {
    lake: Lake,
    known: Mutex<HashMap<TableIdent, TableReader>>,
}

impl Readers {
    pub(crate) fn new(lake: Lake) -> Self {
        Self { lake, known: Mutex::default() }
    }

    /// The reader of a table. The table may not exist, which only reading it shows.
    pub(crate) fn of(&self, table: &TableIdent) -> TableReader {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Without I/O under the lock. A clone of a reader shares its newest snapshot.
        known.entry(table.clone()).or_insert_with(|| self.lake.table(&table.namespace, &table.name)).clone()
    }

    /// The current snapshot of a table; `None` when the table has not been created yet.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn snapshot(&self, table: &TableIdent) -> Result<Option<Arc<TableSnapshot>>, QueryError> {
        match self.of(table).snapshot().await {
            Ok(snapshot) => Ok(Some(snapshot)),
            // No error: nothing has landed in the table yet, and ingest has not created it.
            Err(ReadError::Head(HeadError::NotFound(_))) => Ok(None),
            Err(error) => Err(QueryError::lake(&error)),
        }
    }

    /// Looks a table up in the catalog, and fetches the metadata file that the catalog points at, although a reader may
    /// hold it.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(crate) async fn check(&self, table: &TableIdent) -> Result<(), QueryError> {
        if let Some(snapshot) = self.snapshot(table).await? {
            // An unchanged location costs no fetch in `snapshot`, so that a store that is away would go unnoticed.
            let fetched = self.lake.store().get(snapshot.metadata_location()).await;
            fetched.map_err(|error| QueryError::lake(&error.into()))?;
        }
        Ok(())
    }
}
