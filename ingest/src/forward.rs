//! Messages on their way to the partition they belong to. The tables take a message as forwarded only when the log has
//! acknowledged its copy; a copy written twice is a repetition there. One that cannot be copied, for it is too large
//! there or its partition is gone, becomes a dead letter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use service_kit::admin::Condition;
use service_kit::run::{Drain, in_a_line};
use stream::kafka::{KafkaConfig, KafkaError, KafkaProducer, ProducerRecord, Rejection, Sent};
use tables::arrival::Arrival;

use crate::metrics::Metrics;
use crate::retry::Retry;

/// The header of a copy that names where the message was read: `topic/partition:offset`.
const FROM: &str = "causeway.forwarded-from";
/// The cause of a dead letter that could not be copied to the partition it belongs to.
pub(crate) const NOT_FORWARDED: &str = "not_forwarded";
/// How long one wait for an acknowledgement lasts; bounds how late the end of ingest is noticed.
const LOOK: Duration = Duration::from_millis(500);
/// How long a partition must be unknown, without another answer, until it counts as gone: a topic that is being made
/// anew is unknown for a moment.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long an answer may take until it does not follow the one before: the client itself looks for a topic for 30 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Why messages are not forwarded yet.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("kafka does not take messages that ingest forwards")]
    Producer(#[from] KafkaError),
    #[error("kafka does not take messages that ingest forwards to {topic}; ingest needs the right to write there")]
    Refused {
        topic: Arc<str>,
        #[source]
        reason: Rejection,
    },
}

impl ForwardError {
    /// Whether this message can never be taken, while others can.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Producer(error) => matches!(error, KafkaError::TooLarge { .. }),
            Self::Refused { reason, .. } => reason.is_permanent(),
        }
    }

    /// Whether the partition does not exist, according to the broker that was asked.
    fn is_unknown_place(&self) -> bool {
        match self {
            Self::Producer(error) => error.is_unknown_place(),
            Self::Refused { reason, .. } => reason.is_unknown_place(),
        }
    }
}

/// Messages whose partition was unknown in every recent answer, by their place among the strays.
#[derive(Debug, Default)]
struct Unknown(BTreeMap<usize, Answers>);

/// The first and the last of several equal answers in a row.
#[derive(Debug, Clone, Copy)]
struct Answers {
    first: Instant,
    last: Instant,
}

impl Unknown {
    /// Whether a message will not be taken however often it is tried: its partition was unknown for [`GONE_AFTER`].
    /// Another answer, or none for long, begins that time anew.
    fn is_final(&mut self, index: usize, error: &ForwardError, now: Instant) -> bool {
        if !error.is_unknown_place() {
            // Any other answer breaks the row: a broker that has just come back may not have the topic in its metadata
            // yet.
            self.0.remove(&index);
            return error.is_permanent();
        }
        let answers = self.0.entry(index).or_insert(Answers { first: now, last: now });
        if now.saturating_duration_since(answers.last) > SILENCE {
            answers.first = now;
        }
        answers.last = now;
        now.saturating_duration_since(answers.first) >= GONE_AFTER
    }
}

/// A message that was met in another partition than the one it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Stray {
    /// Its place among the arrivals of the batch.
    pub(crate) index: usize,
    message: Message,
    home: TopicPartition,
}

impl Stray {
    pub(crate) fn of((index, arrival): (usize, &Arrival)) -> Option<Self> {
        let home = arrival.forwarded_to.clone()?;
        Some(Self { index, message: arrival.message.clone(), home })
    }
}

/// Copies that were not acknowledged, by their place among the strays.
#[derive(Debug, Default)]
struct Unsent {
    failed: Vec<(usize, ForwardError)>,
    /// Not tried.
    left: Vec<usize>,
}

/// Writes copies to partitions of the topics that are read.
pub(crate) struct Forwarder {
    config: KafkaConfig,
    /// Opened with the first message that needs it: most lakes never forward one.
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

