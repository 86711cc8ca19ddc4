//! Makes an older snapshot current again. The offsets go back with the rows, so that what is taken out of the table is
//! read from the log again: offsets stay with the snapshot (ADR 32).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use iceberg::TableUpdate;
use iceberg::spec::{Operation, Snapshot, TableMetadata};

use super::{Action, Checked, checked};
use crate::commit::base::Base;
use crate::commit::change::Change;
use crate::commit::manifests::Builder;
use crate::commit::outcome::{CommitError, Conflict};
use crate::commit::snapshot::{self, NewSnapshot};
use crate::table::attachments;
use crate::table::history::{ROLLED_BACK_TO, current_history};
use crate::table::manifests;
use crate::table::positions::{
    HeadFacts, OFFSET_COUNT, SUMMARY_OFFSETS, SUMMARY_RANGES, SUMMARY_REMADE, gap_key, gaps, offset_key, offsets_at,
    other_offsets, parse_ranges, rewriting, rewritten,
};
use crate::table::refined;

/// Adds a snapshot with the files of an older one, and the offsets that the table had then.
///
/// It may land on every head with the current snapshot that it was planned on, in whose history the snapshot to go back
/// to is, if its summary says which offsets the table had then. Of a snapshot that another program made, the summaries of
/// all later ones must be there and say what they landed. What others have committed meanwhile would be taken out of the
/// table without having been seen.
#[derive(Debug, Clone)]
pub struct RollBack {
    /// The snapshot to go back to.
    pub to: i64,
    /// The current snapshot when the roll back was planned.
    pub from: Option<i64>,
}

/// Offsets as they were at an older snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Next offsets; partitions that had landed nothing are absent.
    pub offsets: BTreeMap<TopicPartition, NextOffset>,
    /// Gaps that were recorded later.
    pub later_gaps: Vec<OffsetRange>,
    /// Messages whose rows were made again later: which version made the earlier ones is not known.
    pub later_remade: Vec<OffsetRange>,
}

/// Takes ranges off the offsets of a head, newest first, with the gaps in front of them.
///
/// # Errors
/// The partition whose ranges do not end where the offsets stand: some commit is missing.
pub fn take_back(
    offsets: &BTreeMap<TopicPartition, NextOffset>,
    gaps: &[OffsetRange],
    newest_first: impl IntoIterator<Item = OffsetRange>,
) -> Result<Earlier, TopicPartition> {
    let mut earlier = Earlier { offsets: offsets.clone(), later_gaps: Vec::new(), later_remade: Vec::new() };
    for range in newest_first {
        if earlier.offsets.get(&range.at) != Some(&NextOffset(range.end)) {
            return Err(range.at);
        }
        // A gap landed with the range behind it, so that it is taken back with it.
        let gap = gaps.iter().find(|gap| gap.at == range.at && gap.end == range.start && !gap.is_empty());
        let landed_before = gap.map_or(range.start, |gap| gap.start);
        earlier.later_gaps.extend(gap.cloned());
        // A partition that has landed nothing has no property.
        if landed_before == 0 {
            earlier.offsets.remove(&range.at);
        } else {
            earlier.offsets.insert(range.at, NextOffset(landed_before));
        }
    }
    Ok(earlier)
}

#[async_trait]
impl Action for RollBack {
    type Refusal = Conflict;
    type Found = Earlier;

    async fn check(&self, base: &Base<'_>) -> Result<Checked<Earlier, Conflict>, CommitError> {
        let table = &base.head.metadata;
        if table.current_snapshot_id() != self.from {
            return Ok(Checked::Refused(Conflict::Moved));
        }
        Ok(checked(Self::earlier(self.to, table, base.facts)))
    }

    async fn apply(&self, base: &Base<'_>, found: Earlier) -> Result<Change, CommitError> {
        let table = &base.head.metadata;
        // `check` has found it in this head.
        let Some(target) = table.snapshot_by_id(self.to) else {
            return Err(CommitError::SnapshotGone { snapshot: self.to });
        };
        let list = manifests::load_list(base.store, target.manifest_list()).await.map_err(CommitError::Manifest)?;
        let manifests = Builder::new(base).relist(list, self.to).await?;
        let mut summary = snapshot::totals(target);
        summary.insert(ROLLED_BACK_TO.to_owned(), target.sequence_number().to_string());
        summary.insert(SUMMARY_OFFSETS.to_owned(), other_offsets(&found.offsets, &[]));
        // The target is the parent: what lies between is no part of the table's history any more. Java's expiry would
        // delete live files if the former head were the parent (ADR 32).
        let new = NewSnapshot { operation: Operation::Overwrite, parent: Some(self.to), manifests, summary };
        let mut change = snapshot::add(base, new);
        change.updates.extend(offset_updates(base.facts, &found));
        change.updates.push(TableUpdate::SetProperties { updates: row_updates(table, &found) });
        change.relist(attachments::take_back(table, &found.offsets));
        Ok(change)
    }
}

