//! Converts messages of librdkafka.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::KafkaConfig;
use super::context::Context;
use super::partitions::{list_add, to_list};
use super::{Fault, KafkaError, code_of};
use crate::source::{Watermarks, fingerprint};

/// How long a question to the broker (watermarks, identity, one message) may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A consumer of these partitions, which reports the end of each as an error. It commits nothing, so that the positions
/// of its group stay untouched.
pub(super) fn consumer_at(
    config: &KafkaConfig,
    positions: &[(TopicPartition, NextOffset)],
) -> Result<BaseConsumer<Context>, ClientError> {
    let mut settings = config.consumer();
    settings.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Context> = settings.create_with_context(Context::default())?;
    let mut list = TopicPartitionList::new();
    for (at, next) in positions {
        list_add(&mut list, at, *next)?;
    }
    // Assigned, not subscribed: the client does not join the group, so that neither a rebalance nor the fencing of a
    // `group.instance.id` follows.
    consumer.assign(&list)?;
    Ok(consumer)
}

/// [`fingerprint`] of the message just below `next`, read through a consumer of its own; `None` when a log that holds
/// these offsets does not hold that message.
pub(super) fn fingerprint_below(
    config: &KafkaConfig,
    at: &TopicPartition,
    next: NextOffset,
    watermarks: Watermarks,
) -> Result<Option<u32>, KafkaError> {
    // Nothing to compare: retention has deleted the message, or the log does not reach that far.
    if next <= watermarks.low || next > watermarks.high {
        return Ok(None);
    }
    Ok(fingerprints(config, &[(at.clone(), NextOffset(next.0 - 1))])?.remove(at))
}

/// Fingerprints of single messages, at most one of a partition. Offsets that hold no message are left out.
///
/// # Errors
/// A message cannot be read, or not all have come in time.
pub(super) fn fingerprints(
    config: &KafkaConfig,
    wanted: &[(TopicPartition, NextOffset)],
) -> Result<BTreeMap<TopicPartition, u32>, KafkaError> {
    // The client reports the end of a partition by its number alone: a consumer for each topic.
    let mut by_topic: BTreeMap<&str, Vec<(TopicPartition, NextOffset)>> = BTreeMap::new();
    for (at, offset) in wanted {
        by_topic.entry(&at.topic).or_default().push((at.clone(), *offset));
    }
    let mut found = BTreeMap::new();
    for of_topic in by_topic.into_values() {
        let read = read_fingerprints(config, &of_topic);
        found.extend(read.map_err(|source| config.failed("read a message", source))?);
    }
    Ok(found)
}

/// As [`fingerprints`], of one topic.
fn read_fingerprints(
    config: &KafkaConfig,
    wanted: &[(TopicPartition, NextOffset)],
) -> Result<BTreeMap<TopicPartition, u32>, ClientError> {
    let consumer = consumer_at(config, wanted)?;
    let mut left: BTreeMap<i32, &(TopicPartition, NextOffset)> =
        wanted.iter().map(|wanted| (wanted.0.partition, wanted)).collect();
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + ASK_TIMEOUT;
    while !left.is_empty() {
        if Instant::now() >= deadline {
            return Err(ClientError::MessageConsumption(Code::OperationTimedOut));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                // Of a partition that has answered, messages come until the pause takes effect.
                let Some((at, offset)) = left.remove(&message.partition()) else { continue };
                // A later message shows that the offset holds none: a marker of a transaction, or compacted away.
                if message.offset() == offset.0 {
                    found.insert(at.clone(), fingerprint(&to_message(at.clone(), &message)));
                }
                // What would follow is read by the group's consumer. Without the pause it would only come for nothing.
                if let Err(error) = consumer.pause(&to_list(std::slice::from_ref(at))) {
                    tracing::debug!(%at, %error, "not paused");
                }
            }
            // The offset holds no message, nor does any behind it.
            Some(Err(ClientError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            // The client goes on by itself; the deadline bounds it.
            Some(Err(error)) if code_of(&error).is_some_and(|code| Fault::of(code) == Fault::Transient) => {}
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(found)
}

/// Copies a message: its memory belongs to a whole fetch response, which it would keep.
pub(super) fn to_message(at: TopicPartition, message: &BorrowedMessage<'_>) -> Message {
    Message {
        at,
        offset: message.offset(),
        // Message format v0 has no timestamp.
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(Bytes::copy_from_slice),
        // A tombstone (no payload) becomes an empty payload, which does not decode: a dead letter.
        payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
        headers: message.headers().map_or_else(Vec::new, to_headers),
    }
}

fn to_headers(headers: &impl Headers) -> Vec<(String, Bytes)> {
    (0..headers.count()).filter_map(|index| header_at(headers, index)).collect()
}

/// rdkafka 0.39 panics on a header whose name is not UTF-8, which any producer may send: such a header is left out.
fn header_at(headers: &impl Headers, index: usize) -> Option<(String, Bytes)> {
    let found = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
    // A header may have no value (KIP-82), which is kept as an empty one.
    let header = found.ok().flatten()?;
    Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice).unwrap_or_default()))
}
