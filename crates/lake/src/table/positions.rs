//! How far a table has read the log, as its properties record it: one key per partition with the next offset, one per
//! gap, and the tokens of the last changes. Every writer keeps properties, and snapshots expire; so these are the only
//! truth about the offsets of the table. A snapshot's summary holds the ranges of its commit and the offsets of all other
//! partitions, for auditors and for a roll back.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use iceberg::spec::{Snapshot, TableMetadata};
use uuid::Uuid;

use super::Token;
use super::refined::REFINED_PREFIX;

/// How many tokens a table keeps.
pub const TOKENS_KEPT: usize = 16;

/// `causeway.offset.<topic>/<partition>` = next offset.
pub(crate) const OFFSET_PREFIX: &str = "causeway.offset.";
/// How many offset properties there must be: shows that another program removed one.
pub(crate) const OFFSET_COUNT: &str = "causeway.offset-count";
/// `causeway.gap.<topic>/<partition>:<start>-<end>`: offsets that the log no longer held when they were to be read.
pub(crate) const GAP_PREFIX: &str = "causeway.gap.";
/// `causeway.attached.<kind>.<topic>/<partition>`: where attachments are; a kind has no dot.
pub(crate) const ATTACHED_PREFIX: &str = "causeway.attached.";
pub(crate) const TOKENS: &str = "causeway.tokens";
/// Sequence number of the newest snapshot that changed rows of messages that had landed: one that made them again, or
/// rolled the table back.
pub(crate) const REWRITTEN: &str = "causeway.rewritten";
/// Keys of a snapshot's summary.
pub(crate) const SUMMARY_RANGES: &str = "causeway.ranges";
/// `<topic>/<partition>=<next offset>,…` of every partition that is in none of the ranges: with them the snapshot says
/// where the table stood, also when its neighbours have left the metadata.
pub(crate) const SUMMARY_OFFSETS: &str = "causeway.offsets";
/// The newest day whose files a replacement wrote, days since 1970-01-01.
pub(crate) const SUMMARY_REWROTE: &str = "causeway.rewrote";
pub(crate) const SUMMARY_TOKEN: &str = "causeway.token";
/// Of a snapshot that made rows again: the messages, as [`SUMMARY_RANGES`].
pub(crate) const SUMMARY_REMADE: &str = "causeway.remade";

/// What the properties of a table's head record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadFacts {
    /// Iceberg's `table-uuid`.
    pub table: Uuid,
    /// Iceberg's last sequence number: rises with every snapshot.
    pub sequence: i64,
    /// The next offset of every partition that the table has read.
    pub offsets: BTreeMap<TopicPartition, NextOffset>,
    /// The offsets are all there that the last commit of ours wrote.
    pub offsets_complete: bool,
    /// The changes committed last, oldest first.
    pub tokens: Vec<Token>,
}

impl HeadFacts {
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        let (offsets, offsets_complete) = offsets(metadata);
        let tokens = metadata.properties().get(TOKENS).map(String::as_str).unwrap_or_default();
        Self {
            table: metadata.uuid(),
            sequence: metadata.last_sequence_number(),
            offsets,
            offsets_complete,
            tokens: tokens.split(',').filter_map(Token::parse).collect(),
        }
    }
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
            // Not ignored: a partition without a readable offset would be read again from its beginning.
            _ => readable = false,
        }
    }
    let complete = match properties.get(OFFSET_COUNT) {
        Some(count) => count.parse() == Ok(offsets.len()),
        // No count: only an empty table that another program made is complete.
        None => metadata.current_snapshot().is_none() && offsets.is_empty(),
    };
    (offsets, readable && complete)
}

/// What the log no longer held when it was to be read. A key that cannot be read explains nothing: an auditor finds the
/// gap.
pub(crate) fn gaps(metadata: &TableMetadata) -> Vec<OffsetRange> {
    let keys = metadata.properties().keys();
    keys.filter_map(|key| key.strip_prefix(GAP_PREFIX)).filter_map(parse_range).collect()
}

/// The key of the property with the next offset of a partition.
pub(crate) fn offset_key(at: &TopicPartition) -> String {
    format!("{OFFSET_PREFIX}{at}")
}

