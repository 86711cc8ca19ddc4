//! Properties that a table is to have once it holds a partition up to an offset.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) at: TopicPartition,
    /// True of the messages below.
    pub(crate) next: NextOffset,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// The properties to write with a commit of `ranges`: only of what it moves, because another owner may have moved the rest
/// further.
pub(crate) fn properties(notes: &[Note], ranges: &[OffsetRange]) -> BTreeMap<String, String> {
    let is_moved = |note: &&Note| ranges.iter().any(|range| range.at == note.at && range.end == note.next.0);
    notes.iter().filter(is_moved).map(|note| (note.key.clone(), note.value.clone())).collect()
}
