//! Creates the topics that we need, where they are missing.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::KafkaError;
use super::config::{KafkaConfig, MAX_MESSAGE_BYTES};
use super::contact::diagnose_again;
use super::context::Context;

/// A topic as it should be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name in Kafka.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: i32,
    /// Number of replicas of each partition. -1: the broker's default.
    pub replication: i32,
    /// How long messages are kept, in milliseconds. -1: for ever.
    pub retention_ms: i64,
}

/// Makes the topics that do not exist; those that do are left as they are, and need no right to make topics.
///
/// # Errors
/// [`KafkaError::Unreachable`] after the connect timeout, [`KafkaError::CreateTopic`] when the broker refuses.
pub async fn ensure_topics(config: &KafkaConfig, topics: &[TopicSpec]) -> Result<(), KafkaError> {
    let admin: AdminClient<Context> = config
        .client()
        .create_with_context(Context::default())
        .map_err(|source| config.failed("set up an admin client", source))?;
    // All topics are listed: one request, however many are wanted.
    let metadata = admin.inner().fetch_metadata(None, config.connect_timeout());
    let metadata = metadata.map_err(|source| diagnose_again(config, "list topics", source))?;
    let missing = topics.iter().filter(|topic| metadata.topics().iter().all(|found| found.name() != topic.name));
    let topics: Vec<&TopicSpec> = missing.collect();
    if topics.is_empty() {
        return Ok(());
    }
    let settings: Vec<(String, String)> =
        topics.iter().map(|topic| (topic.retention_ms.to_string(), MAX_MESSAGE_BYTES.to_string())).collect();
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&settings)
        .map(|(topic, (retention_ms, max_bytes))| {
            NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication))
                .set("retention.ms", retention_ms)
                .set("max.message.bytes", max_bytes)
                // A broker's default may be `compact`: a message that is compacted away before it is read is lost.
                .set("cleanup.policy", "delete")
        })
        .collect();
    // The request timeout covers the whole request; the operation timeout is how long the broker waits for the topics
    // to be created (`rdkafka.h`).
    let timeout = Some(Duration::from_millis(config.connect_timeout_ms));
    let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
    let results = admin.create_topics(&wanted, &options).await;
    for result in results.map_err(|source| diagnose_again(config, "create topics", source))? {
        match result {
            Ok(topic) => tracing::info!(topic, "topic made"),
            // Another process has created it since the topics were listed: creation is idempotent.
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(KafkaError::CreateTopic { topic, code }),
        }
    }
    Ok(())
}