impl RollBack {
    /// The offsets that the table had at a snapshot, if they can be known.
    pub(crate) fn earlier(to: i64, table: &TableMetadata, facts: &HeadFacts) -> Result<Earlier, Conflict> {
        let history = current_history(table);
        let Some(target) = history.iter().find(|snapshot| snapshot.snapshot_id() == to) else {
            return Err(Conflict::NotInHistory { snapshot: to });
        };
        if !facts.offsets_complete {
            return Err(Conflict::OffsetsUnknown { problem: "not all of its offset properties are there".to_owned() });
        }
        if let Some(offsets) = offsets_at(target) {
            let later_remade = remade_after(table, target, facts)?;
            return Ok(Earlier { later_remade, ..went_on(&facts.offsets, &gaps(table), offsets)? });
        }
        // Another program made it: its offsets are those of the head without what landed later. A later snapshot that has
        // left the metadata may have landed offsets, and its ranges are gone with it.
        if let Some(sequence) = first_missing(table, target.sequence_number()) {
            let problem = format!("its snapshot with sequence number {sequence} has left the metadata");
            return Err(Conflict::OffsetsUnknown { problem });
        }
        // No later snapshot is missing, so that the parents lead to it unless it is of another branch.
        if !is_ancestor(table, to) {
            return Err(Conflict::NotInHistory { snapshot: to });
        }
        let mut ranges = Vec::new();
        // Newest first, as `take_back` requires. The history ascends by sequence number.
        let later = history.iter().rev().take_while(|snapshot| snapshot.sequence_number() > target.sequence_number());
        for snapshot in later {
            ranges.extend(ranges_of(snapshot, SUMMARY_RANGES)?);
        }
        let earlier = take_back(&facts.offsets, &gaps(table), ranges);
        let earlier = earlier.map_err(|at| Conflict::OffsetsUnknown {
            problem: format!("the ranges of its snapshots do not lead to its offset of {at}"),
        })?;
        Ok(Earlier { later_remade: remade_after(table, target, facts)?, ..earlier })
    }
}

/// The messages whose rows were made again after a snapshot; all, where that is not known.
fn remade_after(table: &TableMetadata, target: &Snapshot, facts: &HeadFacts) -> Result<Vec<OffsetRange>, Conflict> {
    if rewritten(table) <= target.sequence_number() {
        return Ok(Vec::new());
    }
    // The summary of a snapshot that has left the metadata is gone with it.
    if first_missing(table, target.sequence_number()).is_some() {
        return Ok(facts.offsets.iter().map(|(at, next)| OffsetRange::new(at.clone(), 0, next.0)).collect());
    }
    let mut remade = Vec::new();
    for snapshot in table.snapshots().filter(|snapshot| snapshot.sequence_number() > target.sequence_number()) {
        remade.extend(ranges_of(snapshot, SUMMARY_REMADE)?);
    }
    Ok(remade)
}

/// The offsets that a snapshot says it had, if the table has gone on from there.
fn went_on(
    head: &BTreeMap<TopicPartition, NextOffset>,
    gaps: &[OffsetRange],
    offsets: BTreeMap<TopicPartition, NextOffset>,
) -> Result<Earlier, Conflict> {
    if let Some((at, next)) = offsets.iter().find(|(at, next)| head.get(*at).is_none_or(|now| now < *next)) {
        let problem = format!("the snapshot had {at} up to {next}, which is more than the table has now");
        return Err(Conflict::OffsetsUnknown { problem });
    }
    // A gap lands with the range behind it: one that begins at or behind the offset was recorded later.
    let later = gaps.iter().filter(|gap| gap.start >= offsets.get(&gap.at).copied().unwrap_or_default().0);
    Ok(Earlier { later_gaps: later.cloned().collect(), offsets, later_remade: Vec::new() })
}

/// Whether the current snapshot came from this one, or is it.
fn is_ancestor(table: &TableMetadata, snapshot: i64) -> bool {
    let mut next = table.current_snapshot();
    // Bounded: parents that another program wrote may form a circle.
    for _ in 0..=table.snapshots().len() {
        let Some(current) = next else { return false };
        if current.snapshot_id() == snapshot {
            return true;
        }
        next = current.parent_snapshot_id().and_then(|parent| table.snapshot_by_id(parent));
    }
    false
}

/// The lowest sequence number above `after` of which there is no snapshot any more.
fn first_missing(table: &TableMetadata, after: i64) -> Option<i64> {
    let known: BTreeSet<i64> = table.snapshots().map(|snapshot| snapshot.sequence_number()).collect();
    (after + 1..=table.last_sequence_number()).find(|sequence| !known.contains(sequence))
}

