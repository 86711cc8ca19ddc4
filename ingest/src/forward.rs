//! Messages on their way to the partition they belong to. The tables take a message as forwarded only when the log has
//! acknowledged its copy; a copy written twice is a repetition there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use service_kit::admin::Condition;
use service_kit::run::Drain;
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer, Rejection, Sent};
use tables::arrival::Arrival;

use crate::metrics::Metrics;
use crate::patience::Patience;

/// The header of a copy that names where the message was read: `topic/partition:offset`.
const FROM: &str = "causeway.forwarded-from";
/// How long one wait for an acknowledgement lasts; bounds how late the end of ingest is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// Why messages are not forwarded yet.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("no producer can be set up")]
    Producer(#[from] KafkaError),
    #[error("kafka does not take messages that ingest forwards to {topic}; ingest needs the right to write there")]
    Refused {
        topic: Arc<str>,
        #[source]
        reason: Rejection,
    },
}

/// A message that was met in another partition than the one it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Stray {
    message: Message,
    home: TopicPartition,
}

impl Stray {
    pub(crate) fn of(arrival: &Arrival) -> Option<Self> {
        let home = arrival.forwarded_to.clone()?;
        Some(Self { message: arrival.message.clone(), home })
    }
}

/// Writes copies to partitions of the topics that are read.
pub(crate) struct Forwarder {
    config: KafkaConfig,
    /// Opened with the first message that needs it: most lakes never do.
    producer: Mutex<Option<KafkaProducer>>,
    reachable: Condition,
    metrics: Metrics,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// `config` names the topics that are read.
    pub(crate) fn new(config: KafkaConfig, reachable: Condition, metrics: Metrics) -> Self {
        reachable.met();
        Self { config, producer: Mutex::default(), reachable, metrics }
    }

    /// Whether a partition exists and is read by this group. Asks a broker.
    pub(crate) fn reads(&self, at: &TopicPartition) -> Result<bool, KafkaError> {
        if !self.config.topics.iter().any(|topic| **topic == *at.topic) {
            return Ok(false);
        }
        let partitions = self.with_producer(|producer| producer.partitions(&at.topic))??;
        Ok(usize::try_from(at.partition).is_ok_and(|partition| partition < partitions))
    }

    /// Writes a copy of each message that belongs elsewhere, and returns when all are acknowledged, or when `abandoned`. A
    /// broker that is away or refuses is waited for.
    pub(crate) async fn forward(self: Arc<Self>, strays: Vec<Stray>, abandoned: Drain) {
        let strays: Arc<[Stray]> = strays.into();
        let mut left: Vec<usize> = (0..strays.len()).collect();
        let reachable = self.reachable.clone();
        let mut patience = Patience::new(&reachable);
        while !left.is_empty() && !abandoned.is_cancelled() {
            let this = Arc::clone(&self);
            let these = Arc::clone(&strays);
            let stop = abandoned.clone();
            let tried = tokio::task::spawn_blocking(move || this.try_forward(&these, &left, &stop)).await;
            let (failed, error) = tried.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
            left = failed;
            if let Some(error) = error {
                patience.wait("forwarding messages to their partitions", &error).await;
            }
        }
        self.metrics.forwarded.inc_by((strays.len() - left.len()) as u64);
    }

    /// Sends the messages at `turn`; returns those that were not acknowledged, and why.
    fn try_forward(&self, strays: &[Stray], turn: &[usize], abandoned: &Drain) -> (Vec<usize>, Option<ForwardError>) {
        let sent = self.with_producer(|producer| self.send(producer, strays, turn, abandoned));
        let (failed, error) = sent.unwrap_or_else(|error| (turn.to_vec(), Some(error.into())));
        if matches!(error, Some(ForwardError::Producer(_))) {
            // The client may have given this producer up for good.
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        (failed, error)
    }

    fn send(
        &self,
        producer: &KafkaProducer,
        strays: &[Stray],
        turn: &[usize],
        abandoned: &Drain,
    ) -> (Vec<usize>, Option<ForwardError>) {
        let mut failed = Vec::new();
        let mut error = None;
        let mut pending = 0_usize;
        let mut turn = turn.iter().copied().peekable();
        while (turn.peek().is_some() || pending > 0) && !abandoned.is_cancelled() {
            let is_full = match turn.peek().and_then(|i| Some((*i, strays.get(*i)?))) {
                Some((i, stray)) => match send_copy(producer, stray, i) {
                    Ok(Sent::Queued) => {
                        turn.next();
                        pending += 1;
                        false
                    }
                    Ok(Sent::Full) => true,
                    Err(reason) => {
                        failed.extend(turn.next());
                        error = Some(reason.into());
                        false
                    }
                },
                None => true,
            };
            let wait = if is_full { LOOK } else { Duration::ZERO };
            let Some(delivery) = producer.delivery(wait) else {
                if is_full && pending > 0 {
                    self.still_waiting(producer);
                }
                continue;
            };
            pending = pending.saturating_sub(1);
            if let Err(reason) = delivery.result {
                failed.push(delivery.token);
                error = Some(ForwardError::Refused { topic: reason.topic.as_str().into(), reason });
            }
        }
        failed.extend(turn);
        (failed, error)
    }

    fn still_waiting(&self, producer: &KafkaProducer) {
        let reason = producer.last_error().unwrap_or_else(|| "no acknowledgement yet".to_owned());
        self.reachable.unmet(format!("messages are being forwarded to their partitions: {reason}"));
    }

    fn with_producer<T>(&self, use_it: impl FnOnce(&KafkaProducer) -> T) -> Result<T, KafkaError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match producer.take() {
            Some(producer) => producer,
            None => KafkaProducer::open(&self.config)?,
        };
        Ok(use_it(producer.insert(opened)))
    }
}

fn send_copy(producer: &KafkaProducer, stray: &Stray, token: usize) -> Result<Sent, KafkaError> {
    let Stray { message, home } = stray;
    let from = (FROM.to_owned(), Bytes::from(format!("{}:{}", message.at, message.offset)));
    let headers: Vec<_> = message.headers.iter().cloned().chain([from]).collect();
    producer.send_to(home, message.key.as_deref(), &message.payload, &headers, token)
}
