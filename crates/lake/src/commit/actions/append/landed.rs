//! What a batch leaves in a table: offsets and gaps as properties, its ranges in the snapshot's summary.

use std::collections::{BTreeMap, HashMap};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

use super::BatchFacts;
use crate::table::positions::{
    HeadFacts, OFFSET_COUNT, SUMMARY_OFFSETS, SUMMARY_RANGES, format_ranges, gap_key, offset_key, other_offsets,
};

/// The offsets after these ranges landed: each partition's next offset is its range's end.
pub fn advance(
    offsets: &BTreeMap<TopicPartition, NextOffset>,
    ranges: &[OffsetRange],
) -> BTreeMap<TopicPartition, NextOffset> {
    let mut offsets = offsets.clone();
    offsets.extend(ranges.iter().map(|range| (range.at.clone(), NextOffset(range.end))));
    offsets
}

/// The properties that a landed batch changes.
pub(super) fn properties(head: &HeadFacts, batch: &BatchFacts) -> HashMap<String, String> {
    let offsets = advance(&head.offsets, &batch.ranges);
    let mut properties = HashMap::new();
    // A table that lost its offsets keeps its old count, so that the loss stays visible.
    if head.offsets_complete {
        properties.insert(OFFSET_COUNT.to_owned(), offsets.len().to_string());
    }
    // Only the partitions of this batch: the head carries on those of the others.
    properties.extend(batch.ranges.iter().map(|range| (offset_key(&range.at), range.end.to_string())));
    properties.extend(new_gaps(head, batch).into_iter().map(|gap| (gap_key(&gap), "not in the log".to_owned())));
    properties
}

/// The batch's gaps, less what another owner has landed of them.
fn new_gaps(head: &HeadFacts, batch: &BatchFacts) -> Vec<OffsetRange> {
    let mut gaps = Vec::new();
    for gap in &batch.gaps {
        let landed = head.offsets.get(&gap.at).copied().unwrap_or_default();
        // Empty if another owner has landed all of the gap.
        let rest = OffsetRange::new(gap.at.clone(), gap.start.max(landed.0), gap.end);
        if !rest.is_empty() {
            gaps.push(rest);
        }
    }
    gaps
}

/// This commit's part of the snapshot summary.
pub(super) fn summary(head: &HeadFacts, ranges: &[OffsetRange]) -> HashMap<String, String> {
    let mut summary = HashMap::new();
    if !ranges.is_empty() {
        summary.insert(SUMMARY_RANGES.to_owned(), format_ranges(ranges));
    }
    // Of a table that lost offsets nothing is said, because it would be wrong.
    if head.offsets_complete {
        summary.insert(SUMMARY_OFFSETS.to_owned(), other_offsets(&head.offsets, ranges));
    }
    summary
}

#[cfg(test)]
mod tests;
