//! An idempotent, ordered producer: the outcome of each message arrives on a channel, and a full queue is a value.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Statistics};

use super::config::{KafkaConfig, MAX_MESSAGE_BYTES};
use super::context::{LastError, log};
use super::known::KnownBrokers;
use super::{Fault, KafkaError, code_of};

/// What a message to be sent holds.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Names and values, in their order.
    pub headers: &'a [(String, Bytes)],
}

impl<'a> ProducerRecord<'a> {
    /// A message without headers.
    pub fn new(key: Option<&'a [u8]>, payload: &'a [u8]) -> Self {
        Self { key, payload, headers: &[] }
    }

    /// What a message that was read holds, its headers included.
    pub fn of(message: &'a Message) -> Self {
        Self { key: message.key.as_deref(), payload: &message.payload, headers: &message.headers }
    }
}

/// The outcome of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Taken: a [`Delivery`] with its token will follow.
    Queued,
    /// The memory for unacknowledged messages is used up: take deliveries, then send the same message again.
    Full,
}

/// The outcome of a queued message. Deliveries of one partition come in the order of the sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The number given with the send.
    pub token: usize,
    /// Where the broker has put it.
    pub result: Result<(TopicPartition, i64), Rejection>,
}

/// Why the broker, or the client for good, did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka did not take a message for {topic}: {code}")]
pub struct Rejection {
    /// The topic that the message was sent to.
    pub topic: String,
    /// The broker's error code, or the client's own.
    pub code: Code,
}

impl Rejection {
    /// True when the message alone is larger than the broker or a segment of its log takes, or the request it was in.
    pub fn is_too_large(&self) -> bool {
        matches!(self.code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)
    }

    /// True when the topic or partition does not exist, according to the brokers.
    pub fn is_unknown_place(&self) -> bool {
        Fault::of(self.code) == Fault::Identity
    }

    /// True when this message can never be taken, while others can: too large, or not a valid record.
    pub fn is_permanent(&self) -> bool {
        Fault::of(self.code) == Fault::Message
    }
}

