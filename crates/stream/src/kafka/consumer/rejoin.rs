//! Checks whether a partition that is fetched again is still the log that was read before.
//!
//! A fetch that begins at an offset gives no information about what lies below it: a log that was truncated meanwhile,
//! and has grown past the offset since, would be read on as if it were the same. So a partition is fetched again from
//! the last message that was taken, and that message is compared and dropped.

use std::collections::BTreeMap;

use event_schema::position::{Message, NextOffset, TopicPartition};

use crate::source::fingerprint;

/// A partition is fetched from its next offset instead where so many offsets without a message follow the last one
/// taken: they would be fetched once more.
const HOLE_MAX: i64 = 1_000;

/// The last message taken of each partition.
#[derive(Debug, Default)]
pub(super) struct Rejoin(BTreeMap<TopicPartition, Last>);

#[derive(Debug)]
struct Last {
    offset: i64,
    fingerprint: u32,
    /// The partition is fetched again, and the message was not met yet.
    is_awaited: bool,
}

impl Rejoin {
    /// Notes a message that was taken.
    pub(super) fn note(&mut self, message: &Message) {
        let last = Last { offset: message.offset, fingerprint: fingerprint(message), is_awaited: false };
        match self.0.get_mut(&message.at) {
            // The name is copied for the first message of a partition only.
            Some(before) => *before = last,
            None => drop(self.0.insert(message.at.clone(), last)),
        }
    }

    /// Where a partition is fetched from that goes on at `next`.
    pub(super) fn begin(&mut self, at: &TopicPartition, next: NextOffset) -> NextOffset {
        // A position at or below the last message is a start at another place: there is nothing to compare then.
        let last = self.0.get_mut(at).filter(|last| (1..=HOLE_MAX).contains(&(next.0 - last.offset)));
        let Some(last) = last else { return next };
        last.is_awaited = true;
        NextOffset(last.offset)
    }

    /// Whether the message at this offset is compared ([`Self::is_same`]). A later one shows that the awaited one is
    /// gone.
    pub(super) fn awaits(&mut self, at: &TopicPartition, offset: i64) -> bool {
        let Some(last) = self.0.get_mut(at).filter(|last| last.is_awaited) else { return false };
        // Compared once, or never where a later message shows that compaction or retention has removed it.
        last.is_awaited = offset < last.offset;
        offset == last.offset
    }

    /// Whether a message is the one that was taken at its offset.
    pub(super) fn is_same(&self, message: &Message) -> bool {
        self.0.get(&message.at).is_none_or(|last| last.fingerprint == fingerprint(message))
    }

    /// Discards the messages that are still awaited; returns their partitions.
    pub(super) fn give_up(&mut self) -> Vec<TopicPartition> {
        self.0.extract_if(.., |_, last| last.is_awaited).map(|(at, _)| at).collect()
    }

    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.0.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("events", partition)
    }

    fn message(offset: i64, payload: &'static [u8]) -> Message {
        let (key, payload, headers) = (None, Bytes::from_static(payload), Vec::new());
        Message { at: at(0), offset, timestamp_ms: 0, key, payload, headers }
    }

    #[test]
    fn a_partition_is_fetched_again_from_the_last_message_that_was_taken_of_it() {
        let mut rejoin = Rejoin::default();
        assert_eq!(rejoin.begin(&at(0), NextOffset(5)), NextOffset(5), "none was taken");
        rejoin.note(&message(3, b"a"));
        rejoin.note(&message(4, b"b"));
        for (next, from) in [(5, 4), (6, 4), (4 + HOLE_MAX, 4), (5 + HOLE_MAX, 5 + HOLE_MAX), (4, 4), (1, 1)] {
            assert_eq!(rejoin.begin(&at(0), NextOffset(next)), NextOffset(from), "{next}");
        }
        assert_eq!(rejoin.begin(&at(1), NextOffset(5)), NextOffset(5));
    }

    #[test]
    fn the_message_is_compared_once_and_not_where_it_is_gone() {
        let mut rejoin = Rejoin::default();
        rejoin.note(&message(4, b"a"));
        assert!(!rejoin.awaits(&at(0), 4), "it is not fetched again");
        rejoin.begin(&at(0), NextOffset(5));
        assert!(rejoin.awaits(&at(0), 4) && !rejoin.awaits(&at(0), 4));
        assert!(rejoin.is_same(&message(4, b"a")) && !rejoin.is_same(&message(4, b"b")));
        rejoin.begin(&at(0), NextOffset(5));
        assert!(!rejoin.awaits(&at(0), 5), "compaction or retention has removed it");
        assert!(!rejoin.awaits(&at(0), 4));
    }

    #[test]
    fn what_is_awaited_can_be_given_up() {
        let mut rejoin = Rejoin::default();
        rejoin.note(&message(4, b"a"));
        assert_eq!(rejoin.give_up(), []);
        rejoin.begin(&at(0), NextOffset(5));
        assert_eq!(rejoin.give_up(), [at(0)]);
        assert_eq!(rejoin.begin(&at(0), NextOffset(5)), NextOffset(5));
    }
}
