//! What lies in the warehouse: one page of names, sizes and times after another.

use object_store::ObjectMeta;

use crate::location::Outside;

/// An object as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The full location, as tables name their files.
    pub location: String,
    /// Bytes of its content.
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