/// The key of the property that names a gap.
pub(crate) fn gap_key(gap: &OffsetRange) -> String {
    format!("{GAP_PREFIX}{gap}")
}

/// Whether the protocol relies on this property: only a commit of its own kind changes it.
pub(crate) fn is_protocol_property(key: &str) -> bool {
    let prefixes = [OFFSET_PREFIX, GAP_PREFIX, ATTACHED_PREFIX, REFINED_PREFIX];
    prefixes.iter().any(|prefix| key.starts_with(prefix)) || [OFFSET_COUNT, TOKENS, REWRITTEN].contains(&key)
}

/// Whether a batch may set this property: one of Causeway by name, and none of those that the protocol relies on.
pub(crate) fn is_free_property(key: &str) -> bool {
    key.starts_with("causeway.") && !is_protocol_property(key)
}

/// The sequence number of the newest snapshot that changed rows of messages that had landed; 0 without one. One that
/// cannot be read is newer than all others, which is the safe side.
pub(crate) fn rewritten(metadata: &TableMetadata) -> i64 {
    metadata.properties().get(REWRITTEN).map_or(0, |sequence| sequence.parse().unwrap_or(i64::MAX))
}

/// The property of a version whose snapshot changes rows of messages that had landed.
pub(crate) fn rewriting(metadata: &TableMetadata) -> (String, String) {
    (REWRITTEN.to_owned(), metadata.next_sequence_number().to_string())
}

/// Ranges as a snapshot's summary holds them; [`parse_ranges`] reads them back.
pub(crate) fn format_ranges(ranges: &[OffsetRange]) -> String {
    ranges.iter().map(OffsetRange::to_string).collect::<Vec<_>>().join(",")
}

/// Reads `topic/partition:start-end,…` as the snapshot summary holds it; `None` when it is malformed.
pub fn parse_ranges(text: &str) -> Option<Vec<OffsetRange>> {
    text.split(',').map(parse_range).collect()
}

/// What a snapshot's summary says of the partitions that its commit did not move.
pub(crate) fn other_offsets(offsets: &BTreeMap<TopicPartition, NextOffset>, ranges: &[OffsetRange]) -> String {
    let others = offsets.iter().filter(|(at, _)| !ranges.iter().any(|range| range.at == **at));
    let others: Vec<_> = others.map(|(at, next)| format!("{at}={next}")).collect();
    others.join(",")
}

/// Reads `topic/partition=next,…` as the snapshot summary holds it, also of no partition; `None` when it is malformed.
pub fn parse_offsets(text: &str) -> Option<BTreeMap<TopicPartition, NextOffset>> {
    let mut offsets = BTreeMap::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (at, next) = part.rsplit_once('=')?;
        offsets.insert(parse_partition(at)?, NextOffset(next.parse().ok()?));
    }
    Some(offsets)
}

/// The offsets of a table at a snapshot, as its summary says; `None` of a snapshot that another program made.
pub(crate) fn offsets_at(snapshot: &Snapshot) -> Option<BTreeMap<TopicPartition, NextOffset>> {
    let summary = &snapshot.summary().additional_properties;
    let mut offsets = parse_offsets(summary.get(SUMMARY_OFFSETS)?)?;
    if let Some(ranges) = summary.get(SUMMARY_RANGES) {
        offsets.extend(parse_ranges(ranges)?.into_iter().map(|range| (range.at, NextOffset(range.end))));
    }
    Some(offsets)
}

fn parse_range(text: &str) -> Option<OffsetRange> {
    // From the right, so that a topic may contain the separator. The same holds below.
    let (at, offsets) = text.rsplit_once(':')?;
    let (start, end) = offsets.split_once('-')?;
    Some(OffsetRange::new(parse_partition(at)?, start.parse().ok()?, end.parse().ok()?))
}

/// Reads `topic/partition`.
pub(crate) fn parse_partition(text: &str) -> Option<TopicPartition> {
    let (topic, partition) = text.rsplit_once('/')?;
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

#[cfg(test)]
mod tests;
