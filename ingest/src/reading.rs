//! What is known of a partition that is being read.

use std::collections::BTreeMap;
use std::time::Instant;

use event_schema::position::{NextOffset, TopicPartition};

use crate::mark::Mark;
use crate::note::Note;

/// A partition of ours.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The next message expected of the reader.
    pub(crate) next: NextOffset,
    /// Where the last message read ends, and its fingerprint.
    pub(crate) last: Option<(NextOffset, u32)>,
    /// Absent until the reader has begun.
    pub(crate) log: Option<OpenLog>,
    /// `bronze.messages` remembers which log this is.
    pub(crate) is_marked: bool,
}

#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) identity: String,
    /// Where reading is caught up.
    pub(crate) high: NextOffset,
    /// When reading began.
    pub(crate) since: Instant,
}

impl Reading {
    /// A partition that the reader has not begun to read.
    pub(crate) fn new(next: NextOffset, is_marked: bool) -> Self {
        Self { next, last: None, log: None, is_marked }
    }

    /// What `bronze.messages` is to remember of the log.
    pub(crate) fn mark(&self, at: &TopicPartition) -> Option<Note> {
        let identity = self.log.as_ref()?.identity.clone();
        let (next, fingerprint) = self.last.map_or((self.next, None), |(next, print)| (next, Some(print)));
        Some(Mark { next, fingerprint, identity }.note(at, self.next))
    }
}

/// Whether the first offsets of some log are about to land: messages, offsets without one, or a gap. From then on its log counts
/// as remembered.
pub(crate) fn begins(partitions: &mut BTreeMap<TopicPartition, Reading>) -> bool {
    let mut begins = false;
    for reading in partitions.values_mut().filter(|reading| reading.log.is_some() && reading.next > NextOffset(0)) {
        begins |= !std::mem::replace(&mut reading.is_marked, true);
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(next: i64, is_open: bool, is_marked: bool) -> Reading {
        let open = || OpenLog { identity: "log".to_owned(), high: NextOffset(9), since: Instant::now() };
        Reading { log: is_open.then(open), ..Reading::new(NextOffset(next), is_marked) }
    }

    #[test]
    fn a_log_begins_with_the_first_offsets_that_land_of_it_and_only_once() {
        for (reading, expected) in [
            (reading(0, true, false), false),
            (reading(3, false, false), false),
            (reading(3, true, true), false),
            // No message of it is needed: they may be offsets without one.
            (reading(3, true, false), true),
        ] {
            let mut partitions = BTreeMap::from([(TopicPartition::new("t", 0), reading)]);
            assert_eq!(begins(&mut partitions), expected, "{partitions:?}");
            assert!(!begins(&mut partitions), "{partitions:?}");
        }
    }
}
