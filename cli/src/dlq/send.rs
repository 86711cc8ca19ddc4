//! Where replayed messages go: the spool of an embedded lake, or Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_schema::kind::RecordKind;
use event_schema::position::Message;
use service_kit::run::{Drain, Exit, Fatal, note, report};
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer, ProducerRecord, Rejection, Sent};

use crate::import::spool::{SpoolError, ToSpool};
use crate::place::{Place, PlaceError};

/// How long one wait for an acknowledgement lasts before the drain is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// How long Kafka may take for the next acknowledgement.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);

/// Why messages were not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("kafka cannot be written")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("kafka did not acknowledge {missing} messages within {} s{}: replay again, nothing lands twice", ACKNOWLEDGE_WITHIN.as_secs(), reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Unacknowledged { missing: usize, reason: Option<String> },
    #[error("interrupted: replay again for the rest, nothing lands twice")]
    Interrupted,
}

impl Fatal for SendError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Interrupted | Self::Spool(SpoolError::Interrupted) => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }
}

/// Takes messages in order.
#[derive(Debug)]
pub(super) enum Sender {
    Spool(Box<ToSpool>),
    Kafka(Box<ToTopics>),
}

impl Sender {
    pub(super) async fn open(place: &Place, drain: &Drain) -> Result<Self, SendError> {
        match place {
            Place::Embedded(dir) => {
                let dir = dir.existing().map_err(SendError::Place)?;
                Ok(Self::Spool(Box::new(ToSpool::open(dir, drain).await?)))
            }
            Place::Remote(remote) => Ok(Self::Kafka(Box::new(ToTopics::open(&remote.kafka, drain)?))),
        }
    }

    pub(super) fn send(&mut self, kind: RecordKind, message: &Message) -> Result<(), SendError> {
        match self {
            Self::Spool(spool) => Ok(spool.replay(kind, message)?),
            Self::Kafka(topics) => topics.send(message),
        }
    }

    /// Returns once what was sent has landed (spool) or is acknowledged (Kafka). After an error what was appended is
    /// made durable, and nothing is waited for.
    pub(super) async fn finish(&mut self, drain: &Drain, all_sent: bool) -> Result<(), SendError> {
        match self {
            Self::Spool(spool) if all_sent => Ok(spool.finish_landing(drain).await?),
            Self::Spool(spool) => {
                // The error of the sending is the one that is reported.
                if let Err(error) = spool.sync() {
                    note(&report(&error));
                }
                Ok(())
            }
            Self::Kafka(topics) if all_sent => tokio::task::block_in_place(|| topics.acknowledge_all()),
            Self::Kafka(_) => Ok(()),
        }
    }
}

/// Writes messages to the topics and partitions that they came from.
#[derive(Debug)]
pub(super) struct ToTopics {
    producer: KafkaProducer,
    drain: Drain,
    /// How many partitions each topic has.
    partitions: BTreeMap<Arc<str>, usize>,
    sent: usize,
    acknowledged: usize,
}

impl ToTopics {
    fn open(config: &KafkaConfig, drain: &Drain) -> Result<Self, SendError> {
        let producer = KafkaProducer::open(config)?;
        Ok(Self { producer, drain: drain.clone(), partitions: BTreeMap::new(), sent: 0, acknowledged: 0 })
    }

    fn send(&mut self, message: &Message) -> Result<(), SendError> {
        // The log of today, if it was made anew since.
        let home = message.at.without_generation();
        let partitions = self.partitions_of(&home.topic)?;
        let has_home = usize::try_from(home.partition).is_ok_and(|partition| partition < partitions);
        loop {
            let record = ProducerRecord::of(message);
            // Where it was, since its agent's other messages are there. A topic with fewer partitions has a place for
            // its key, and ingest forwards it from there.
            let sent = match has_home {
                true => self.producer.send_to(&home, record, self.sent)?,
                false => self.producer.send(&home.topic, record, self.sent)?,
            };
            match sent {
                Sent::Queued => break,
                // Backpressure: an acknowledgement makes room.
                Sent::Full => tokio::task::block_in_place(|| self.acknowledge())?,
            }
        }
        self.sent += 1;
        Ok(())
    }

    fn partitions_of(&mut self, topic: &Arc<str>) -> Result<usize, SendError> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let found = tokio::task::block_in_place(|| self.producer.partitions(topic))?;
        self.partitions.insert(Arc::clone(topic), found);
        Ok(found)
    }

    /// Waits for the next acknowledgement.
    fn acknowledge(&mut self) -> Result<(), SendError> {
        let until = Instant::now() + ACKNOWLEDGE_WITHIN;
        loop {
            if let Some(delivery) = self.producer.delivery(LOOK) {
                // The producer retries by itself: an error here is final.
                delivery.result?;
                self.acknowledged += 1;
                return Ok(());
            }
            if self.drain.is_cancelled() {
                return Err(SendError::Interrupted);
            }
            if Instant::now() >= until {
                let missing = self.sent - self.acknowledged;
                return Err(SendError::Unacknowledged { missing, reason: self.producer.last_error() });
            }
        }
    }

    fn acknowledge_all(&mut self) -> Result<(), SendError> {
        while self.acknowledged < self.sent {
            self.acknowledge()?;
        }
        Ok(())
    }
}
