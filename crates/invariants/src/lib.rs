//! What must be true of the tables of a lake: every message landed once, and the ledger closes. It is proved from the tables alone.
//!
//! [`files::check`] compares the files with their checksums: rows of a damaged file prove nothing. [`audit`] reads the tables, batch
//! by batch, into a pure proof of the laws.

mod columns;
mod error;
mod facts;
pub mod files;
mod laws;
mod proof;
mod read;
mod runs;

pub use error::FactsError;
pub use facts::Epoch;
pub use laws::{Broken, Law};
pub use proof::Verdict;
pub use read::audit;
