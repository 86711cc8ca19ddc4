//! What a batch leaves in a table: offsets, gaps and its token as properties, its ranges in the snapshot's summary.

use std::collections::{BTreeMap, HashMap};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

use super::BatchFacts;
use crate::table::Token;
use crate::table::positions::{
    HeadFacts, OFFSET_COUNT, SUMMARY_RANGES, SUMMARY_TOKEN, TOKENS, TOKENS_KEPT, gap_key, offset_key,
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

/// The properties a landed batch leaves in the table.
pub(super) fn landed_properties(head: &HeadFacts, batch: &BatchFacts) -> HashMap<String, String> {
    let offsets = advance(&head.offsets, &batch.ranges);
    let skip = (head.tokens.len() + 1).saturating_sub(TOKENS_KEPT);
    let tokens: Vec<_> = head.tokens.iter().skip(skip).chain([&batch.token]).map(Token::to_string).collect();
    let mut properties = HashMap::from([(TOKENS.to_owned(), tokens.join(","))]);
    // A table that lost its offsets keeps its old count, so that the loss stays visible.
    if head.offsets_complete {
        properties.insert(OFFSET_COUNT.to_owned(), offsets.len().to_string());
    }
    let moved = batch.ranges.iter().map(|range| (offset_key(&range.at), range.end.to_string()));
    properties.extend(moved);
    properties.extend(new_gaps(head, batch).map(|gap| (gap_key(&gap), "not in the log".to_owned())));
    properties
}

/// The batch's gaps, less what another owner has landed of them.
fn new_gaps(head: &HeadFacts, batch: &BatchFacts) -> impl Iterator<Item = OffsetRange> {
    let rest = |gap: &OffsetRange| {
        let landed = head.offsets.get(&gap.at).copied().unwrap_or_default();
        OffsetRange::new(gap.at.clone(), gap.start.max(landed.0), gap.end)
    };
    batch.gaps.iter().map(rest).filter(|gap| !gap.is_empty())
}

/// This commit's part of the snapshot summary.
pub(super) fn landed_summary(batch: &BatchFacts) -> HashMap<String, String> {
    let mut summary = HashMap::from([(SUMMARY_TOKEN.to_owned(), batch.token.to_string())]);
    if !batch.ranges.is_empty() {
        let ranges: Vec<_> = batch.ranges.iter().map(OffsetRange::to_string).collect();
        summary.insert(SUMMARY_RANGES.to_owned(), ranges.join(","));
    }
    summary
}

#[cfg(test)]
mod tests;
