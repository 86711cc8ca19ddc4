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
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::config::KafkaConfig;
use super::context::Context;
use super::{Fault, KafkaError, code_of};

/// How long a reading may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages read beyond the range asked for, at most: a transactional writer leaves many small holes.
const AHEAD: usize = 20_000;

/// The offsets of one partition that hold a message, within a range.
#[derive(Debug)]
pub(super) struct Stretch {
    range: OffsetRange,
    held: BTreeSet<i64>,
}

impl Stretch {
    /// Reads at least `range`, whose end must not lie behind the last stable offset.
    pub(super) fn read(config: &KafkaConfig, range: &OffsetRange) -> Result<Self, KafkaError> {
        read(config, range).map_err(|source| config.failed("read offsets a second time", source))
    }

    /// Whether the log holds no message in `range`; `None` when this reading does not cover it.
    pub(super) fn is_empty(&self, range: &OffsetRange) -> Option<bool> {
        let is_within = self.range.start <= range.start && range.end <= self.range.end;
        let covers = self.range.at == range.at && is_within && range.start <= range.end;
        covers.then(|| self.held.range(range.start..range.end).next().is_none())
    }
}

fn read(config: &KafkaConfig, range: &OffsetRange) -> Result<Stretch, ClientError> {
    let mut settings = config.consumer();
    settings.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Context> = settings.create_with_context(Context::default())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&range.at.topic, range.at.partition, Offset::Offset(range.start))?;
    consumer.assign(&list)?;
    let (mut held, mut end) = (BTreeSet::new(), range.start);
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let is_enough = end >= range.end;
        let wait = if is_enough { Duration::ZERO } else { Duration::from_millis(100) };
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                held.insert(message.offset());
                end = message.offset() + 1;
                if is_enough && held.len() >= AHEAD {
                    break;
                }
            }
            // The end was asked for after `range` had become readable.
            Some(Err(ClientError::PartitionEOF(_))) => {
                end = end.max(range.end);
                break;
            }
            Some(Err(error)) if code_of(&error).is_some_and(|code| Fault::of(code) == Fault::Transient) => {}
            Some(Err(error)) => return Err(error),
            None if is_enough => break,
            None => {}
        }
    }
    if end < range.end {
        return Err(ClientError::MessageConsumption(Code::OperationTimedOut));
    }
    let range = OffsetRange::new(range.at.clone(), range.start, end);
    Ok(Stretch { range, held })
}
