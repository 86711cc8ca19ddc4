//! Holds a log to the offsets the table expects: replays are dropped and counted, gaps are named, nothing is skipped.
//!
//! The position that a client keeps is not relied on after an assignment, a pause or a seek, because clients have been
//! wrong there. Pure, so that every order of events can be tried.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

use crate::source::SourceStats;

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The expected one: it is taken, and the next is expected.
    Take,
    /// Already taken: dropped and counted.
    Replay,
    /// Not (or no longer) from a partition of ours: dropped and counted.
    Stale,
    /// Messages are missing before it. Nothing is taken and the expectation stays.
    Gap { expected: NextOffset },
}

/// The expected next offset of every partition we own.
#[derive(Debug, Default)]
pub struct Sequencer {
    expected: BTreeMap<TopicPartition, i64>,
    stats: SourceStats,
}

impl Sequencer {
    /// Takes a partition at a position. What was expected of an earlier assignment is discarded.
    pub fn assign(&mut self, at: TopicPartition, next: NextOffset) {
        self.expected.insert(at, next.0);
    }

    /// Lets a partition go: messages of it that still arrive are stale.
    pub fn revoke(&mut self, at: &TopicPartition) {
        self.expected.remove(at);
    }

    /// Judges one message that has arrived.
    pub fn admit(&mut self, at: &TopicPartition, offset: i64) -> Verdict {
        let Some(expected) = self.expected.get_mut(at) else {
            // What the client had fetched before a rebalance may still be in its queue.
            self.stats.stale += 1;
            return Verdict::Stale;
        };
        if offset < *expected {
            // Delivered at least once: a start at a lower offset, or a fetch anew, gives offsets again.
            self.stats.replayed += 1;
            return Verdict::Replay;
        }
        if offset > *expected {
            // The expectation stays: the owner asks what the offsets hold, and skips them or ends.
            return Verdict::Gap { expected: NextOffset(*expected) };
        }
        *expected += 1;
        Verdict::Take
    }

    /// Passes offsets that hold no message. Does nothing unless the range begins at the expected offset.
    pub fn skip(&mut self, range: &OffsetRange) {
        // A range that was asked for before a rebalance may come after it: it must not move a new expectation.
        if let Some(expected) = self.expected.get_mut(&range.at).filter(|expected| **expected == range.start) {
            *expected = range.end;
        }
    }

    /// The next offset of a partition of ours.
    pub fn expected(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.expected.get(at).copied().map(NextOffset)
    }

    /// Every partition of ours with its next offset.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, NextOffset)> {
        self.expected.iter().map(|(at, next)| (at, NextOffset(*next)))
    }

    pub fn stats(&self) -> SourceStats {
        self.stats
    }
}

#[cfg(test)]
mod tests;
