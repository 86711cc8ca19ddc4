//! Kafka as a [`Source`]: librdkafka fetches and keeps the group, the table says where to read, the sequencer checks.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::config::KafkaConfig;
use super::contact::diagnose;
use super::context::{Context, Rebalanced};
use super::{KafkaError, code_of, topic_id};
use crate::sequencer::{Sequencer, Verdict};
use crate::source::{GapError, LogIdentity, Source, SourceError, SourceEvent, SourceStats, Watermarks, fingerprint};

/// How long a question to the broker (watermarks, identity, one message) may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A member of a consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<Context>,
    config: KafkaConfig,
    sequencer: Sequencer,
    /// Partitions announced as assigned whose positions the owner has not named yet.
    announced: BTreeSet<TopicPartition>,
    /// Errors met together, or after messages that had to be delivered first.
    pending: VecDeque<SourceError>,
    /// Positions that the client was refused and has stopped to fetch at: it tells how many, not which.
    refused_positions: usize,
    topics: Vec<Arc<str>>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource")
            .field("config", &self.config)
            .field("sequencer", &self.sequencer)
            .finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Connects, checks that the topics exist, and joins the group.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] after `connect_timeout_ms`, naming the address; [`KafkaError::Refused`] for a bad login;
    /// [`KafkaError::UnknownTopic`].
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<Context> = config
            .consumer()
            .create_with_context(Context::default())
            .map_err(|source| config.failed("set up a consumer", source))?;
        for topic in &config.topics {
            let metadata = consumer.fetch_metadata(Some(topic), config.connect_timeout());
            let metadata = metadata.map_err(|source| diagnose(config, &consumer, source))?;
            let known = metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none());
            if !known {
                return Err(KafkaError::UnknownTopic { topic: topic.clone(), brokers: config.brokers.clone() });
            }
        }
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|source| config.failed("subscribe", source))?;
        Ok(Self {
            consumer,
            topics: topics.into_iter().map(Arc::from).collect(),
            config: config.clone(),
            sequencer: Sequencer::default(),
            announced: BTreeSet::new(),
            pending: VecDeque::new(),
            refused_positions: 0,
        })
    }

    fn failed(&self, action: &'static str, source: ClientError) -> SourceError {
        self.config.failed(action, source).into()
    }

    /// The next change of what is ours, if the callbacks left one.
    fn take_rebalanced(&mut self) -> Option<SourceEvent> {
        match self.consumer.context().take_rebalanced()? {
            Rebalanced::Assigned(partitions) if partitions.is_empty() => self.take_rebalanced(),
            Rebalanced::Assigned(partitions) => {
                self.announced.extend(partitions.iter().cloned());
                Some(SourceEvent::Assigned(partitions))
            }
            Rebalanced::Revoked(partitions) => {
                for at in &partitions {
                    self.sequencer.revoke(at);
                    self.announced.remove(at);
                }
                Some(SourceEvent::Revoked(partitions))
            }
        }
    }

    /// Judges a message and keeps it if it is the expected one.
    fn admit(
        sequencer: &mut Sequencer,
        topics: &[Arc<str>],
        message: &BorrowedMessage<'_>,
    ) -> Result<Option<Message>, GapError> {
        let topic = topics.iter().find(|topic| ***topic == *message.topic()).cloned();
        let at = TopicPartition::new(topic.unwrap_or_else(|| Arc::from(message.topic())), message.partition());
        match sequencer.admit(&at, message.offset()) {
            Verdict::Take => Ok(Some(to_message(at, message))),
            Verdict::Replay | Verdict::Stale => Ok(None),
            Verdict::Gap { expected } => {
                Err(GapError { partition: at, expected, got: message.offset(), low_watermark: None })
            }
        }
    }

    /// What a client error means here; `None` when it mends itself.
    fn judge(&mut self, error: ClientError) -> Option<SourceError> {
        let code = code_of(&error);
        if matches!(error, ClientError::MessageConsumptionFatal(_)) {
            return Some(self.failed("consume", error));
        }
        match code {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                self.refused_positions += 1;
                None
            }
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::GroupAuthorizationFailed
                | Code::TopicAuthorizationFailed,
            ) => Some(self.config.refused(self.consumer.context().last_error()).into()),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => Some(
                KafkaError::UnknownTopic { topic: self.config.topics.join(", "), brokers: self.config.brokers.clone() }
                    .into(),
            ),
            // A broker that is away, a coordinator that moves, a member that was too slow: the client tries again.
            _ => None,
        }
    }

    /// Finds the partitions whose position the log does not hold: the client's error does not name them, and tells each only
    /// once. A broker that is away is asked again by the next poll. A refusal that no position explains is told as well: the
    /// client fetches that partition no more, and what was cut off the log may have been written anew up to the position.
    fn check_positions(&mut self) {
        let positions: Vec<_> = self.sequencer.positions().map(|(at, next)| (at.clone(), next)).collect();
        let mut found = Vec::new();
        for (at, next) in positions {
            match self.check_position(&at, next) {
                Ok(()) => {}
                Err(error) if error.is_transient() => return,
                Err(error) => found.push(error),
            }
        }
        if found.len() < std::mem::take(&mut self.refused_positions) {
            found.push(SourceError::Refused);
        }
        self.pending.extend(found);
    }

    fn check_position(&mut self, at: &TopicPartition, next: NextOffset) -> Result<(), SourceError> {
        let Watermarks { low, high } = self.watermarks(at)?;
        let partition = at.clone();
        if next < low {
            return Err(SourceError::Retention { partition, next, low });
        }
        if next > high {
            return Err(SourceError::Truncated { partition, next, high });
        }
        Ok(())
    }

    fn with_low_watermark(&mut self, mut gap: GapError) -> SourceError {
        gap.low_watermark = self.watermarks(&gap.partition).ok().map(|watermarks| watermarks.low);
        gap.into()
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<SourceEvent, SourceError> {
        if self.refused_positions > 0 {
            self.check_positions();
        }
        if let Some(error) = self.pending.pop_front() {
            return Err(error);
        }
        let deadline = Instant::now() + timeout;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes.max(1) {
            if messages.is_empty()
                && let Some(event) = self.take_rebalanced()
            {
                return Ok(event);
            }
            let left =
                if messages.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let error = match self.consumer.poll(left) {
                Some(Ok(message)) => match Self::admit(&mut self.sequencer, &self.topics, &message) {
                    Ok(message) => {
                        bytes += message.as_ref().map_or(0, |message| message.payload.len());
                        messages.extend(message);
                        continue;
                    }
                    Err(gap) => Some(self.with_low_watermark(gap)),
                },
                Some(Err(error)) => self.judge(error),
                None if !messages.is_empty() || self.consumer.context().has_rebalanced() => break,
                None if left.is_zero() => break,
                None => None,
            };
            match error {
                Some(error) if messages.is_empty() => return Err(error),
                Some(error) => {
                    self.pending.push_back(error);
                    break;
                }
                None => {}
            }
        }
        if !messages.is_empty() {
            return Ok(SourceEvent::Messages(messages));
        }
        Ok(self.take_rebalanced().unwrap_or(SourceEvent::Idle))
    }

    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        // What is to be started may be among what was just revoked.
        if self.consumer.context().has_rebalanced() {
            return Err(SourceError::Rebalanced);
        }
        let (mut fresh, mut again) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (at, next) in positions {
            let list = match self.sequencer.expected(at) {
                Some(_) => &mut again,
                None if self.announced.contains(at) => &mut fresh,
                None => return Err(SourceError::NotAssigned(at.clone())),
            };
            self.check_position(at, *next)?;
            let added = list_add(list, at, *next);
            added.map_err(|source| self.failed("set a position", source))?;
        }
        if again.count() > 0 {
            let stopped = self.consumer.incremental_unassign(&again);
            stopped
                .and_then(|()| self.consumer.incremental_assign(&again))
                .map_err(|source| self.failed("start again", source))?;
        }
        if fresh.count() > 0 {
            self.consumer.incremental_assign(&fresh).map_err(|source| self.failed("start", source))?;
        }
        // librdkafka remembers a pause over assignments; here a pause ends with the assignment it was made in.
        for list in [&again, &fresh] {
            self.consumer.resume(list).map_err(|source| self.failed("resume", source))?;
        }
        for (at, next) in positions {
            self.announced.remove(at);
            self.sequencer.assign(at.clone(), *next);
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.consumer.pause(&to_list(partitions)).map_err(|source| self.failed("pause", source))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.consumer.resume(&to_list(partitions)).map_err(|source| self.failed("resume", source))
    }

    fn report(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        for (at, next) in positions {
            list_add(&mut list, at, *next).map_err(|source| self.failed("report a position", source))?;
        }
        // Only lag tools read it: a group that is just rebalancing may refuse it.
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "group offsets not reported");
        }
        Ok(())
    }

    fn watermarks(&mut self, at: &TopicPartition) -> Result<Watermarks, SourceError> {
        let found = self.consumer.fetch_watermarks(&at.topic, at.partition, ASK_TIMEOUT);
        let (low, high) = found.map_err(|source| self.failed("read watermarks", source))?;
        Ok(Watermarks { low: NextOffset(low), high: NextOffset(high) })
    }

    fn identity(&mut self, at: &TopicPartition) -> Result<LogIdentity, SourceError> {
        let id = topic_id::describe(self.consumer.client(), &at.topic, ASK_TIMEOUT);
        Ok(LogIdentity(id.map_err(|source| self.failed("describe a topic", source))?))
    }

    fn fingerprint(&mut self, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, SourceError> {
        let Watermarks { low, high } = self.watermarks(at)?;
        if next <= low || next > high {
            return Ok(None);
        }
        read_one(&self.config, at, next.0 - 1).map(|found| found.as_ref().map(fingerprint)).map_err(SourceError::from)
    }

    fn stats(&self) -> SourceStats {
        self.sequencer.stats()
    }
}