/// A producer with a thread of its own for acknowledgements. Dropping it discards what is not delivered: the spool
/// still has it.
pub struct KafkaProducer {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Receiver<Delivery>,
    config: KafkaConfig,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProducer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// Sets the producer up. It connects by itself, now or when a broker answers later.
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let (sender, deliveries) = channel();
        let context = Deliveries { sender, last_error: LastError::default(), known: KnownBrokers::default() };
        let producer = config.producer().create_with_context(context);
        let producer = producer.map_err(|source| config.failed("set up a producer", source))?;
        Ok(Self { producer, deliveries, config: config.clone() })
    }

    fn restore_brokers(&self) {
        let client = self.producer.client();
        client.context().known.restore(client, &self.config.brokers);
    }

    /// Queues one message for the partition that its key names. `token` comes back with its [`Delivery`].
    ///
    /// # Errors
    /// A message over the limit of 8 MiB, or a producer that librdkafka has given up (open a new one).
    pub fn send(&self, topic: &str, message: ProducerRecord<'_>, token: usize) -> Result<Sent, KafkaError> {
        self.send_record(BaseRecord::with_opaque_to(topic, token), message)
    }

    /// Queues one message for a partition, whatever its key. `token` comes back with its [`Delivery`].
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_to(&self, at: &TopicPartition, message: ProducerRecord<'_>, token: usize) -> Result<Sent, KafkaError> {
        let record = BaseRecord::with_opaque_to(&at.topic, token).partition(at.partition);
        self.send_record(record, message)
    }

    /// How many partitions a topic has now.
    ///
    /// # Errors
    /// No broker answered within the connect timeout, or the topic does not exist.
    pub fn partitions(&self, topic: &str) -> Result<usize, KafkaError> {
        self.restore_brokers();
        // Asked for by name: of a topic that does not exist the answer has an error, not an empty list.
        let metadata = self.producer.client().fetch_metadata(Some(topic), self.config.connect_timeout());
        let metadata = metadata.map_err(|source| self.config.failed("count partitions", source))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        match found {
            Some(found) => Ok(found.partitions().len()),
            None => Err(KafkaError::UnknownTopic { topic: topic.to_owned(), brokers: self.config.brokers.clone() }),
        }
    }

    fn send_record<'a>(
        &self,
        record: BaseRecord<'a, [u8], [u8], usize>,
        ProducerRecord { key, payload, headers }: ProducerRecord<'a>,
    ) -> Result<Sent, KafkaError> {
        let topic = record.topic;
        let mut record = record.payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        if !headers.is_empty() {
            let mut list = OwnedHeaders::new_with_capacity(headers.len());
            for (name, value) in headers {
                list = list.insert(Header { key: name, value: Some(value.as_ref()) });
            }
            record = record.headers(list);
        }
        self.restore_brokers();
        match self.producer.send(record) {
            Ok(()) => Ok(Sent::Queued),
            // Backpressure as a value: the caller takes deliveries before it sends on.
            Err((ClientError::MessageProduction(Code::QueueFull), _)) => Ok(Sent::Full),
            // Refused by the client before it is sent (`message.max.bytes`); the broker's own limit shows in a
            // delivery.
            Err((ClientError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                Err(KafkaError::TooLarge { topic: topic.to_owned(), bytes: payload.len(), limit: MAX_MESSAGE_BYTES })
            }
            Err((source, _)) => Err(self.config.failed("send", source)),
        }
    }

    /// The next delivery, waiting at most `timeout` for it.
    pub fn delivery(&self, timeout: Duration) -> Option<Delivery> {
        // Also here: nothing is sent while the queue is full, and the brokers would not be restored.
        self.restore_brokers();
        self.deliveries.recv_timeout(timeout).ok()
    }

    /// Waits until everything queued was acknowledged; deliveries are still to be taken. False when the time was too
    /// short.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.producer.flush(timeout).is_ok()
    }

    /// The last error that the client reported about its brokers, for messages to users.
    pub fn last_error(&self) -> Option<String> {
        self.producer.client().context().last_error.get().map(|failure| failure.reason)
    }
}

/// The callbacks' end of the channel.
struct Deliveries {
    sender: Sender<Delivery>,
    last_error: LastError,
    known: KnownBrokers,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.last_error.set(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.known.update(&statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let result = match result {
            Ok(message) => Ok((TopicPartition::new(message.topic(), message.partition()), message.offset())),
            Err((error, message)) => {
                // An unknown cause counts as transient: the message is kept and sent again.
                let code = code_of(error).unwrap_or(Code::Unknown);
                Err(Rejection { topic: message.topic().to_owned(), code })
            }
        };
        // The receiver is gone while the producer is being dropped.
        let _ = self.sender.send(Delivery { token, result });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::fault::FAULTS;

    #[test]
    fn a_rejection_is_for_good_or_for_want_of_a_place_or_neither() {
        let classes = |code| {
            let rejection = Rejection { topic: "t".to_owned(), code };
            (rejection.is_permanent(), rejection.is_unknown_place())
        };
        assert_eq!(classes(Code::MessageSizeTooLarge), (true, false));
        assert_eq!(classes(Code::UnknownPartition), (false, true));
        assert_eq!(classes(Code::UnknownTopicOrPartition), (false, true));
        assert_eq!(classes(Code::NotEnoughReplicas), (false, false));
        assert_eq!(classes(Code::TopicAuthorizationFailed), (false, false));
    }

    #[test]
    fn each_code_of_one_message_is_permanent_and_those_about_its_size_ask_for_a_smaller_one() {
        let rejection = |code| Rejection { topic: "t".to_owned(), code };
        for (code, fault, _) in FAULTS {
            assert_eq!(rejection(*code).is_permanent(), *fault == Fault::Message, "{code:?}");
        }
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge] {
            assert!(rejection(code).is_too_large() && rejection(code).is_permanent(), "{code:?}");
        }
        assert!(!rejection(Code::InvalidRecord).is_too_large());
    }
}
