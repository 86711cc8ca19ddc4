//! What must be true of the tables of a lake: every message landed once, and the ledger closes. It is proved from the tables alone.
//!
//! [`files::check`] compares the files with their checksums: rows of a damaged file prove nothing. [`read`] reads the [`Facts`], and
//! [`check`], a pure function, finds the laws that they break.

mod columns;
mod error;
mod facts;
pub mod files;
mod laws;
mod runs;

pub use error::FactsError;
pub use facts::read;
pub use laws::{Broken, Epoch, Facts, Law, check};
