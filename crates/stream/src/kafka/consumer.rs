//! Kafka as a [`Source`]: librdkafka fetches and keeps the membership in the group, the table gives the positions, the
//! sequencer checks.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use super::config::KafkaConfig;
use super::contact::diagnose;
use super::context::{Context, End, Rebalanced};
use super::message::{ASK_TIMEOUT, fingerprint_below, to_message};
use super::partitions::{among, list_add, to_list};
use super::{Fault, KafkaError, code_of, topic_id};
use crate::sequencer::{Sequencer, Verdict};
use crate::source::{Beginning, LogIdentity, Source, SourceError, SourceEvent, SourceStats, Watermarks};

mod missing;
mod rejoin;
mod together;

use missing::{Missing, READ_AGAIN_EVERY};
use rejoin::Rejoin;

/// How long the question for topic ids may take; shorter, as it is asked while messages are read.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long [`KafkaSource::open`] waits for a topic that a broker does not know: its metadata may be behind one made
/// just now.
const TOPIC_APPEARS: Duration = Duration::from_secs(2);

/// A member of a consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<Context>,
    config: KafkaConfig,
    sequencer: Sequencer,
    /// Partitions announced as assigned whose positions the owner has not named yet.
    announced: BTreeSet<TopicPartition>,
    /// Errors met together, or after messages that had to be delivered first.
    pending: VecDeque<SourceError>,
    missing: Missing,
    rejoin: Rejoin,
    /// The client had nothing more to give when it was asked last.
    is_drained: bool,
    /// Partitions that the owner has paused.
    paused: BTreeSet<TopicPartition>,
    /// Positions that the client was refused and has stopped to fetch at: it reports how many, not which.
    refused_positions: usize,
    /// Partitions whose position was found outside the log. They are not fetched before their owner starts them.
    outside: BTreeSet<TopicPartition>,
    /// Every partition is to be fetched anew with the next poll: some position was refused, and it is not known which;
    /// the owner has asked for it; or a resume met a rebalance that was not polled yet.
    must_fetch_anew: bool,
    /// That the brokers give topics no ids.
    is_without_ids_logged: bool,
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
    /// [`KafkaError::Unreachable`] after `connect_timeout_ms`, naming the address; [`KafkaError::Refused`] for a bad
    /// login; [`KafkaError::UnknownTopic`].
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let consumer = config.consumer().create_with_context(Context::default());
        let consumer: BaseConsumer<Context> = consumer.map_err(|source| config.failed("set up a consumer", source))?;
        for topic in &config.topics {
            must_exist(config, &consumer, topic)?;
        }
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|source| config.failed("subscribe", source))?;
        Ok(Self { topics: topics.into_iter().map(Arc::from).collect(), ..Self::of(consumer, config.clone()) })
    }

    fn of(consumer: BaseConsumer<Context>, config: KafkaConfig) -> Self {
        Self {
            consumer,
            config,
            sequencer: Sequencer::default(),
            announced: BTreeSet::new(),
            pending: VecDeque::new(),
            missing: Missing::default(),
            rejoin: Rejoin::default(),
            is_drained: false,
            paused: BTreeSet::new(),
            refused_positions: 0,
            outside: BTreeSet::new(),
            must_fetch_anew: false,
            is_without_ids_logged: false,
            topics: Vec::new(),
        }
    }

    fn failed(&self, action: &'static str, source: ClientError) -> SourceError {
        self.config.failed(action, source).into()
    }

    /// The next change of what is ours, if the callbacks left one.
    fn take_rebalanced(&mut self) -> Option<SourceEvent> {
        match self.consumer.context().take_rebalanced()? {
            // The callback has answered it already: there is nothing to start.
            Rebalanced::Assigned(partitions) if partitions.is_empty() => self.take_rebalanced(),
            Rebalanced::Assigned(partitions) => {
                self.announced.extend(partitions.iter().cloned());
                Some(SourceEvent::Assigned(partitions))
            }
            Rebalanced::Revoked(partitions) => {
                for at in &partitions {
                    // From here on messages of the partition that are still queued are stale.
                    self.sequencer.revoke(at);
                    self.announced.remove(at);
                    self.paused.remove(at);
                    self.forget(at);
                }
                // The refused position may be one of a revoked partition.
                self.must_fetch_anew |= self.refused_positions > 0;
                Some(SourceEvent::Revoked(partitions))
            }
        }
    }

    /// Discards what was read of a partition.
    fn forget(&mut self, at: &TopicPartition) {
        self.missing.forget(at);
        self.rejoin.forget(at);
        self.outside.remove(at);
    }

    /// Judges a message and keeps it if it is the expected one, or lies behind offsets that are missing.
    fn admit(
        sequencer: &mut Sequencer,
        rejoin: &mut Rejoin,
        topics: &[Arc<str>],
        message: &BorrowedMessage<'_>,
    ) -> Admitted {
        // The name is shared, not copied for every message.
        let topic = topics.iter().find(|topic| ***topic == *message.topic()).cloned();
        let at = TopicPartition::new(topic.unwrap_or_else(|| Arc::from(message.topic())), message.partition());
        // Before the sequencer, which would drop it as a replay: the message that is compared lies below the expected
        // offset.
        if rejoin.awaits(&at, message.offset()) {
            let message = to_message(at, message);
            return if rejoin.is_same(&message) { Admitted::Dropped } else { Admitted::Other(message.at) };
        }
        match sequencer.admit(&at, message.offset()) {
            Verdict::Take => {
                let message = to_message(at, message);
                rejoin.note(&message);
                Admitted::Next(message)
            }
            Verdict::Replay | Verdict::Stale => Admitted::Dropped,
            Verdict::Gap { expected } => {
                let missing = OffsetRange::new(at.clone(), expected.0, message.offset());
                Admitted::Behind(missing, to_message(at, message))
            }
        }
    }

    /// Has the client fetch partitions that go on at these positions, except those that the owner has paused.
    ///
    /// A partition that is not to be fetched is not assigned to the client. The client's own pauses are not used. It
    /// would notice a resumed partition up to a second late, because a start wakes the thread of a broker and a resume
    /// does not. It keeps a pause over assignments. It can lose a resume that meets an assignment (librdkafka 2.12,
    /// `rd_kafka_toppar_pause_resume`; librdkafka#5591). The price is that a start waits for commits of group offsets
    /// under way.
    fn fetch(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        // The partitions may be among what was just revoked.
        if self.consumer.context().has_rebalanced() {
            return Err(SourceError::Rebalanced);
        }
        let mut all = TopicPartitionList::new();
        let mut list = TopicPartitionList::new();
        for (at, next) in positions {
            all.add_partition(&at.topic, at.partition);
            if !self.paused.contains(at) {
                let from = self.rejoin.begin(at, *next);
                list_add(&mut list, at, from).map_err(|source| self.failed("set a position", source))?;
            }
        }
        // librdkafka refuses to add a partition that is assigned already (`ERR__CONFLICT`).
        self.stop_fetching(&all)?;
        // The client takes any list, an empty one too, for the answer to a rebalance that is still to be polled.
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_assign(&list).map_err(|source| self.failed("fetch", source))
    }

    /// Drops what the client has fetched of partitions, and has it fetch them no more.
    fn stop_fetching(&self, partitions: &TopicPartitionList) -> Result<(), SourceError> {
        // librdkafka refuses the whole list over one partition that is not assigned.
        let assigned = self.consumer.assignment().map_err(|source| self.failed("stop fetching", source))?;
        let list = among(partitions, &assigned);
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_unassign(&list).map_err(|source| self.failed("stop fetching", source))
    }

    /// What the client has: a change of what is ours, or messages, the first of which is waited for.
    fn take(&mut self, timeout: Duration, max_bytes: usize) -> Result<Option<SourceEvent>, SourceError> {
        self.is_drained = false;
        let deadline = Instant::now() + timeout;
        let mut messages = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes.max(1) {
            // Messages that were taken before a rebalance are returned before it.
            if messages.is_empty()
                && let Some(event) = self.take_rebalanced()
            {
                return Ok(Some(event));
            }
            // The first message is waited for; after it only what is queued already is taken.
            let left =
                if messages.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.poll_client(left) {
                Some(Ok(Admitted::Next(message))) => {
                    bytes += message.held_bytes();
                    messages.push(message);
                }
                Some(Ok(Admitted::Dropped)) => {}
                Some(Ok(Admitted::Other(partition))) => {
                    let next = self.sequencer.expected(&partition).unwrap_or_default();
                    self.pending.push_back(SourceError::Rewritten { partition, next });
                    break;
                }
                Some(Ok(Admitted::Behind(missing, message))) => {
                    self.keep_back(missing, message);
                    break;
                }
                Some(Err(error)) => match self.judge(error) {
                    Some(error) if messages.is_empty() => return Err(error),
                    // Reported by the next poll, behind the messages in front of it.
                    Some(error) => {
                        self.pending.push_back(error);
                        break;
                    }
                    None => {}
                },
                // The rebalance callback ran within this poll.
                None if messages.is_empty() && self.consumer.context().has_rebalanced() => break,
                None if left.is_zero() => {
                    self.is_drained = true;
                    break;
                }
                None => {}
            }
        }
        if !messages.is_empty() {
            return Ok(Some(SourceEvent::Messages(messages)));
        }
        Ok(self.take_rebalanced())
    }

    /// What the client gives within `time`, judged.
    fn poll_client(&mut self, time: Duration) -> Option<Result<Admitted, ClientError>> {
        let polled = self.consumer.poll(time)?;
        Some(polled.map(|message| Self::admit(&mut self.sequencer, &mut self.rejoin, &self.topics, &message)))
    }

    /// The error of the source that a client error stands for; `None` when the client or the broker recovers from it. A
    /// topic that is unknown for a while is not an error here: the owner asks for its identity.
    fn judge(&mut self, error: ClientError) -> Option<SourceError> {
        // The instance is unusable, whatever the code: for example fenced by another member of the same
        // `group.instance.id`.
        if matches!(error, ClientError::MessageConsumptionFatal(_)) {
            return Some(self.failed("consume", error));
        }
        let code = code_of(&error)?;
        match Fault::of(code) {
            Fault::Position => {
                self.refused_positions += 1;
                None
            }
            // One broker of several may have an expired certificate; at the start the reason is reported.
            Fault::Access if code == Code::SSL => None,
            Fault::Access => Some(self.config.refused(self.consumer.context().last_error()).into()),
            // The client leaves out what it cannot read and goes on behind it.
            Fault::Damage | Fault::Message => Some(self.failed("read messages, which are damaged,", error)),
            Fault::Permanent | Fault::Fatal => Some(self.failed("consume", error)),
            Fault::Transient | Fault::Identity | Fault::Notice => None,
        }
    }

    /// Finds the partitions whose position the log does not hold: the client's error does not name them, and reports
    /// each only once. A broker that is away is asked again by the next poll. A refusal that no position explains is
    /// reported as well: the client fetches that partition no more, and what was cut off the log may have been written
    /// anew up to the position.
    fn check_positions(&mut self) {
        // A partition that is no longer ours may be the refused one.
        if self.consumer.context().has_rebalanced() {
            return;
        }
        // A fetch of all partitions repeats every refusal: the count begins anew.
        if std::mem::take(&mut self.must_fetch_anew) {
            self.refused_positions = 0;
            return self.fetch_all_anew();
        }
        let positions: Vec<_> = self.sequencer.positions().map(|(at, next)| (at.clone(), next)).collect();
        let mut found = Vec::new();
        for (at, next) in positions {
            match self.check_position(&at, next) {
                Ok(()) => {}
                Err(error) if error.is_transient() => return,
                Err(error) => {
                    self.outside.insert(at);
                    found.push(error);
                }
            }
        }
        // The client has counted more refusals than there are positions outside their logs.
        if found.len() < std::mem::take(&mut self.refused_positions) {
            // A message that is awaited lies below its partition's position: retention may have deleted it.
            let awaited = self.rejoin.give_up();
            if awaited.is_empty() {
                found.push(SourceError::Refused);
            } else if let Err(error) = self.fetch_on(&awaited) {
                found.push(error);
            }
        }
        self.pending.extend(found);
    }

    /// Has the client fetch every partition from its next offset on: a position that is refused again is reported
    /// again.
    fn fetch_all_anew(&mut self) {
        let all: Vec<_> = self.sequencer.positions().map(|(at, _)| at.clone()).collect();
        if let Err(error) = self.fetch_on(&all) {
            self.pending.push_back(error);
        }
    }

    /// Has the client fetch partitions from their next offsets on, as far as they are started and their positions are
    /// in the log. A partition with missing offsets follows once these are known.
    fn fetch_on(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        let mut positions = Vec::new();
        for at in partitions {
            if !self.outside.contains(at) && !self.missing.note_stopped(at) {
                positions.extend(self.sequencer.expected(at).map(|next| (at.clone(), next)));
            }
        }
        match self.fetch(&positions) {
            // A rebalance is still to be polled: after it the next poll fetches again.
            Err(error) if error.is_transient() => self.must_fetch_anew = true,
            fetched => return fetched,
        }
        Ok(())
    }

    /// Checks that a position lies within the log as it is now.
    fn check_position(&mut self, at: &TopicPartition, next: NextOffset) -> Result<(), SourceError> {
        let watermarks = self.watermarks(at)?;
        within(at, next, watermarks)
    }
}

