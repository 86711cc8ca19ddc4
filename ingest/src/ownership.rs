//! The partitions that are read, and how far. Each event of the log is one method, which waits for nothing: its result
//! says what is to be done.

use std::collections::BTreeMap;
use std::time::Instant;

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};

use crate::mark::Mark;
use crate::note::Note;

/// A partition of ours.
#[derive(Debug)]
struct Reading {
    /// The next message expected of the reader.
    next: NextOffset,
    /// Where the last message read ends, and its fingerprint.
    last: Option<(NextOffset, u32)>,
    /// Absent until the reader has begun.
    log: Option<OpenLog>,
    /// The table of messages has recorded which log this is.
    is_marked: bool,
}

/// A log that the reader has begun to read.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) identity: String,
    /// Where reading is caught up.
    pub(crate) high: NextOffset,
    /// When reading began.
    pub(crate) since: Instant,
}

/// What becomes of a message that the reader gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is the next of its partition.
    Take,
    /// It was read before, or its partition is not ours any more.
    Drop,
    /// Messages are missing in front of it.
    Hole { expected: NextOffset },
}

/// Offsets are missing in front of a range that the reader passes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) at: TopicPartition,
    pub(crate) expected: NextOffset,
    pub(crate) offset: i64,
}

/// The partitions of this process, by their names in the tables.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    partitions: BTreeMap<TopicPartition, Reading>,
    /// Former logs of partitions whose end some table misses; their gaps land with the next batch.
    closing: BTreeMap<TopicPartition, NextOffset>,
}

impl Ownership {
    /// A partition is to be read from `next` on. `is_marked` says whether the table of messages has recorded its log.
    pub(crate) fn open(&mut self, at: TopicPartition, next: NextOffset, is_marked: bool) {
        self.partitions.insert(at, Reading { next, last: None, log: None, is_marked });
    }

    /// Where a partition was to go on, when its log begins behind that.
    pub(crate) fn gap_before(&self, at: &TopicPartition, begin: NextOffset) -> Option<NextOffset> {
        self.partitions.get(at).map(|reading| reading.next).filter(|next| begin > *next)
    }

    /// A partition goes on at `begin`: what lies before that is in no log.
    pub(crate) fn skip_to(&mut self, at: &TopicPartition, begin: NextOffset) {
        if let Some(reading) = self.partitions.get_mut(at) {
            reading.next = begin;
            // The message below the gap is not in the log any more: nothing is left to compare with.
            reading.last = None;
        }
    }

    /// The reader has begun to read a partition. False when it is not ours any more.
    pub(crate) fn started(&mut self, at: &TopicPartition, log: OpenLog) -> bool {
        self.partitions.get_mut(at).map(|reading| reading.log = Some(log)).is_some()
    }

    /// Judges a message.
    pub(crate) fn admit(&mut self, message: &Message) -> Admission {
        let Some(reading) = self.partitions.get_mut(&message.at) else { return Admission::Drop };
        if message.offset > reading.next.0 {
            return Admission::Hole { expected: reading.next };
        }
        // Read before: a start at the lowest offset of the tables, or a resume, reads at least once.
        if message.offset < reading.next.0 {
            return Admission::Drop;
        }
        reading.next = NextOffset(message.offset + 1);
        reading.last = Some((reading.next, stream::fingerprint(message)));
        Admission::Take
    }

    /// Passes offsets that hold no message; returns those that were not passed before.
    ///
    /// # Errors
    /// Offsets in front of them are missing.
    pub(crate) fn pass(&mut self, range: OffsetRange) -> Result<Option<OffsetRange>, Hole> {
        let Some(reading) = self.partitions.get_mut(&range.at) else { return Ok(None) };
        if range.start > reading.next.0 {
            return Err(Hole { at: range.at, expected: reading.next, offset: range.start });
        }
        // A range that overlaps what was passed is cut, so that no offset counts twice.
        let rest = OffsetRange::new(range.at, reading.next.0, range.end);
        if rest.is_empty() {
            return Ok(None);
        }
        reading.next = NextOffset(rest.end);
        Ok(Some(rest))
    }

    /// The logs that are read of partitions, which are given by their names in the log.
    pub(crate) fn logs_of(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        self.partitions.keys().filter(|at| partitions.contains(&at.without_generation())).cloned().collect()
    }

    /// Logs are read no longer.
    pub(crate) fn give_up(&mut self, logs: &[TopicPartition]) {
        self.partitions.retain(|at, _| !logs.contains(at));
    }

    /// A former log ends at `end`, and some table misses what lies before that.
    pub(crate) fn close(&mut self, at: &TopicPartition, end: NextOffset) {
        self.closing.insert(at.clone(), end);
    }

    /// Whether gaps of former logs are still to land.
    pub(crate) fn is_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// The gaps of former logs have landed.
    pub(crate) fn closed(&mut self) {
        self.closing.clear();
    }

    /// How far each partition was read, and where former logs end.
    pub(crate) fn ends(&self) -> BTreeMap<TopicPartition, NextOffset> {
        // Former logs are not among the partitions: the names of generations differ.
        let read = self.partitions.iter().map(|(at, reading)| (at.clone(), reading.next));
        read.chain(self.closing.iter().map(|(at, end)| (at.clone(), *end))).collect()
    }

