//! What must be true of the tables of a lake: every message landed once, and the ledger closes. It is proved from the tables alone.
//!
//! [`files::check`] compares the files with their checksums: rows of a damaged file prove nothing. [`audit`] reads the tables, batch
//! by batch, into a pure proof of the laws.
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

mod columns;
mod error;
mod facts;
pub mod files;
mod history;
mod laws;
mod proof;
mod read;
mod runs;

pub use error::FactsError;
pub use facts::Epoch;
pub use laws::{Broken, Law, Unproved};
pub use proof::Verdict;
pub use read::audit;