/// Checks that a position lies within the log.
fn within(at: &TopicPartition, next: NextOffset, Watermarks { low, high }: Watermarks) -> Result<(), SourceError> {
    let partition = at.clone();
    if next < low {
        return Err(SourceError::Retention { partition, next, low });
    }
    if next > high {
        return Err(SourceError::Truncated { partition, next, high });
    }
    Ok(())
}

/// What becomes of one message of the client.
enum Admitted {
    Next(Message),
    Dropped,
    /// It is not the one that was taken at its offset before.
    Other(TopicPartition),
    /// These offsets are missing in front of it.
    Behind(OffsetRange, Message),
}

impl Source for KafkaSource {
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<SourceEvent, SourceError> {
        let deadline = Instant::now() + timeout;
        loop {
            // A client that has lost all brokers may never connect again by itself (`known.rs`).
            self.consumer.context().known_brokers().restore(self.consumer.client(), &self.config.brokers);
            if self.refused_positions > 0 || self.must_fetch_anew {
                self.check_positions();
            }
            if let Some(error) = self.pending.pop_front() {
                return Err(error);
            }
            if let Some(event) = self.pass_missing()? {
                return Ok(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // The readings are looked at in between, and the client's queue is waited for as long as the owner asks.
            let slice = if self.missing.is_reading() { left.min(READ_AGAIN_EVERY) } else { left };
            if let Some(event) = self.take(slice, max_bytes)? {
                return Ok(event);
            }
            if Instant::now() >= deadline {
                return Ok(SourceEvent::Idle);
            }
        }
    }

    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        // What is to be started may be among what was just revoked.
        if self.consumer.context().has_rebalanced() {
            return Err(SourceError::Rebalanced);
        }
        for (at, _) in positions {
            if self.sequencer.expected(at).is_none() && !self.announced.contains(at) {
                return Err(SourceError::NotAssigned(at.clone()));
            }
        }
        // All positions are checked before any state changes: an error leaves no partition started.
        let partitions: Vec<_> = positions.iter().map(|(at, _)| at.clone()).collect();
        for ((at, next), watermarks) in positions.iter().zip(self.all_watermarks(&partitions)?) {
            within(at, *next, watermarks)?;
        }
        let mut paused = Vec::new();
        for (at, next) in positions {
            self.announced.remove(at);
            self.forget(at);
            self.sequencer.assign(at.clone(), *next);
            // A partition that is started is fetched, whether it was paused before or not.
            paused.extend(self.paused.take(at));
        }
        let fetched = self.fetch(positions);
        if fetched.is_err() {
            // The start is repeated later: until then the pause holds.
            self.paused.extend(paused);
        }
        fetched
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.paused.extend(partitions.iter().cloned());
        for at in partitions {
            // A partition with a message that is kept back is fetched on behind that message (`resolve`), not by
            // `resume`.
            self.missing.note_stopped(at);
        }
        self.stop_fetching(&to_list(partitions))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.paused.retain(|at| !partitions.contains(at));
        // Fetched now, a position that was refused and not checked yet would be refused twice.
        if self.refused_positions > 0 {
            self.check_positions();
        }
        if self.refused_positions > 0 {
            self.must_fetch_anew = true;
            return Ok(());
        }
        self.fetch_on(partitions)
    }

    fn report(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        for (at, next) in positions {
            list_add(&mut list, at, *next).map_err(|source| self.failed("report a position", source))?;
        }
        // Only lag tools read group offsets, and the broker refuses a commit during a rebalance: the next report
        // repeats it.
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
        let mut found = self.identities(std::slice::from_ref(at))?;
        found.pop().ok_or_else(|| self.failed("describe a topic", ClientError::AdminOp(Code::UnknownTopicOrPartition)))
    }

    fn identities(&mut self, partitions: &[TopicPartition]) -> Result<Vec<LogIdentity>, SourceError> {
        // One request for all partitions: an id belongs to a topic.
        let topics: BTreeSet<&str> = partitions.iter().map(|at| &*at.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let ids = topic_id::describe(self.consumer.client(), &topics, IDENTITY_TIMEOUT);
        let ids = ids.map_err(|source| self.failed("describe a topic", source))?;
        if ids.values().any(|id| id == LogIdentity::UNKNOWN)
            && !std::mem::replace(&mut self.is_without_ids_logged, true)
        {
            tracing::warn!(
                "the brokers give topics no ids: a topic that is made anew is noticed only by its messages; Kafka 2.8 or later gives ids"
            );
        }
        let unknown = || self.failed("describe a topic", ClientError::AdminOp(Code::UnknownTopicOrPartition));
        let id = |at: &TopicPartition| ids.get(&*at.topic).map(|id| LogIdentity(id.clone())).ok_or_else(unknown);
        partitions.iter().map(id).collect()
    }

    fn fingerprint(&mut self, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, SourceError> {
        let watermarks = self.watermarks(at)?;
        Ok(fingerprint_below(&self.config, at, next, watermarks)?)
    }

    fn beginnings(&mut self, asked: &[(TopicPartition, Option<NextOffset>)]) -> Result<Vec<Beginning>, SourceError> {
        self.ask_together(asked)
    }

    fn undecided(&self) -> Vec<(TopicPartition, u64)> {
        let ends = self.consumer.context().ends();
        let undecided = |(at, _): (&TopicPartition, NextOffset)| {
            let End { stable, high, .. } = *ends.get(at)?;
            Some((at.clone(), u64::try_from(high - stable).unwrap_or(0)))
        };
        self.sequencer.positions().filter_map(undecided).collect()
    }

    fn read_on(&mut self) {
        self.must_fetch_anew = true;
    }

    fn held_up(&self) -> Option<String> {
        self.missing.trouble()
    }

    fn stats(&self) -> SourceStats {
        self.sequencer.stats()
    }
}

/// Waits a moment for a topic that the broker does not know.
fn must_exist(config: &KafkaConfig, consumer: &BaseConsumer<Context>, topic: &str) -> Result<(), KafkaError> {
    let deadline = Instant::now() + TOPIC_APPEARS.min(config.connect_timeout());
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), config.connect_timeout());
        let metadata = metadata.map_err(|source| diagnose(config, consumer, source))?;
        let is_unknown = |error: RDKafkaRespErr| Fault::of(Code::from(error)) == Fault::Identity;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.is_some_and(|found| !found.error().is_some_and(is_unknown)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(KafkaError::UnknownTopic { topic: topic.to_owned(), brokers: config.brokers.clone() });
        }
        // A broker answers from its own copy of the metadata, which may be behind the controller.
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests;
