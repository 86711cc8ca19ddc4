//! What partitions hold, for a program that reads nothing of them.

use event_schema::position::{NextOffset, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::KafkaError;
use super::config::KafkaConfig;
use super::context::Context;
use super::message::ASK_TIMEOUT;
use crate::source::Watermarks;

/// The offsets that the broker has of partitions, in their order. No group is joined.
///
/// # Errors
/// [`KafkaError::Client`]: the broker does not answer, or does not know a partition ([`KafkaError::is_unknown_place`]).
pub fn watermarks(config: &KafkaConfig, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, KafkaError> {
    let consumer: BaseConsumer<Context> = config
        .consumer()
        .create_with_context(Context::default())
        .map_err(|source| config.failed("set up a consumer", source))?;
    let mut found = Vec::new();
    for at in partitions {
        let (low, high) = consumer
            .fetch_watermarks(&at.topic, at.partition, ASK_TIMEOUT)
            .map_err(|source| config.failed("read watermarks", source))?;
        found.push(Watermarks { low: NextOffset(low), high: NextOffset(high) });
    }
    Ok(found)
}
