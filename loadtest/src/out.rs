//! Where simulated messages go: Kafka, or a spool directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::TopicPartition;
use event_schema::topics;
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer, ProducerRecord, Sent};
use stream::log::{Appended, FullBy, LogError, LogOptions, LogWriter};

/// Why a message could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    #[error("kafka cannot be written to")]
    Kafka(#[from] KafkaError),
    #[error("kafka refused a message: {0}")]
    Refused(stream::kafka::Rejection),
    #[error("kafka did not acknowledge {messages} messages within {seconds} s")]
    Unacknowledged { messages: usize, seconds: u64 },
    #[error("the spool cannot be written to")]
    Log(#[from] LogError),
    #[error("the spool is full at {bytes} bytes: {by}")]
    Full { bytes: u64, by: FullBy },
}

/// A destination of messages.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in the process")]
pub enum Out {
    Kafka { producer: KafkaProducer, pending: usize },
    Spool { root: PathBuf, writers: BTreeMap<String, LogWriter> },
}

/// How long the broker may take to acknowledge everything.
const ACKNOWLEDGE: Duration = Duration::from_secs(300);

impl Out {
    pub fn kafka(config: &KafkaConfig) -> Result<Self, OutError> {
        Ok(Self::Kafka { producer: KafkaProducer::open(config)?, pending: 0 })
    }

    pub fn spool(root: &Path) -> Self {
        Self::Spool { root: root.to_owned(), writers: BTreeMap::new() }
    }

    /// Sends one message of a node; messages of one node stay in order.
    ///
    /// # Errors
    /// See [`OutError`].
    pub fn send(&mut self, node: &str, message: &Bytes) -> Result<(), OutError> {
        match self {
            Self::Kafka { producer, pending } => {
                // Backpressure: a full queue empties by acknowledgements. The token is not used: only their number
                // counts.
                while producer.send(topics::EVENTS, ProducerRecord::new(Some(node.as_bytes()), message), 0)?
                    == Sent::Full
                {
                    take_delivery(producer, pending, Duration::from_millis(100))?;
                }
                *pending += 1;
                // The channel of deliveries has no bound of its own.
                while take_delivery(producer, pending, Duration::ZERO)? {}
                Ok(())
            }
            Self::Spool { root, writers } => {
                let writer = match writers.get_mut(node) {
                    Some(writer) => writer,
                    None => {
                        // A stream keeps to one partition, and a writer holds it by a lock. The map only grows: its
                        // size is the next free number.
                        let at = TopicPartition::new(topics::EVENTS, i32::try_from(writers.len()).unwrap_or(i32::MAX));
                        let writer = LogWriter::open(root, &at, LogOptions::default())?;
                        writers.entry(node.to_owned()).or_insert(writer)
                    }
                };
                match writer.append(Some(node.as_bytes()), message, unix_ms())? {
                    Appended::At(_) => Ok(()),
                    Appended::Full { bytes, by } => Err(OutError::Full { bytes, by }),
                }
            }
        }
    }

    /// Waits until everything sent is safe.
    ///
    /// # Errors
    /// When the log did not take a message, or took too long.
    pub fn finish(&mut self) -> Result<(), OutError> {
        match self {
            Self::Kafka { producer, pending } => take_deliveries(producer, pending),
            // Readers see a record only once it is synced.
            Self::Spool { writers, .. } => Ok(writers.values_mut().try_for_each(LogWriter::sync)?),
        }
    }
}

/// Takes deliveries until none is pending.
fn take_deliveries(producer: &KafkaProducer, pending: &mut usize) -> Result<(), OutError> {
    let deadline = Instant::now() + ACKNOWLEDGE;
    while *pending > 0 {
        if Instant::now() > deadline {
            return Err(OutError::Unacknowledged { messages: *pending, seconds: ACKNOWLEDGE.as_secs() });
        }
        take_delivery(producer, pending, Duration::from_millis(100))?;
    }
    Ok(())
}

fn take_delivery(producer: &KafkaProducer, pending: &mut usize, timeout: Duration) -> Result<bool, OutError> {
    let Some(delivery) = producer.delivery(timeout) else { return Ok(false) };
    delivery.result.map_err(OutError::Refused)?;
    *pending -= 1;
    Ok(true)
}

/// Unix time, milliseconds.
pub fn unix_ms() -> i64 {
    unix_ns() / 1_000_000
}

/// Unix time, nanoseconds.
pub fn unix_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}