/// Reads one message through a consumer of its own, so that the group's positions stay untouched.
fn read_one(config: &KafkaConfig, at: &TopicPartition, offset: i64) -> Result<Option<Message>, KafkaError> {
    let read = || -> Result<Option<Message>, ClientError> {
        let consumer: BaseConsumer<Context> = config.consumer().create_with_context(Context::default())?;
        let mut list = TopicPartitionList::new();
        list_add(&mut list, at, NextOffset(offset))?;
        consumer.assign(&list)?;
        let deadline = Instant::now() + ASK_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(message) = consumer.poll(Duration::from_millis(100)).transpose()? {
                return Ok((message.offset() == offset).then(|| to_message(at.clone(), &message)));
            }
        }
        Err(ClientError::MessageConsumption(Code::OperationTimedOut))
    };
    read().map_err(|source| config.failed("read a message", source))
}

/// Copies a message out of the client's memory.
fn to_message(at: TopicPartition, message: &BorrowedMessage<'_>) -> Message {
    Message {
        at,
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(Bytes::copy_from_slice),
        payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
        headers: message.headers().map_or_else(Vec::new, to_headers),
    }
}

/// rdkafka 0.39 panics on a header whose name is not UTF-8, which any producer may send: such a header is left out.
fn to_headers(headers: &impl Headers) -> Vec<(String, Bytes)> {
    let header = |index| {
        let found = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        let header = found.ok().flatten()?;
        Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice).unwrap_or_default()))
    };
    (0..headers.count()).filter_map(header).collect()
}

fn list_add(list: &mut TopicPartitionList, at: &TopicPartition, next: NextOffset) -> Result<(), ClientError> {
    list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))
}

fn to_list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

#[cfg(test)]
mod tests;
