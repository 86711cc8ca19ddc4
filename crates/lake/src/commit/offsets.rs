//! How offsets and tokens are written into a table. Properties carry the whole offset map, one key per partition, and every
//! gap in what landed, because every writer keeps properties and snapshots expire; the snapshot summary holds only this
//! commit's ranges, for auditors.

use std::collections::{BTreeMap, HashMap};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use iceberg::spec::TableMetadata;

use super::{BatchFacts, HeadFacts, Token};

/// How many tokens a table remembers.
pub const TOKENS_KEPT: usize = 16;

/// `causeway.offset.<topic>/<partition>` = next offset.
const OFFSET_PREFIX: &str = "causeway.offset.";
/// How many offset properties there must be: shows that another program removed one.
pub(crate) const OFFSET_COUNT: &str = "causeway.offset-count";
/// `causeway.gap.<topic>/<partition>:<start>-<end>`: offsets that the log no longer held when they were to be read.
const GAP_PREFIX: &str = "causeway.gap.";
const TOKENS: &str = "causeway.tokens";
const SUMMARY_RANGES: &str = "causeway.ranges";
const SUMMARY_TOKEN: &str = "causeway.token";

/// The offsets after these ranges landed: each partition's next offset is its range's end.
pub fn advance(
    offsets: &BTreeMap<TopicPartition, NextOffset>,
    ranges: &[OffsetRange],
) -> BTreeMap<TopicPartition, NextOffset> {
    let mut offsets = offsets.clone();
    offsets.extend(ranges.iter().map(|range| (range.at.clone(), NextOffset(range.end))));
    offsets
}

/// The next offset of every partition the table has seen. The flag is false when one is missing or unreadable.
pub(crate) fn offsets(metadata: &TableMetadata) -> (BTreeMap<TopicPartition, NextOffset>, bool) {
    let properties = metadata.properties();
    let mut readable = true;
    let mut offsets = BTreeMap::new();
    for (key, value) in properties {
        let Some(at) = key.strip_prefix(OFFSET_PREFIX) else { continue };
        match (parse_partition(at), value.parse()) {
            (Some(at), Ok(next)) => drop(offsets.insert(at, NextOffset(next))),
            _ => readable = false,
        }
    }
    let complete = match properties.get(OFFSET_COUNT) {
        Some(count) => count.parse() == Ok(offsets.len()),
        None => metadata.current_snapshot().is_none() && offsets.is_empty(),
    };
    (offsets, readable && complete)
}

pub(super) fn head_facts(metadata: &TableMetadata) -> HeadFacts {
    let (offsets, offsets_complete) = offsets(metadata);
    let tokens = metadata.properties().get(TOKENS).map(String::as_str).unwrap_or_default();
    HeadFacts {
        table: metadata.uuid(),
        sequence: metadata.last_sequence_number(),
        offsets,
        offsets_complete,
        tokens: tokens.split(',').filter_map(Token::parse).collect(),
    }
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
    let moved = batch.ranges.iter().map(|range| (format!("{OFFSET_PREFIX}{}", range.at), range.end.to_string()));
    properties.extend(moved);
    properties.extend(new_gaps(head, batch).map(|gap| (format!("{GAP_PREFIX}{gap}"), "not in the log".to_owned())));
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

/// What the log no longer held when it was to be read. A key that cannot be read explains nothing: an auditor finds the gap.
pub(crate) fn gaps(metadata: &TableMetadata) -> Vec<OffsetRange> {
    let keys = metadata.properties().keys();
    keys.filter_map(|key| key.strip_prefix(GAP_PREFIX)).filter_map(parse_range).collect()
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

/// Whether a caller may set this property: ours by name, but none of those the protocol rests on.
pub(super) fn is_free_property(key: &str) -> bool {
    let is_protocol = [OFFSET_PREFIX, GAP_PREFIX].iter().any(|prefix| key.starts_with(prefix));
    key.starts_with("causeway.") && !is_protocol && ![OFFSET_COUNT, TOKENS].contains(&key)
}

/// Reads `topic/partition:start-end,…` as the snapshot summary holds it; `None` when it is malformed.
pub fn parse_ranges(text: &str) -> Option<Vec<OffsetRange>> {
    text.split(',').map(parse_range).collect()
}

fn parse_range(text: &str) -> Option<OffsetRange> {
    let (at, offsets) = text.rsplit_once(':')?;
    let (start, end) = offsets.split_once('-')?;
    Some(OffsetRange::new(parse_partition(at)?, start.parse().ok()?, end.parse().ok()?))
}

fn parse_partition(text: &str) -> Option<TopicPartition> {
    let (topic, partition) = text.rsplit_once('/')?;
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

#[cfg(test)]
mod tests;
