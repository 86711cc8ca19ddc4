//! Exactly once: data files first, then one compare-and-swap of the table's metadata pointer.
//!
//! The truth about offsets is in the table's properties and nowhere else. [`decide`] compares the offsets of the
//! partitions in hand with the head; [`after`] says what a reply, or its absence, means. Both are pure, and the model in
//! their tests explores the same functions with two writers, crashes, lost and late replies and stolen partitions.
//!
//! Laws:
//! 1. An offset lands at most once, and never behind a gap that nobody explained.
//! 2. One token per batch, the same on every attempt; the table remembers the last [`TOKENS_KEPT`].
//! 3. A lost reply is resolved by reading the head *and* swapping again with the same token and the same files: the lost
//!    request may still be applied after the reading, and then one of the two swaps must fail.
//! 4. Nothing is deleted that a version of the table may need, not even files of our own after a conflict: the conflict may have
//!    been our own success. Only metadata files that a landed version has dropped from its log of previous ones are.

mod committer;
mod decide;
mod manifests;
mod offsets;
mod outcome;
mod version;

pub(crate) use committer::Committer;
pub use decide::{BatchFacts, Decision, Next, Reply, StopReason, after, decide};
pub use offsets::advance;
pub use outcome::{CommitError, CommitOutcome, CommitRequest, Committed};

pub use crate::table::manifests::ManifestError;
pub use crate::table::positions::{HeadFacts, TOKENS_KEPT, parse_ranges};

#[cfg(test)]
mod tests;
