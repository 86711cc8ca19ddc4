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

/// What one table is to remember with a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// As properties.
    pub(crate) notes: Vec<Note>,
    /// As attachments.
    pub(crate) checkpoints: Vec<Attachment>,
}

impl Remembered {
    /// The properties to write with a commit of `ranges`: only of what it moves, because another owner may have moved the rest
    /// further.
    pub(crate) fn properties(&self, ranges: &[OffsetRange]) -> BTreeMap<String, String> {
        let moved = self.notes.iter().filter(|note| is_reached(ranges, &note.at, note.next));
        moved.map(|note| (note.key.clone(), note.value.clone())).collect()
    }

    /// The attachments to write with a commit of `ranges`, chosen in the same way.
    pub(crate) fn attachments(&self, ranges: &[OffsetRange]) -> Vec<Attachment> {
        let moved = self.checkpoints.iter().filter(|draft| is_reached(ranges, &draft.at, draft.next));
        moved.cloned().collect()
    }
}

/// Whether a commit of `ranges` moves a partition to this offset.
fn is_reached(ranges: &[OffsetRange], at: &TopicPartition, next: NextOffset) -> bool {
    ranges.iter().any(|range| range.at == *at && range.end == next.0)
}
