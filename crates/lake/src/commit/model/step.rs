//! What may happen in the model, and what a step turned out to be.

use event_schema::position::OffsetRange;

use crate::commit::{BatchFacts, Next, Reply, StopReason};
use crate::table::positions::HeadFacts;

/// What a step was, for the `sometimes` laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Arm {
    Land,
    Trim,
    Drop,
    Fenced,
    Stop,
    RetryLost,
    UnknownFound,
    UnknownRetried,
    LateApply,
    Replaced,
    Expired,
    UpkeepRaced,
    UpkeepFound,
    UpkeepRefused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Takes up to so many messages of each owned partition and decides.
    Fetch(u8, u8),
    /// Reads the head after a reply and decides again.
    Decide(u8),
    /// The request reaches the catalog and the reply the writer.
    Apply(u8),
    /// The request reaches the catalog; the reply is lost.
    ApplyUnheard(u8),
    /// The request never reaches the catalog.
    Vanish(u8),
    /// The writer stops waiting; the request is still on its way.
    Timeout(u8),
    Crash(u8),
    Restart(u8),
    /// The writer is assigned a partition; its former owner goes on.
    Steal(u8, u8),
    Compact,
    Replace,
    Restore,
    /// The maintainer reads the live files and rewrites them.
    PlanReplace,
    /// The maintainer chooses a snapshot to take out.
    PlanExpire(u8),
    /// The maintainer reads the head, checks its change and sends it.
    Maintain,
    /// A reader pins a snapshot.
    Pin(u8),
}

/// What the decision was that a writer took.
pub(super) fn arm(next: &Next, reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Arm {
    match (next, reply) {
        (Next::Committed, _) => Arm::UnknownFound,
        (Next::Retry, Reply::Unknown) => Arm::UnknownRetried,
        (Next::Retry, Reply::Lost) => Arm::RetryLost,
        (Next::Retry, _) => Arm::Land,
        (Next::Trim(_), _) => Arm::Trim,
        (Next::Drop, _) if batch.ranges.iter().all(|range| is_beyond(head, range)) => Arm::Fenced,
        (Next::Drop, _) => Arm::Drop,
        (Next::Stop(StopReason::Request(_)), _) => unreachable!("the model makes well-formed batches"),
        (Next::Stop(_), _) => Arm::Stop,
    }
}

/// The table has landed more of the partition than the range holds.
fn is_beyond(head: &HeadFacts, range: &OffsetRange) -> bool {
    head.offsets.get(&range.at).is_some_and(|landed| landed.0 > range.end)
}
