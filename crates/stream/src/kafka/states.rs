//! What partitions are and hold, for a program that does not read them.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::{NextOffset, TopicPartition};
use rdkafka::admin::AdminClient;

use super::config::KafkaConfig;
use super::contact::diagnose_again;
use super::context::Context;
use super::message::{ASK_TIMEOUT, fingerprint_below};
use super::{KafkaError, topic_id};
use crate::source::{LogIdentity, LogState, Watermarks};

/// The logs behind partitions, in their order; `None` of one that does not exist. Each fingerprint is that of the
/// message just below the offset that stands beside the partition. No group is joined. The calling thread waits for the
/// broker.
///
/// # Errors
/// [`KafkaError::Unreachable`] after the connect timeout; [`KafkaError::Client`] when the broker refuses to answer.
pub fn states(
    config: &KafkaConfig,
    partitions: &[(TopicPartition, NextOffset)],
) -> Result<Vec<Option<LogState>>, KafkaError> {
    // Not a consumer: nothing polls it here, and its statistics would be kept until then.
    let admin: AdminClient<Context> = config
        .client()
        .create_with_context(Context::default())
        .map_err(|source| config.failed("set up an admin client", source))?;
    let mut ids = BTreeMap::new();
    let topics: BTreeSet<&str> = partitions.iter().map(|(at, _)| &*at.topic).collect();
    for topic in topics {
        // Each by itself: a request for several fails where one of them does not exist.
        match topic_id::describe(admin.inner(), &[topic], config.connect_timeout()) {
            Ok(found) => ids.extend(found),
            Err(source) => {
                let error = diagnose_again(config, "describe a topic", source);
                if !error.is_unknown_place() {
                    return Err(error);
                }
            }
        }
    }
    let mut states = Vec::with_capacity(partitions.len());
    for (at, next) in partitions {
        let state = match ids.get(&*at.topic) {
            Some(id) => state(config, &admin, (at, *next), id)?,
            None => None,
        };
        states.push(state);
    }
    Ok(states)
}

/// The log behind a partition of the topic with this id; `None` when the topic has no such partition.
fn state(
    config: &KafkaConfig,
    admin: &AdminClient<Context>,
    (at, next): (&TopicPartition, NextOffset),
    id: &str,
) -> Result<Option<LogState>, KafkaError> {
    // Asked after the identity: should the topic be made anew in between, the identity shows the former log.
    let Some(watermarks) = watermarks(config, admin, at)? else { return Ok(None) };
    let fingerprint = fingerprint_below(config, at, next, watermarks)?;
    Ok(Some(LogState { identity: LogIdentity(id.to_owned()), watermarks, fingerprint }))
}

/// What a partition holds; `None` when the topic has no such partition.
fn watermarks(
    config: &KafkaConfig,
    admin: &AdminClient<Context>,
    at: &TopicPartition,
) -> Result<Option<Watermarks>, KafkaError> {
    let found = admin.inner().fetch_watermarks(&at.topic, at.partition, ASK_TIMEOUT);
    match found.map_err(|source| config.failed("read watermarks", source)) {
        Ok((low, high)) => Ok(Some(Watermarks { low: NextOffset(low), high: NextOffset(high) })),
        Err(error) if error.is_unknown_place() => Ok(None),
        Err(error) => Err(error),
    }
}
