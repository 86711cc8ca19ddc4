//! What lies in the warehouse: one page of names, sizes and times after another.

use futures::stream::{BoxStream, StreamExt};
use object_store::ObjectMeta;

use crate::store::{Outside, Store};

/// An object as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The full location, as tables name their files.
    pub location: String,
    pub size_bytes: u64,
    /// When it was last written by the store's clock, as Unix time in milliseconds.
    pub modified_unix_ms: i64,
}

impl ObjectInfo {
    pub(crate) fn new(location: String, meta: &ObjectMeta) -> Self {
        Self { location, size_bytes: meta.size, modified_unix_ms: meta.last_modified.timestamp_millis() }
    }
}

/// Why objects were not listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error("cannot list {prefix}")]
    List { prefix: String, source: object_store::Error },
}

impl ListError {
    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::List { .. })
    }
}

impl Store {
    /// All objects below a location, in no order; below the root: all of the warehouse. `…/data` does not have what lies in
    /// `…/data2`. Objects written while the stream is read may be missing. The stream ends at its first error.
    ///
    /// # Errors
    /// The location is outside the warehouse; the stream's items fail when the store does.
    pub fn list(&self, below: &str) -> Result<BoxStream<'static, Result<ObjectInfo, ListError>>, ListError> {
        let below = below.trim_end_matches('/');
        let prefix = if below == self.root() { None } else { Some(self.inside(below)?) };
        let root = self.root().to_owned();
        let below = below.to_owned();
        let found = self.objects().list(prefix.as_ref()).map(move |found| match found {
            Ok(meta) => Ok(ObjectInfo::new(format!("{root}/{}", meta.location), &meta)),
            Err(source) => Err(ListError::List { prefix: below.clone(), source }),
        });
        Ok(found.boxed())
    }
}
