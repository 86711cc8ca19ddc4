//! Kafka through librdkafka: configuration, consumer, producer, topics.

mod admin;
mod config;
mod consumer;
mod contact;
mod context;
mod fault;
mod known;
mod message;
mod partitions;
mod producer;
mod states;
mod stretch;
mod topic_id;

use std::time::Duration;

pub use admin::{TopicSpec, ensure_topics};
pub use config::{KafkaConfig, MAX_MESSAGE_BYTES, Sasl, SaslMechanism, Tls};
pub use consumer::KafkaSource;
pub use fault::Fault;
pub use producer::{Delivery, KafkaProducer, ProducerRecord, Rejection, Sent};
pub use states::states;

/// Why Kafka cannot be used. Faults that the client recovers from by itself are not among them.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error(
        "no kafka broker answered at {brokers} within {waited:?}{}: check the address, that a broker runs there, and \
         whether it requires tls or sasl",
        reason(last_error)
    )]
    Unreachable { brokers: String, waited: Duration, last_error: Option<String> },
    #[error(
        "kafka at {brokers} refused the connection{}: check the user, the password or the certificate",
        reason(last_error)
    )]
    Refused { brokers: String, last_error: Option<String> },
    #[error("topic {topic} does not exist at {brokers}: create it, or correct its name")]
    UnknownTopic { topic: String, brokers: String },
    #[error("cannot {action} at {brokers}")]
    Client {
        action: &'static str,
        brokers: String,
        #[source]
        source: rdkafka::error::KafkaError,
    },
    #[error("cannot create topic {topic}: {code}; let a user who may create it do so")]
    CreateTopic { topic: String, code: rdkafka::types::RDKafkaErrorCode },
    #[error("a message for topic {topic} is {bytes} bytes, over the limit of {limit}: cut smaller batches")]
    TooLarge { topic: String, bytes: usize, limit: usize },
}

impl KafkaError {
    /// Whether the topic or partition does not exist, according to the broker that was asked.
    pub fn is_unknown_place(&self) -> bool {
        match self {
            Self::UnknownTopic { .. } => true,
            Self::Client { source, .. } => code_of(source).is_some_and(|code| Fault::of(code) == Fault::Identity),
            _ => false,
        }
    }

    /// Whether bytes that were read are damaged, or are not what a log holds.
    pub fn is_damage(&self) -> bool {
        match self {
            // The code beneath a fatal error is why the client ended, not what a message holds.
            Self::Client { source: rdkafka::error::KafkaError::MessageConsumptionFatal(_), .. } => false,
            Self::Client { source, .. } => {
                code_of(source).is_some_and(|code| matches!(Fault::of(code), Fault::Damage | Fault::Message))
            }
            _ => false,
        }
    }

    /// Whether the same request may succeed later: once a broker is back, or has the topic in its metadata.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Client { source, .. } => {
                // A topic that is unknown may be one that was made just now: the metadata of one broker can be behind.
                code_of(source).is_some_and(|code| matches!(Fault::of(code), Fault::Transient | Fault::Identity))
            }
            Self::Refused { .. } | Self::UnknownTopic { .. } | Self::CreateTopic { .. } | Self::TooLarge { .. } => {
                false
            }
        }
    }
}

fn reason(last_error: &Option<String>) -> String {
    last_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"))
}

/// librdkafka's code of an error. rdkafka's own accessor knows none for admin operations.
fn code_of(error: &rdkafka::error::KafkaError) -> Option<rdkafka::types::RDKafkaErrorCode> {
    match error {
        rdkafka::error::KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}
