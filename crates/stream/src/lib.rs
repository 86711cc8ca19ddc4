//! The stream adapter: positions, sources and producers over Kafka and over the spool directory that stands in for it.
//!
//! Both logs implement one trait, [`Source`], so that everything behind it is the same code. Offsets are never stored
//! here: the owner passes them in from the table, and the [`Sequencer`] holds the log to them.
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

pub mod kafka;
pub mod log;
mod sequencer;
mod source;

pub use sequencer::{Sequencer, Verdict};
pub use source::{
    Beginning, GapError, LogIdentity, LogState, Source, SourceError, SourceEvent, SourceStats, Watermarks, fingerprint,
};
