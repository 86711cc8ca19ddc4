//! The destination Kafka: messages take the same path as an agent's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::position::{NextOffset, TopicPartition};
use event_schema::topics;
use lake::Lake;
use service_kit::run::Drain;
use stream::kafka::{KafkaConfig, KafkaProducer, ProducerRecord, Sent};
use tables::seen::Seen;

use crate::compare::{Landed, Sample};
use crate::destination::{Destination, DestinationError};
use crate::landed;

/// How long one wait for an acknowledgement lasts before the drain is checked again.
const ACKNOWLEDGE_STEP: Duration = Duration::from_millis(100);
/// How long Kafka may take to acknowledge one full queue.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);
/// How often to look whether ingest has landed the messages.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Writes messages to `causeway.events.v1`. What has landed cannot be read from there: every row is sent, and ingest
/// drops repetitions. With the lake that ingest lands them in ([`Self::landing_in`]) it can, and
/// [`Destination::finish`] waits for it. Calls wait for acknowledgements and block their thread: a multi-threaded
/// runtime is required.
#[derive(Debug)]
pub struct ToKafka {
    producer: KafkaProducer,
    drain: Drain,
    sent: usize,
    acknowledged: usize,
    lake: Option<Lake>,
    /// Kinds of the rows that were sent.
    kinds: BTreeSet<RecordKind>,
    /// Behind the last acknowledged message of each partition.
    ends: BTreeMap<TopicPartition, NextOffset>,
}

impl ToKafka {
    /// Makes a producer; nothing is sent yet. `drain` ends every wait, whatever drain a later call is given.
    ///
    /// # Errors
    /// The configuration is refused by the client.
    pub fn open(config: &KafkaConfig, drain: &Drain) -> Result<Self, DestinationError> {
        let producer = KafkaProducer::open(config)?;
        let drain = drain.clone();
        let [sent, acknowledged] = [0, 0];
        let lake = None;
        Ok(Self { producer, drain, sent, acknowledged, lake, kinds: BTreeSet::new(), ends: BTreeMap::new() })
    }

    /// With the lake whose ingest reads this Kafka.
    #[must_use]
    pub fn landing_in(self, lake: Lake) -> Self {
        Self { lake: Some(lake), ..self }
    }

    /// Waits for the next acknowledgement.
    fn acknowledge(&mut self) -> Result<(), DestinationError> {
        // A limit for each acknowledgement, not for all: a slow broker that makes progress is waited for.
        let until = Instant::now() + ACKNOWLEDGE_WITHIN;
        loop {
            if let Some(delivery) = self.producer.delivery(ACKNOWLEDGE_STEP) {
                // The producer is idempotent and retries by itself: an error here is final.
                let placed = delivery.result?;
                let end = self.ends.entry(placed.0).or_default();
                *end = NextOffset(placed.1 + 1).max(*end);
                self.acknowledged += 1;
                return Ok(());
            }
            // After the acknowledgements that are there: a signal ends the waiting only.
            if self.drain.is_cancelled() {
                return Err(DestinationError::Interrupted);
            }
            if Instant::now() >= until {
                return Err(DestinationError::Unacknowledged {
                    missing: self.sent - self.acknowledged,
                    seconds: ACKNOWLEDGE_WITHIN.as_secs(),
                    reason: self.producer.last_error(),
                });
            }
        }
    }

    fn acknowledge_all(&mut self) -> Result<(), DestinationError> {
        while self.acknowledged < self.sent {
            self.acknowledge()?;
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for ToKafka {
    async fn landed(&mut self) -> Result<Seen, DestinationError> {
        match &self.lake {
            Some(lake) => Ok(landed::rows(lake).await?),
            // Empty: ingest deduplicates by the same keys, which follow from the rows alone and not from the lake
            // (ADR 21).
            None => Ok(Seen::new()),
        }
    }

    fn send(&mut self, kind: RecordKind, node: &str, message: &Bytes) -> Result<(), DestinationError> {
        // Keyed by node, as an agent's messages: all of a node go to one partition, whose order ingest needs. A full
        // queue is backpressure: an acknowledgement makes room, and the same message is sent again.
        while self.producer.send(topics::EVENTS, ProducerRecord::new(Some(node.as_bytes()), message), self.sent)?
            == Sent::Full
        {
            self.acknowledge()?;
        }
        self.sent += 1;
        self.kinds.insert(kind);
        Ok(())
    }

    async fn land(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        match self.lake {
            Some(_) => self.finish(drain).await,
            None => Ok(()),
        }
    }

    async fn landed_events(&mut self, sample: &Sample) -> Result<Landed, DestinationError> {
        match &self.lake {
            Some(lake) => Ok(landed::events(lake, sample).await?),
            None => Ok(Landed::unknown()),
        }
    }

    fn keep(&mut self) -> Result<(), DestinationError> {
        // Acknowledged messages are durable at the broker. The others are discarded with the producer: the next import
        // sends them again.
        Ok(())
    }

    async fn finish(&mut self, drain: &Drain) -> Result<(), DestinationError> {
        // Blocks on a channel for up to a minute per message: the runtime moves its other tasks off this thread.
        tokio::task::block_in_place(|| self.acknowledge_all())?;
        let Some(lake) = &self.lake else { return Ok(()) };
        while let Some((at, end)) = self.ends.first_key_value().map(|(at, end)| (at.clone(), *end)) {
            // An error leaves the partition among those that are waited for, so that a caller may wait again.
            while !landed::has_passed(lake, &self.kinds, &at, end).await? {
                tokio::select! {
                    () = drain.cancelled() => return Err(DestinationError::Interrupted),
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
            self.ends.remove(&at);
        }
        self.kinds.clear();
        Ok(())
    }
}
