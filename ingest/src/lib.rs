//! Ingest: messages of the log (Kafka, or the spool directory that stands in for it) become rows of every table, exactly once.
//!
//! ```text
//! reader (a thread)      log ─► decode ─► arrivals
//! run (one task)         arrivals ─► at home? not seen before? ─► hand ─► every second: batch
//! sink (one per table)   batch ─► rows ─► Parquet ─► compare-and-swap with the batch's offsets
//! ```
//!
//! The truth about offsets is in the tables and nowhere else. Every table is a sink of its own: after a crash reading resumes
//! at the lowest offset of all tables, and each table takes only what it does not hold. What was seen before ([`recover`]) is
//! rebuilt from `ops.ledger`. Start reading at [`service`].

mod checkpoint;
mod dead_letter;
mod flush;
mod former;
mod forward;
mod hand;
mod home;
mod landed;
mod mark;
pub mod memory;
mod metrics;
mod note;
mod patience;
mod reader;
mod reading;
mod recover;
mod room;
mod run;
pub mod service;
pub mod settings;
mod sink;

pub use metrics::Metrics;
pub use service::{Ingest, IngestError, OnGap, OnNewLog, Options, Summary, Until};
