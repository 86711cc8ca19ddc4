//! Exactly once: data files first, then one compare-and-swap of the table's current version.
//!
//! There is one protocol ([`protocol`]) and one kind of change per file of [`actions`]: `append` lands a batch of the
//! log, the others maintain a table beside its writers. An action says whether it is valid on a head and makes the next
//! version of it; the protocol looks at the head, sends, resolves a lost reply and repeats.
//!
//! The truth about offsets is in the table's properties and nowhere else. [`resolve`] says what a reply, or its
//! absence, means; [`decide`] compares the offsets of a batch with the head; [`still_live`] and [`may_expire`] are the
//! checks of the maintainer, [`thin`] chooses the snapshots that each commit takes out, [`take_back`] finds earlier
//! offsets. All are pure, and the model in the tests explores the
//! same functions with two writers and a maintainer, crashes, lost and late replies and partitions taken over.
//!
//! Laws:
//! 1. An offset lands at most once, and never behind a gap that is not explained.
//! 2. One token per change, the same on every attempt; the table keeps the last [`TOKENS_KEPT`].
//! 3. A lost reply is resolved by reading the head *and* committing again with the same token and the same files: the
//!    lost request may still be applied after the reading, and then one of the two commits must fail.
//! 4. Nothing is deleted that a version of the table may need, not even files of our own after a conflict: the conflict
//!    may have been our own commit. Deleted are metadata files that have left the log of previous ones, and attachments
//!    that were replaced.
//! 5. Offsets, gaps, versions of rows, tokens and attachments are carried on by every action. Only `append` moves offsets forward, and
//!    only `roll_back` moves them back, to those of the snapshot that it goes back to.

mod actions;
mod base;
mod change;
mod manifests;
mod outcome;
mod protocol;
mod reply;
mod retention;
mod snapshot;
mod version;

pub use actions::{
    BatchFacts, CommitRequest, Decision, DeleteFiles, Earlier, Evolve, Expire, Maintenance, Next, NotLive, PinSnapshot,
    Remake, Replace, RollBack, RowCount, SetProperties, advance, after, decide, still_live, take_back,
};
pub use outcome::{ActionOutcome, CommitError, CommitOutcome, Committed, Conflict};
pub(crate) use protocol::{Committer, Warehouse};
pub use reply::{Attempt, Reply, Resolved, StopReason, resolve};
pub use retention::{
    Aged, Grid, Held, Holder, KEEP_DAYS, KEEP_EVERY, KEEP_HOURS, KEEP_MINUTES, Made, MalformedPin, PIN_PREFIX, Pin,
    Retained, may_expire, parse_age, thin,
};
pub(crate) use retention::{pin_key, pins_of};

pub use crate::table::manifests::ManifestError;
pub use crate::table::positions::{HeadFacts, TOKENS_KEPT, parse_offsets, parse_ranges};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