    /// How many partitions a topic has now. Asks a broker; 0 when this group does not read the topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<usize, KafkaError> {
        if !self.config.topics.iter().any(|read| read == topic) {
            return Ok(0);
        }
        self.with_producer(|producer| producer.partitions(topic))?
    }

    /// Writes a copy of each message that belongs elsewhere, and returns when all are acknowledged, or when
    /// `abandoned`. A broker that is away is waited for. Returns the messages that can never be copied, with the
    /// reasons.
    pub(crate) async fn forward(self: Arc<Self>, strays: Vec<Stray>, abandoned: Drain) -> Vec<(Stray, String)> {
        let mut unknown = Unknown::default();
        let mut left: Vec<usize> = (0..strays.len()).collect();
        let strays: Arc<[Stray]> = strays.into();
        let mut refused = Vec::new();
        let reachable = self.reachable.clone();
        let mut retry = Retry::new(&reachable);
        while !left.is_empty() && !abandoned.is_cancelled() {
            let this = Arc::clone(&self);
            let these = Arc::clone(&strays);
            let stop = abandoned.clone();
            // On a thread of its own: waiting for acknowledgements blocks.
            let tried = tokio::task::spawn_blocking(move || this.try_forward(&these, &left, &stop)).await;
            let Unsent { failed, left: untried } =
                tried.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
            left = untried;
            let now = Instant::now();
            let (given_up, again): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(index, error)| unknown.is_final(*index, error, now));
            let given_up = given_up.iter().filter_map(|(index, error)| Some((strays.get(*index)?, error)));
            refused.extend(given_up.map(|(stray, error)| (stray.clone(), in_a_line(error))));
            // A copy may have been written although it was not acknowledged. Its home drops the second one as a
            // repetition.
            left.extend(again.iter().map(|(index, _)| *index));
            if let Some((_, error)) = again.last() {
                retry.wait("forwarding messages to their partitions", error).await;
            }
        }
        refused
    }

    /// Sends the messages at `turn`; returns those that were not acknowledged.
    fn try_forward(&self, strays: &[Stray], turn: &[usize], abandoned: &Drain) -> Unsent {
        let sent = self.with_producer(|producer| self.send(producer, strays, turn, abandoned));
        let unsent = sent.unwrap_or_else(|error| match turn.split_first() {
            // No producer could be opened: one error is enough for the retry, the others were not tried.
            Some((first, rest)) => Unsent { failed: vec![(*first, error.into())], left: rest.to_vec() },
            None => Unsent::default(),
        });
        if unsent.failed.iter().any(|(_, error)| matches!(error, ForwardError::Producer(_))) {
            // It may be a fatal error, after which an idempotent producer takes nothing any more: the next attempt
            // opens a new one.
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        unsent
    }

    fn send(&self, producer: &KafkaProducer, strays: &[Stray], turn: &[usize], abandoned: &Drain) -> Unsent {
        let mut unsent = Unsent::default();
        let mut pending = 0_usize;
        let mut turn = turn.iter().copied().peekable();
        while (turn.peek().is_some() || pending > 0) && !abandoned.is_cancelled() {
            // All are queued, or the queue is full: only then a delivery is waited for.
            let is_full = match turn.peek().and_then(|i| Some((*i, strays.get(*i)?))) {
                Some((i, stray)) => match send_copy(producer, stray, i) {
                    Ok(Sent::Queued) => {
                        turn.next();
                        pending += 1;
                        false
                    }
                    Ok(Sent::Full) => true,
                    Err(reason) => {
                        turn.next();
                        unsent.failed.push((i, reason.into()));
                        false
                    }
                },
                None => true,
            };
            let wait = if is_full { LOOK } else { Duration::ZERO };
            let delivery = producer.delivery(wait);
            if delivery.is_none() && is_full && pending > 0 {
                self.still_waiting(producer);
            }
            let Some(delivery) = delivery else { continue };
            pending = pending.saturating_sub(1);
            match delivery.result {
                Ok(_) => {
                    self.metrics.forwarded.inc();
                }
                Err(reason) => {
                    let topic = reason.topic.as_str().into();
                    unsent.failed.push((delivery.token, ForwardError::Refused { topic, reason }));
                }
            }
        }
        unsent.left = turn.collect();
        unsent
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
    let Stray { message, home, .. } = stray;
    // Key, payload and headers stay as they were: the home decides about the copy as about the message.
    let from = (FROM.to_owned(), Bytes::from(format!("{}:{}", message.at, message.offset)));
    let headers: Vec<_> = message.headers.iter().cloned().chain([from]).collect();
    producer.send_to(home, ProducerRecord { headers: &headers, ..ProducerRecord::of(message) }, token)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use service_kit::admin::Readiness;

    use super::*;

    /// As at the end of ingest while a broker is away.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_was_abandoned_before_it_was_acknowledged_does_not_count_as_forwarded() {
        let kafka =
            KafkaConfig { brokers: "127.0.0.1:1".to_owned(), topics: vec!["t".to_owned()], ..KafkaConfig::default() };
        let readiness = Readiness::new();
        let metrics = Metrics::new(&mut Registry::default());
        let forwarder = Arc::new(Forwarder::new(kafka, readiness.condition("forward", ""), metrics.clone()));
        let at = TopicPartition::new("t", 0);
        let (key, payload, headers) = (None, Bytes::from_static(b"x"), Vec::new());
        let message = Message { at, offset: 3, timestamp_ms: 0, key, payload, headers };
        let stray = Stray { index: 0, message, home: TopicPartition::new("t", 1) };
        let abandoned = Drain::new();
        let forwarding = tokio::spawn(forwarder.forward(vec![stray], abandoned.clone()));
        // Shown once the copy is queued and its acknowledgement is waited for.
        while readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        abandoned.cancel();
        assert!(forwarding.await.unwrap().is_empty(), "it is not refused");
        assert_eq!(metrics.forwarded.get(), 0);
    }

    fn unknown_place() -> ForwardError {
        KafkaError::UnknownTopic { topic: "t".to_owned(), brokers: "b".to_owned() }.into()
    }

    fn away() -> ForwardError {
        let waited = Duration::from_secs(10);
        KafkaError::Unreachable { brokers: "b".to_owned(), waited, last_error: None }.into()
    }

    #[test]
    fn a_message_that_is_too_large_is_given_up_at_once_and_one_that_may_not_be_written_never() {
        let (mut unknown, now) = (Unknown::default(), Instant::now());
        let too_large = KafkaError::TooLarge { topic: "t".to_owned(), bytes: 9, limit: 8 }.into();
        assert!(unknown.is_final(0, &too_large, now));
        let refused = KafkaError::Refused { brokers: "b".to_owned(), last_error: None }.into();
        assert!(!unknown.is_final(0, &refused, now) && !unknown.is_final(0, &refused, now + 2 * GONE_AFTER));
    }

    #[test]
    fn a_partition_counts_as_gone_once_every_answer_of_a_while_says_that_it_is_unknown() {
        let (mut unknown, began) = (Unknown::default(), Instant::now());
        let half = GONE_AFTER / 2;
        assert!(!unknown.is_final(0, &unknown_place(), began));
        assert!(!unknown.is_final(0, &unknown_place(), began + half));
        assert!(unknown.is_final(0, &unknown_place(), began + 2 * half));
    }

    /// A broker that comes back may not know the topic at first, however long it was away.
    #[test]
    fn the_time_for_which_a_partition_is_unknown_begins_anew_after_any_other_answer_and_after_silence() {
        let (mut unknown, began) = (Unknown::default(), Instant::now());
        assert!(!unknown.is_final(0, &away(), began));
        assert!(!unknown.is_final(0, &unknown_place(), began + 2 * GONE_AFTER), "the first such answer");
        let half = GONE_AFTER / 2;
        assert!(!unknown.is_final(0, &away(), began + 2 * GONE_AFTER + half));
        assert!(!unknown.is_final(0, &unknown_place(), began + 3 * GONE_AFTER));
        assert!(!unknown.is_final(0, &unknown_place(), began + 5 * GONE_AFTER), "no answer came in between");
        assert!(!unknown.is_final(1, &unknown_place(), began + 6 * GONE_AFTER), "another message");
    }
}
