//! The log that the model's writers read.

/// Partitions of the log.
pub(super) const PARTITIONS: usize = 2;
/// Where the log of each partition begins: what is below was removed by retention before it was read.
pub(super) const LOG_BEGINS: [u8; PARTITIONS] = [0, 1];
/// Where they end; all messages are in the log from the start.
pub(super) const LOG_ENDS: [u8; PARTITIONS] = [3, 2];
/// The highest of the ends.
pub(super) const LOG_END: usize = 3;
