//! Ingest: messages of the log (Kafka, or the spool directory that stands in for it) become rows of every table,
//! exactly once.
//!
//! ```text
//! reader (a thread)       log ─► decode ─► arrivals
//! run (one task)          arrivals ─► at home? not seen before? ─► every second: batch ─► a share for each table
//! table task (a thread)   shares ─► by the table's policy: rows ─► Parquet ─► compare-and-swap with the offsets of the shares
//! ```
//!
//! Offsets are stored in the tables and nowhere else. Every table is a sink of its own: after a crash reading resumes
//! at the lowest offset of all tables, and each table takes only what it does not hold. What was seen before
//! ([`recover`]) is rebuilt from `ops.ledger`. Start reading at [`service`].
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

mod batch;
mod checkpoint;
mod complete;
mod dead_letter;
mod dispatch;
mod error;
mod former;
mod forward;
mod home;
mod landed;
mod mark;
pub mod memory;
mod metrics;
mod note;
mod options;
mod ownership;
mod reader;
mod recover;
pub mod repair;
mod retry;
mod room;
mod run;
pub mod service;
pub mod settings;
mod share;
mod sink;
mod standing;
mod table_task;

pub use error::IngestError;
pub use mark::{Mark, newest_log};
pub use metrics::Metrics;
pub use options::{OnGap, OnNewLog, Options, Until};
pub use run::Summary;
pub use service::{Ingest, Parts};
