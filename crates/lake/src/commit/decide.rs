//! The commit protocol as two pure functions. No I/O, clock or randomness: the model checker runs these very functions.

use event_schema::position::{OffsetRange, TopicPartition};
use uuid::Uuid;

use crate::table::Token;
use crate::table::positions::HeadFacts;

/// What the batch in hand holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFacts {
    /// The table the batch was made for.
    pub table: Uuid,
    /// The highest sequence number this writer has seen.
    pub seen_sequence: i64,
    pub ranges: Vec<OffsetRange>,
    /// Offsets the log does not hold, each directly in front of a range, which may be empty.
    pub gaps: Vec<OffsetRange>,
    pub token: Token,
}

/// What to do with a batch, given the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Land,
    /// Only these ranges are not in the table yet.
    Trim(Vec<OffsetRange>),
    Drop,
    Stop(StopReason),
}

/// Why a writer must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    #[error("the table was replaced: expected uuid {expected}, found {found}; restart to write to the new table")]
    TableReplaced { expected: Uuid, found: Uuid },
    #[error("the table is gone from the catalog; restart to make it again")]
    TableDropped,
    #[error(
        "the table went back from sequence number {seen} to {found}: restored from a backup or a stale replica; restart to land again what it lost"
    )]
    WentBack { seen: i64, found: i64 },
    #[error(
        "the table has rows but not all of its causeway.offset properties: another program removed them; restore them before going on"
    )]
    OffsetsMissing,
    #[error("the batch starts at {at}:{start} but the table expects offset {expected}: {missing} offsets would be lost", missing = start - expected)]
    Gap { at: TopicPartition, expected: i64, start: i64 },
    #[error("the table was altered under its writer: {0}; restart to check it again")]
    Altered(String),
    #[error("the request is not a batch: {0}")]
    Request(String),
}

/// What came back from a compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    Applied,
    /// The pointer had moved: one row was to change and none did.
    Lost,
    /// The request never left.
    NotSent,
    /// The request left; nothing is known.
    Unknown,
}

/// What to do after a reply, given the head read after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Committed,
    /// Swap again on the head just read: same token, same files.
    Retry,
    Trim(Vec<OffsetRange>),
    Drop,
    Stop(StopReason),
}

/// Compares a batch with the head it would land on.
pub fn decide(head: &HeadFacts, batch: &BatchFacts) -> Decision {
    if head.table != batch.table {
        return Decision::Stop(StopReason::TableReplaced { expected: batch.table, found: head.table });
    }
    if head.sequence < batch.seen_sequence {
        return Decision::Stop(StopReason::WentBack { seen: batch.seen_sequence, found: head.sequence });
    }
    if head.tokens.contains(&batch.token) {
        return Decision::Drop;
    }
    if batch.ranges.is_empty() {
        return Decision::Land;
    }
    if !head.offsets_complete {
        return Decision::Stop(StopReason::OffsetsMissing);
    }
    if let Some(problem) = malformed(&batch.ranges, &batch.gaps) {
        return Decision::Stop(StopReason::Request(problem));
    }
    compare_offsets(head, batch)
}

fn compare_offsets(head: &HeadFacts, batch: &BatchFacts) -> Decision {
    let mut keep = Vec::with_capacity(batch.ranges.len());
    for range in &batch.ranges {
        let landed = head.offsets.get(&range.at).copied().unwrap_or_default().0;
        if landed < range.start && !explained(&batch.gaps, range, landed) {
            let at = range.at.clone();
            return Decision::Stop(StopReason::Gap { at, expected: landed, start: range.start });
        }
        // Further than our end means that another owner went on from there: we are fenced.
        if landed < range.end {
            keep.push(OffsetRange::new(range.at.clone(), range.start.max(landed), range.end));
        }
    }
    match keep {
        keep if keep == batch.ranges => Decision::Land,
        keep if keep.is_empty() => Decision::Drop,
        keep => Decision::Trim(keep),
    }
}

/// The offsets from `landed` to the range's start are accounted for.
fn explained(gaps: &[OffsetRange], range: &OffsetRange, landed: i64) -> bool {
    gaps.iter().any(|gap| gap.at == range.at && gap.start <= landed && gap.end == range.start)
}

/// An empty range is well formed behind a gap: it moves the offset to where the gap ends.
fn malformed(ranges: &[OffsetRange], gaps: &[OffsetRange]) -> Option<String> {
    for (i, range) in ranges.iter().enumerate() {
        let closes_a_gap =
            range.start == range.end && gaps.iter().any(|gap| gap.at == range.at && gap.end == range.end);
        if range.start < 0 || (range.is_empty() && !closes_a_gap) {
            return Some(format!("the range {range} is empty or negative"));
        }
        if ranges.iter().take(i).any(|other| other.at == range.at) {
            return Some(format!("it has two ranges of {}", range.at));
        }
    }
    None
}

/// Says what a reply means. `head` was read after the reply (for [`Reply::Applied`] it does not matter).
///
/// The token only says whose commit it was; that nothing lands twice rests on the offsets and on the swap.
pub fn after(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    let ours = reply == Reply::Applied || (head.table == batch.table && head.tokens.contains(&batch.token));
    if ours {
        return Next::Committed;
    }
    match decide(head, batch) {
        Decision::Land => Next::Retry,
        Decision::Trim(keep) => Next::Trim(keep),
        Decision::Drop => Next::Drop,
        Decision::Stop(reason) => Next::Stop(reason),
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
