//! What partitions are and hold, for a program that reads nothing of them.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::{NextOffset, TopicPartition};
use rdkafka::admin::AdminClient;

use super::config::KafkaConfig;
use super::contact::diagnose_again;
use super::context::Context;
use super::message::ASK_TIMEOUT;
use super::{KafkaError, topic_id};
use crate::source::{LogIdentity, LogState, Watermarks};

/// The logs behind partitions, in their order; `None` of one that does not exist. No group is joined. The calling
/// thread waits for the broker.
///
/// # Errors
/// [`KafkaError::Unreachable`] after the connect timeout; [`KafkaError::Client`] when the broker refuses to answer.
pub fn states(config: &KafkaConfig, partitions: &[TopicPartition]) -> Result<Vec<Option<LogState>>, KafkaError> {
    // Not a consumer: nothing polls it here, and its statistics would be kept until then.
    let admin: AdminClient<Context> = config
        .client()
        .create_with_context(Context::default())
        .map_err(|source| config.failed("set up an admin client", source))?;
    let mut ids = BTreeMap::new();
    let topics: BTreeSet<&str> = partitions.iter().map(|at| &*at.topic).collect();
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
    for at in partitions {
        let Some(id) = ids.get(&*at.topic) else {
            states.push(None);
            continue;
        };
        // Asked after the identity: should the topic be made anew in between, the identity shows the former log.
        let watermarks = watermarks(config, &admin, at)?;
        states.push(watermarks.map(|watermarks| LogState { identity: LogIdentity(id.clone()), watermarks }));
    }
    Ok(states)
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
