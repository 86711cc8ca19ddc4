//! From the names in a statement to batches of rows: the snapshots, the rows and the files that are read, and their
//! bytes.

pub(crate) mod archived;
pub(crate) mod field_ids;
pub(crate) mod files;
pub(crate) mod narrowing;
pub(crate) mod provider;
pub(crate) mod pruning;
pub(crate) mod readers;
pub(crate) mod resolve;
pub(crate) mod scope;
pub(crate) mod statistics;