    /// Partitions, and whether the reader has begun to read each.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&TopicPartition, bool)> {
        self.partitions.iter().map(|(at, reading)| (at, reading.log.is_some()))
    }

    /// When this process began to read a log.
    pub(crate) fn read_since(&self, at: &TopicPartition) -> Option<Instant> {
        Some(self.partitions.get(at)?.log.as_ref()?.since)
    }

    /// Whether everything was read that the logs held when reading began.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.partitions.values().all(|reading| reading.log.as_ref().is_some_and(|log| reading.next >= log.high))
    }

    /// Whether the first offsets of some log are about to land: messages, offsets without one, or a gap. From then on
    /// its log counts as recorded.
    pub(crate) fn begins(&mut self) -> bool {
        let mut begins = false;
        for reading in self.partitions.values_mut() {
            if reading.log.is_some() && reading.next > NextOffset(0) {
                // `|=` evaluates both sides: every partition is marked, not only the first.
                begins |= !std::mem::replace(&mut reading.is_marked, true);
            }
        }
        begins
    }

    /// What the table of messages is to record of the logs.
    pub(crate) fn marks(&self) -> Vec<Note> {
        let mut marks = Vec::new();
        for (at, reading) in &self.partitions {
            let Some(log) = &reading.log else { continue };
            // Offsets without a message may follow the last one: the fingerprint stays that of the message.
            let (next, fingerprint) = reading.last.map_or((reading.next, None), |(next, print)| (next, Some(print)));
            marks.push(Mark { next, fingerprint, identity: log.identity.clone() }.note(at, reading.next));
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn message(offset: i64) -> Message {
        let (key, payload, headers) = (None, Bytes::new(), Vec::new());
        Message { at: at(), offset, timestamp_ms: 0, key, payload, headers }
    }

    fn log() -> OpenLog {
        OpenLog { identity: "log".to_owned(), high: NextOffset(9), since: Instant::now() }
    }

    #[test]
    fn a_log_begins_with_the_first_offsets_that_land_of_it_and_only_once() {
        for (next, is_open, is_marked, expected) in [
            (0, true, false, false),
            (3, false, false, false),
            (3, true, true, false),
            // No message of it is needed: they may be offsets without one.
            (3, true, false, true),
        ] {
            let mut ownership = Ownership::default();
            ownership.open(at(), NextOffset(next), is_marked);
            assert!(!is_open || ownership.started(&at(), log()));
            assert_eq!(ownership.begins(), expected, "{next} {is_open} {is_marked}");
            assert!(!ownership.begins());
        }
    }

    #[test]
    fn every_offset_of_a_partition_is_taken_once_and_in_order() {
        let mut ownership = Ownership::default();
        assert_eq!(ownership.admit(&message(5)), Admission::Drop, "not ours");
        ownership.open(at(), NextOffset(5), false);
        assert_eq!(ownership.admit(&message(6)), Admission::Hole { expected: NextOffset(5) });
        assert_eq!(
            [4, 5, 5].map(|offset| ownership.admit(&message(offset))),
            [Admission::Drop, Admission::Take, Admission::Drop]
        );
        let pass = |ownership: &mut Ownership, start, end| ownership.pass(OffsetRange::new(at(), start, end));
        assert_eq!(pass(&mut ownership, 4, 8), Ok(Some(OffsetRange::new(at(), 6, 8))));
        assert_eq!(pass(&mut ownership, 4, 8), Ok(None));
        let hole = Hole { at: at(), expected: NextOffset(8), offset: 9 };
        assert_eq!(pass(&mut ownership, 9, 10), Err(hole));
        assert_eq!(ownership.ends(), BTreeMap::from([(at(), NextOffset(8))]));
        ownership.give_up(&[at()]);
        assert_eq!(pass(&mut ownership, 8, 9), Ok(None));
    }

    #[test]
    fn a_partition_is_caught_up_once_all_was_read_that_its_log_held_when_reading_began() {
        let mut ownership = Ownership::default();
        assert!(ownership.is_caught_up());
        ownership.open(at(), NextOffset(8), false);
        assert!(!ownership.is_caught_up(), "it is not known what the log holds");
        ownership.started(&at(), log());
        assert!(!ownership.is_caught_up());
        ownership.admit(&message(8));
        assert!(ownership.is_caught_up());
    }

    #[test]
    fn a_log_that_begins_behind_a_partition_leaves_a_gap() {
        let mut ownership = Ownership::default();
        ownership.open(at(), NextOffset(3), true);
        assert_eq!(ownership.gap_before(&at(), NextOffset(3)), None);
        assert_eq!(ownership.gap_before(&at(), NextOffset(7)), Some(NextOffset(3)));
        ownership.skip_to(&at(), NextOffset(7));
        assert_eq!(ownership.admit(&message(7)), Admission::Take);
        ownership.close(&at().of_generation(1), NextOffset(9));
        assert!(ownership.is_closing());
        ownership.closed();
        assert!(!ownership.is_closing());
    }
}
