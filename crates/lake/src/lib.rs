//! The lake: Iceberg tables of Parquet files on a file system or S3, with an SQL catalog. The only crate that reads and
//! writes Iceberg metadata. Services pass it record batches and offset ranges, which it commits exactly once; readers
//! get one pinned snapshot and the files that can hold their answer.
//!
//! ```text
//! open ── Lake ── ensure_table ── TableHandle ── write ─► data files ─► commit ─► CommitOutcome
//!            └─── table ───────── TableReader ── snapshot ─► plan ─► files · scan_batches ─► rows
//! ```
//!
//! The commit protocol is two pure functions ([`commit::decide`], [`commit::after`]) and a thin shell around them; its
//! laws are stated in [`commit`] and model-checked over those same functions.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]

mod catalog;
pub mod commit;
pub mod config;
mod environment;
mod open;
pub mod read;
mod table;
pub mod write;

pub use catalog::sql::homes::{Home, Homes};
pub use catalog::sql::leases::{Lease, Leases};
pub use catalog::sql::sqlite_uri;
pub use catalog::{BoxError, CatalogError, CreateError, HeadError, MetadataFileError};
pub use commit::{CommitOutcome, CommitRequest};
pub use environment::Environment;
pub use iceberg::spec::DataFile;
pub use open::{EnsureError, Lake, LakeOptions, OpenError, TableHandle};
pub use read::{ColumnRange, Hashed, PastSnapshot, Reached, ReadError, ScanFile, TableReader, TableSnapshot, Value};
pub use table::schema::{ColumnMismatch, SchemaMismatch};
pub use table::{Attached, Attachment, Refined, TableIdent, Token};
pub use write::{FoldRows, MergeError, MergeOptions, SortedRows, WriteError};

#[cfg(test)]
mod tests;
