//! Whether a batch may land on a head: pure, without I/O, clock or randomness. The model checker runs these very
//! functions.

use event_schema::position::OffsetRange;

use crate::commit::reply::{Attempt, Reply, Resolved, StopReason, resolve};
use crate::table::positions::HeadFacts;

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFacts {
    /// Table and token.
    pub attempt: Attempt,
    /// At most one per partition.
    pub ranges: Vec<OffsetRange>,
    /// Offsets the log does not hold, each directly in front of a range, which may be empty.
    pub gaps: Vec<OffsetRange>,
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

/// Compares a batch with a head of its table that does not have it yet.
pub fn decide(head: &HeadFacts, batch: &BatchFacts) -> Decision {
    if batch.ranges.is_empty() {
        // A batch that is not from the log has no offsets to compare.
        return Decision::Land;
    }
    if !head.offsets_complete {
        // An offset that another program removed would read as 0, and all of its partition would land again.
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
        // A partition that has landed nothing begins at 0.
        let landed = head.offsets.get(&range.at).copied().unwrap_or_default().0;
        if landed < range.start && !explained(&batch.gaps, range, landed) {
            let at = range.at.clone();
            // Landing would move the offset over messages that were never read, and they would never be read again.
            return Decision::Stop(StopReason::Gap { at, expected: landed, start: range.start });
        }
        // An offset beyond this range means that another owner has gone on from there: this one is fenced.
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
    // Not `==`: another owner may have landed a part of the gap.
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
        // Both would be compared with the same offset, and one may hold rows of the other.
        if ranges.iter().take(i).any(|other| other.at == range.at) {
            return Some(format!("it has two ranges of {}", range.at));
        }
    }
    None
}

/// Says what to do with a batch after a reply. `head` was read after the reply.
pub fn after(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    // First: the offsets of a batch that has landed make `decide` drop it, which looks the same as being fenced.
    match resolve(reply, head, &batch.attempt) {
        Resolved::Committed => return Next::Committed,
        Resolved::Stop(reason) => return Next::Stop(reason),
        Resolved::Open => {}
    }
    match decide(head, batch) {
        Decision::Land => Next::Retry,
        Decision::Trim(keep) => Next::Trim(keep),
        Decision::Drop => Next::Drop,
        Decision::Stop(reason) => Next::Stop(reason),
    }
}

#[cfg(test)]
mod tests;
