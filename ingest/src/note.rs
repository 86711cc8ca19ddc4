//! What a table is to record once it holds a partition up to an offset.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::Attachment;

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) at: TopicPartition,
    /// It is true of the messages below this offset.
    pub(crate) next: NextOffset,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What one table is to record with what it lands. Of one property, and of the checkpoints of one log, the last one
/// holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// As properties.
    pub(crate) notes: Vec<Note>,
    /// As attachments.
    pub(crate) checkpoints: Vec<Attachment>,
}

impl Remembered {
    /// Adds what a later batch has to record.
    pub(crate) fn append(&mut self, later: Self) {
        self.notes.extend(later.notes);
        self.checkpoints.extend(later.checkpoints);
    }

    /// The properties to write with a commit of `ranges`: only of what it moves, because another owner may have moved
    /// the rest further.
    pub(crate) fn properties(&self, ranges: &[OffsetRange]) -> BTreeMap<String, String> {
        let moved = self.notes.iter().filter(|note| is_reached(ranges, &note.at, note.next));
        // Likewise the last note of a property holds.
        moved.map(|note| (note.key.clone(), note.value.clone())).collect()
    }

    /// The attachments to write with a commit of `ranges`, chosen in the same way.
    pub(crate) fn attachments(&self, ranges: &[OffsetRange]) -> Vec<Attachment> {
        let moved = self.checkpoints.iter().filter(|draft| is_reached(ranges, &draft.at, draft.next));
        // In log order, and a later entry replaces an earlier one: the newest of each log stays.
        let newest: BTreeMap<&TopicPartition, &Attachment> = moved.map(|draft| (&draft.at, draft)).collect();
        newest.into_values().cloned().collect()
    }
}

/// Whether a commit of `ranges` moves a partition to this offset, or beyond it.
fn is_reached(ranges: &[OffsetRange], at: &TopicPartition, next: NextOffset) -> bool {
    ranges.iter().filter(|range| range.at == *at).any(|range| {
        // A range is empty where nothing but a gap lies before its end. Otherwise a note at the start of the range is
        // of a former commit.
        (range.start < next.0 || range.is_empty()) && next.0 <= range.end
    })
}