/// The ranges under a key of a snapshot's summary; none without the key.
fn ranges_of(snapshot: &Snapshot, key: &str) -> Result<Vec<OffsetRange>, Conflict> {
    let Some(text) = snapshot.summary().additional_properties.get(key).filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    parse_ranges(text).ok_or_else(|| Conflict::OffsetsUnknown {
        problem: format!("the ranges of snapshot {} cannot be read: {text}", snapshot.snapshot_id()),
    })
}

/// The properties about the rows: which version made them, and that they are others than before.
fn row_updates(table: &TableMetadata, earlier: &Earlier) -> HashMap<String, String> {
    let logs: BTreeSet<_> = earlier.later_remade.iter().map(|range| &range.at).collect();
    let forgotten = logs.into_iter().filter_map(|at| {
        refined::changed(table, at, |versions| {
            let remade = earlier.later_remade.iter().filter(|range| range.at == *at);
            remade.for_each(|range| versions.forget(range.start, range.end));
        })
    });
    forgotten.chain([rewriting(table)]).collect()
}

/// The properties of the head, brought to earlier offsets.
fn offset_updates(head: &HeadFacts, earlier: &Earlier) -> Vec<TableUpdate> {
    let absent = head.offsets.keys().filter(|at| !earlier.offsets.contains_key(*at));
    let removals: Vec<String> = absent.map(offset_key).chain(earlier.later_gaps.iter().map(gap_key)).collect();
    let kept = earlier.offsets.iter().map(|(at, next)| (offset_key(at), next.to_string()));
    // With the count: the offsets would otherwise be taken for incomplete.
    let count = (OFFSET_COUNT.to_owned(), earlier.offsets.len().to_string());
    let mut updates = vec![TableUpdate::SetProperties { updates: kept.chain([count]).collect() }];
    if !removals.is_empty() {
        updates.push(TableUpdate::RemoveProperties { removals });
    }
    updates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(TopicPartition::new("t", partition), start, end)
    }

    fn offsets(ends: &[(i32, i64)]) -> BTreeMap<TopicPartition, NextOffset> {
        ends.iter().map(|(p, end)| (TopicPartition::new("t", *p), NextOffset(*end))).collect()
    }

    #[test]
    fn ranges_are_taken_back_to_where_the_first_of_them_began() {
        let later = [range(0, 20, 30), range(1, 0, 5), range(0, 10, 20)];
        let earlier = take_back(&offsets(&[(0, 30), (1, 5), (2, 7)]), &[], later).unwrap();
        assert_eq!(earlier, Earlier { offsets: offsets(&[(0, 10), (2, 7)]), later_gaps: vec![], later_remade: vec![] });
    }

    #[test]
    fn a_gap_in_front_of_a_range_is_taken_back_with_it() {
        let gaps = [range(0, 10, 15), range(0, 0, 2), range(1, 10, 15)];
        let closed = [range(0, 15, 15)];
        for later in [&[range(0, 15, 30)][..], &closed] {
            let end = later[0].end;
            let earlier = take_back(&offsets(&[(0, end)]), &gaps, later.to_vec()).unwrap();
            let expected =
                Earlier { offsets: offsets(&[(0, 10)]), later_gaps: vec![range(0, 10, 15)], later_remade: vec![] };
            assert_eq!(earlier, expected);
        }
    }

    #[test]
    fn a_snapshot_that_says_its_offsets_needs_no_later_one() {
        let gaps = [range(0, 10, 15), range(0, 0, 2), range(2, 0, 3)];
        let earlier = went_on(&offsets(&[(0, 30), (1, 5), (2, 9)]), &gaps, offsets(&[(0, 10), (1, 5)])).unwrap();
        let later_gaps = vec![range(0, 10, 15), range(2, 0, 3)];
        assert_eq!(earlier, Earlier { offsets: offsets(&[(0, 10), (1, 5)]), later_gaps, later_remade: vec![] });
        for more in [&[(0, 31)][..], &[(3, 1)]] {
            let ahead = went_on(&offsets(&[(0, 30)]), &[], offsets(more));
            assert!(matches!(ahead, Err(Conflict::OffsetsUnknown { .. })), "{ahead:?}");
        }
    }

    #[test]
    fn ranges_that_do_not_lead_to_the_offsets_are_refused() {
        for later in [vec![range(0, 10, 20)], vec![range(0, 20, 30), range(0, 10, 19)], vec![range(1, 0, 1)]] {
            assert!(take_back(&offsets(&[(0, 30)]), &[], later).is_err());
        }
    }
}
