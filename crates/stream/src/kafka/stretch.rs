//! What a partition holds between two offsets, read a second time by a consumer of its own.
//!
//! The offsets of a Kafka log are not gapless: markers of transactions take one each, messages of aborted transactions are not
//! given to readers that want committed ones only, and compaction removes messages. A client that has lost its place leaves
//! offsets out too. A second read distinguishes the two.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_schema::position::OffsetRange;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::config::KafkaConfig;
use super::context::Context;
use super::{Fault, KafkaError, code_of};

const ACTION: &str = "read offsets a second time";
/// Messages read beyond the range asked for, at most: a transactional writer leaves many small holes.
const AHEAD: usize = 20_000;

/// The offsets of one partition that hold a message, within a range.
#[derive(Debug)]
pub(super) struct Stretch {
    range: OffsetRange,
    held: BTreeSet<i64>,
}

impl Stretch {
    /// Whether the log holds no message in `range`; `None` when this reading does not cover it.
    pub(super) fn is_empty(&self, range: &OffsetRange) -> Option<bool> {
        let is_within = self.range.start <= range.start && range.end <= self.range.end;
        let covers = self.range.at == range.at && is_within && range.start <= range.end;
        covers.then(|| self.held.range(range.start..range.end).next().is_none())
    }
}

/// A reading under way. It takes as long as there is to read: of aborted messages nothing is seen, and there may be gigabytes.
pub(super) struct Reading {
    consumer: BaseConsumer<Context>,
    /// What must be read.
    range: OffsetRange,
    held: BTreeSet<i64>,
    /// Behind the last message read.
    end: i64,
}

impl Reading {
    /// Begins to read `range`, whose end must not lie behind the last stable offset.
    pub(super) fn begin(config: &KafkaConfig, range: OffsetRange) -> Result<Self, KafkaError> {
        let begin = || -> Result<BaseConsumer<Context>, ClientError> {
            let mut settings = config.consumer();
            settings.set("enable.partition.eof", "true");
            let consumer: BaseConsumer<Context> = settings.create_with_context(Context::default())?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&range.at.topic, range.at.partition, Offset::Offset(range.start))?;
            consumer.assign(&list)?;
            Ok(consumer)
        };
        let consumer = begin().map_err(|source| config.failed(ACTION, source))?;
        Ok(Self { consumer, held: BTreeSet::new(), end: range.start, range })
    }

    /// The range that is being read.
    pub(super) fn range(&self) -> &OffsetRange {
        &self.range
    }

    /// Reads for about `time` at most. True when the range has been read.
    pub(super) fn advance(&mut self, config: &KafkaConfig, time: Duration) -> Result<bool, KafkaError> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let is_enough = self.end >= self.range.end;
            let wait = if is_enough { Duration::ZERO } else { Duration::from_millis(100) };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    self.held.insert(message.offset());
                    self.end = message.offset() + 1;
                    if is_enough && self.held.len() >= AHEAD {
                        break;
                    }
                }
                // The end was asked for after the range had become readable.
                Some(Err(ClientError::PartitionEOF(_))) => {
                    self.end = self.end.max(self.range.end);
                    break;
                }
                Some(Err(error)) if code_of(&error).is_some_and(|code| Fault::of(code) == Fault::Transient) => {}
                Some(Err(error)) => return Err(config.failed(ACTION, error)),
                None if is_enough => break,
                None => {}
            }
        }
        Ok(self.end >= self.range.end)
    }

    /// What was read.
    pub(super) fn done(self) -> Stretch {
        Stretch { range: OffsetRange::new(self.range.at, self.range.start, self.end), held: self.held }
    }
}
