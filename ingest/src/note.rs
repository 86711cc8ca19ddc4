//! What a table is to remember once it holds a partition up to an offset.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::Attachment;

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) at: TopicPartition,
    /// True of the messages below.
    pub(crate) next: NextOffset,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What one table is to remember with what it lands. Of one property, and of the checkpoints of one log, the last holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// As properties.
    pub(crate) notes: Vec<Note>,
    /// As attachments.
    pub(crate) checkpoints: Vec<Attachment>,
}

impl Remembered {
    /// Adds what a later batch has to be remembered.
    pub(crate) fn append(&mut self, later: Self) {
        self.notes.extend(later.notes);
        self.checkpoints.extend(later.checkpoints);
    }

    /// The properties to write with a commit of `ranges`: only of what it moves, because another owner may have moved the rest
    /// further.
    pub(crate) fn properties(&self, ranges: &[OffsetRange]) -> BTreeMap<String, String> {
        let moved = self.notes.iter().filter(|note| is_reached(ranges, &note.at, note.next));
        moved.map(|note| (note.key.clone(), note.value.clone())).collect()
    }

    /// The attachments to write with a commit of `ranges`, chosen in the same way.
    pub(crate) fn attachments(&self, ranges: &[OffsetRange]) -> Vec<Attachment> {
        let moved = self.checkpoints.iter().filter(|draft| is_reached(ranges, &draft.at, draft.next));
        let newest: BTreeMap<&TopicPartition, &Attachment> = moved.map(|draft| (&draft.at, draft)).collect();
        newest.into_values().cloned().collect()
    }
}

/// Whether a commit of `ranges` moves a partition to this offset, or beyond it.
fn is_reached(ranges: &[OffsetRange], at: &TopicPartition, next: NextOffset) -> bool {
    ranges.iter().filter(|range| range.at == *at).any(|range| {
        // A range is empty where nothing but a gap lies before its end.
        (range.start < next.0 || range.is_empty()) && next.0 <= range.end
    })
}
