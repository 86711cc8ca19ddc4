//! What a table is, to every module above: its name, its schema, its manifests, and what its properties record of the
//! log. This module uses no other module of the crate.

pub(crate) mod attachments;
pub(crate) mod days;
pub(crate) mod history;
pub(crate) mod manifests;
pub(crate) mod positions;
pub(crate) mod refined;
pub(crate) mod schema;
mod token;

use std::fmt;

pub use attachments::{Attached, Attachment};
pub use refined::Refined;
pub use token::Token;

/// Microseconds of a day, by which tables are partitioned.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// `namespace.name` of a table in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableIdent {
    /// The namespace, such as `silver`.
    pub namespace: String,
    /// The name inside of the namespace.
    pub name: String,
}

impl TableIdent {
    /// The identifier of a table that need not exist.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for TableIdent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}
