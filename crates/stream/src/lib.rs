//! The stream adapter: positions, sources and producers over Kafka and over the spool directory that stands in for it.
//!
//! Both logs implement one trait, [`Source`], so that everything behind it is the same code. Offsets are never stored
//! here: the owner passes them in from the table, and the [`Sequencer`] holds the log to them.

pub mod kafka;
pub mod log;
mod sequencer;
mod source;

pub use sequencer::{Sequencer, Verdict};
pub use source::{
    GapError, LogIdentity, LogState, Source, SourceError, SourceEvent, SourceStats, Watermarks, fingerprint,
};
