//! Names of the Kafka topics, and of the directories of the spool, that Causeway writes and reads.

/// Batches of the data stream. Its load grows with the fleet.
pub const EVENTS: &str = "causeway.events.v1";
/// Batches of every other stream.
pub const CRITICAL: &str = "causeway.critical.v1";
/// Messages that did not decode.
pub const DEAD_LETTERS: &str = "causeway.dlq.v1";

/// The topics that ingest reads.
pub const READ: [&str; 2] = [EVENTS, CRITICAL];
