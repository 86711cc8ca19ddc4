//! What a partition holds between two offsets, read a second time by a consumer of its own.
//!
//! The offsets of a Kafka log are not gapless: markers of transactions take one each, messages of aborted transactions
//! are not given to readers of committed messages (`read_committed`), and compaction removes messages. A client whose
//! position is wrong leaves offsets out too. A second read distinguishes the two.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, OffsetRange};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;

use super::config::KafkaConfig;
use super::context::Context;
use super::message::consumer_at;
use super::{Fault, KafkaError, code_of};

const ACTION: &str = "read offsets a second time";
/// Messages read beyond the range asked for, at most: a transactional writer leaves many small holes.
const AHEAD: usize = 20_000;
/// How long a reading may make no progress until its client counts as lost.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The offsets of one partition that hold a message, within a range.
#[derive(Debug)]
pub(super) struct Stretch {
    range: OffsetRange,
    held: BTreeSet<i64>,
}

impl Stretch {
    #[cfg(test)]
    pub(super) fn of(range: OffsetRange, held: impl IntoIterator<Item = i64>) -> Self {
        Self { range, held: held.into_iter().collect() }
    }

    /// Whether the log holds no message in `range`; `None` when this reading does not answer it. One message that was
    /// found answers for every range around it.
    pub(super) fn is_empty(&self, range: &OffsetRange) -> Option<bool> {
        if self.range.at != range.at || range.start > range.end {
            return None;
        }
        // The bounds are in order (checked above): `BTreeSet::range` panics on a start behind the end.
        let holds_a_message = self.held.range(range.start..range.end).next().is_some();
        let is_covered = self.range.start <= range.start && range.end <= self.range.end;
        if holds_a_message { Some(false) } else { is_covered.then_some(true) }
    }
}

/// The position of a reading, and since when it has not moved.
#[derive(Debug)]
struct Progress {
    position: i64,
    since: Instant,
}

impl Progress {
    /// Whether the reading has stood at `position`, or before it, for too long.
    fn is_stuck(&mut self, position: i64, now: Instant) -> bool {
        if position > self.position {
            *self = Self { position, since: now };
        }
        now.saturating_duration_since(self.since) >= STUCK_AFTER
    }
}

/// A reading under way. It takes as long as there is to read: of aborted messages nothing is seen, and there may be
/// gigabytes.
pub(super) struct Reading {
    consumer: BaseConsumer<Context>,
    /// What must be read.
    range: OffsetRange,
    held: BTreeSet<i64>,
    /// Behind the last message read.
    end: i64,
    progress: Progress,
}

impl Reading {
    /// Begins to read `range`, whose end must not lie behind the last stable offset.
    pub(super) fn begin(config: &KafkaConfig, range: OffsetRange) -> Result<Self, KafkaError> {
        let consumer = consumer_at(config, &[(range.at.clone(), NextOffset(range.start))]);
        let consumer = consumer.map_err(|source| config.failed(ACTION, source))?;
        let progress = Progress { position: range.start, since: Instant::now() };
        Ok(Self { consumer, held: BTreeSet::new(), end: range.start, range, progress })
    }

    /// The range that is being read.
    pub(super) fn range(&self) -> &OffsetRange {
        &self.range
    }

    /// Takes what has come, for about `time` at most, and does not wait for more. True when it is known what the range
    /// holds: the first message within it answers.
    pub(super) fn advance(&mut self, config: &KafkaConfig, time: Duration) -> Result<bool, ClientError> {
        self.consumer.context().known_brokers().restore(self.consumer.client(), &config.brokers);
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let offset = match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => message.offset(),
                // The end of the partition was asked for after the range had become readable: it lies at or behind the
                // end of the range.
                Some(Err(ClientError::PartitionEOF(_))) => {
                    self.end = self.end.max(self.range.end);
                    return Ok(true);
                }
                Some(Err(error)) if code_of(&error).is_some_and(|code| Fault::of(code) == Fault::Transient) => continue,
                Some(Err(error)) => return Err(error),
                // Nothing has come yet: other readings and the group's consumer are polled meanwhile.
                None => break,
            };
            self.held.insert(offset);
            self.end = offset + 1;
            // A message within the range answers. Behind the range reading goes on, for the next holes of a
            // transactional log.
            if self.end <= self.range.end || self.held.len() >= AHEAD {
                return Ok(true);
            }
        }
        // A message behind the range has shown that the range holds none.
        Ok(self.end >= self.range.end)
    }

    /// Whether nothing has been read or passed for too long. Aborted messages are passed without being seen here.
    pub(super) fn is_stuck(&mut self) -> bool {
        // Aborted messages are passed within the client: only its fetch position shows that it makes progress.
        let fetched = self.consumer.context().ends().get(&self.range.at).map_or(self.end, |end| end.next);
        self.progress.is_stuck(fetched.max(self.end), Instant::now())
    }

    /// What was read.
    pub(super) fn done(self) -> Stretch {
        Stretch { range: OffsetRange::new(self.range.at, self.range.start, self.end), held: self.held }
    }
}

#[cfg(test)]
mod tests {
    use event_schema::position::TopicPartition;

    use super::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(TopicPartition::new("t", 0), start, end)
    }

    #[test]
    fn a_message_that_was_found_answers_for_every_range_around_it_and_emptiness_only_for_what_was_read() {
        let stretch = Stretch { range: range(10, 21), held: BTreeSet::from([20]) };
        let ranges = [(10, 20), (12, 15), (10, 21), (15, 100), (5, 15), (21, 30), (10, 22)];
        let answers = ranges.map(|(start, end)| stretch.is_empty(&range(start, end)));
        assert_eq!(answers, [Some(true), Some(true), Some(false), Some(false), None, None, Some(false)]);
        assert_eq!(stretch.is_empty(&OffsetRange::new(TopicPartition::new("t", 1), 10, 20)), None);
    }

    #[test]
    fn a_reading_is_stuck_once_its_position_has_stood_still_for_too_long() {
        let began = Instant::now();
        let mut progress = Progress { position: 5, since: began };
        let nearly = STUCK_AFTER - Duration::from_millis(1);
        assert!(!progress.is_stuck(5, began + nearly));
        assert!(!progress.is_stuck(6, began + nearly), "aborted messages are passed");
        assert!(!progress.is_stuck(6, began + STUCK_AFTER + nearly - Duration::from_millis(1)));
        assert!(progress.is_stuck(6, began + STUCK_AFTER + nearly));
    }
}
