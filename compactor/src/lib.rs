//! The compactor: keeps the files of every table few, large and sorted, beside ingest.
//!
//! ```text
//! round     every table: survey ─► tasks with their gain, the most gainful first
//! worker    task ─► lease ─► rewrite and check (crate `maintenance`) ─► commit beside the appends of ingest
//! ```
//!
//! It runs on threads of low priority, takes no lock that ingest needs, and has no state of its own: what it does
//! follows from the tables. Any number of compactors share the work by leases (ADR 46). Start reading at [`service`].
#![forbid(unsafe_code)]
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

mod error;
mod metrics;
mod options;
mod pace;
pub mod service;
pub mod settings;
mod worker;

pub use error::CompactorError;
pub use metrics::Metrics;
pub use options::Options;
pub use service::{Compactor, Done, MaintainError, Parts, maintain};
