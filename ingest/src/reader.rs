//! The thread that drives the log: reads, checks that the log is still the same one, decodes, and pauses the log when what was
//! read takes too much memory.
//!
//! A thread, because a Kafka consumer must be polled without pause however long a commit takes, or the group throws it out. So
//! it never waits for the service either: what the service has no room for stays here, and the log is paused meanwhile.
//!
//! Kafka's client follows a topic by name: after the topic was deleted and made anew it goes on at its old offset in the new
//! log. So a message is handed over only when the identity of its log was asked for after the message had been polled, and is
//! the one that reading began with. What follows behind this thread, tables included, deals with messages of one log only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_schema::codec::Codec;
use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};
use service_kit::admin::Condition;
use service_kit::clock::Clock;
use stream::{LogIdentity, Source, SourceEvent};
use tables::arrival::{Arrival, Rejection};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{Budget, Charged};
use crate::options::{OnGap, OnNewLog};

mod begin;
mod check;
mod error;

pub(crate) use begin::Position;
use check::Check;
pub(crate) use error::ReaderError;

/// How long one poll waits; bounds how late a command is obeyed.
const POLL: Duration = Duration::from_millis(20);
/// The same after the log has given nothing for [`QUIET_AFTER`].
const POLL_QUIET: Duration = Duration::from_millis(200);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Memory for the messages of one poll.
const POLL_BYTES: usize = 4 << 20;
/// Events on their way to the service. The budget bounds their bytes; this only bounds their number.
const EVENTS: usize = 64;

#[derive(Debug)]
pub(crate) enum FromLog {
    /// By their names in the log.
    Assigned(Vec<TopicPartition>),
    /// By their names in the log.
    Revoked(Vec<TopicPartition>),
    /// Reading has begun at `begin`, which is the position asked for or, when the log holds no more than that, its oldest
    /// message; `high` is the end of what could be read at that moment.
    Started {
        at: TopicPartition,
        begin: NextOffset,
        identity: String,
        high: NextOffset,
    },
    Arrivals(Vec<Charged>),
    /// Offsets that hold no message, behind the arrivals before.
    Skipped(OffsetRange),
    /// Offsets that are written and cannot be read because of an open transaction, by partition.
    Undecided(Vec<(TopicPartition, u64)>),
    /// The log behind this partition is another one now. All messages of the former log that were read have been handed over.
    Replaced(TopicPartition),
    Idle,
    Failed(ReaderError),
}

#[derive(Debug)]
pub(crate) enum ToLog {
    Start(Vec<Position>),
    Landed(Vec<(TopicPartition, NextOffset)>),
    /// What the service waits for before it names positions; `None` when nothing.
    Awaits(Option<String>),
}

/// What to do when the log is not as the tables expect it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    pub(crate) on_gap: OnGap,
    pub(crate) on_new_log: OnNewLog,
}

/// The running thread and the channels to it.
#[derive(Debug)]
pub(crate) struct ReaderThread {
    pub(crate) commands: Sender<ToLog>,
    pub(crate) events: tokio_mpsc::Receiver<FromLog>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread. It closes the log and ends when either channel is dropped.
pub(crate) fn spawn(
    source: Box<dyn Source>,
    budget: Budget,
    clock: Arc<dyn Clock>,
    rules: Rules,
    readable: Condition,
) -> Result<ReaderThread, ReaderError> {
    let (commands, obey) = channel();
    let (events, receive) = tokio_mpsc::channel(EVENTS);
    let reader = Reader::new(source, Intake { budget, clock }, rules, readable, Channels { obey, events });
    let thread = std::thread::Builder::new().name("log-reader".to_owned()).spawn(move || reader.run());
    Ok(ReaderThread { commands, events: receive, thread: thread.map_err(ReaderError::Thread)? })
}

/// What messages are charged with when they are decoded, and the time they get.
struct Intake {
    budget: Budget,
    clock: Arc<dyn Clock>,
}

/// The reader's ends of the channels to the service.
struct Channels {
    obey: Receiver<ToLog>,
    events: tokio_mpsc::Sender<FromLog>,
}

/// A partition that is being read.
#[derive(Debug)]
struct Open {
    /// Its name in the tables.
    log: TopicPartition,
    identity: String,
}

/// What the log gives, in order. Named as in the tables.
#[derive(Debug)]
enum Entry {
    Message(Message),
    Skip(OffsetRange),
    /// A change of what is ours.
    Group(FromLog),
}

impl Entry {
    fn at(&self) -> Option<&TopicPartition> {
        match self {
            Self::Message(message) => Some(&message.at),
            Self::Skip(range) => Some(&range.at),
            Self::Group(_) => None,
        }
    }
}

struct Reader {
    source: Box<dyn Source>,
    budget: Budget,
    clock: Arc<dyn Clock>,
    rules: Rules,
    /// Met while partitions can be started and read, and the identity of their logs is known.
    readable: Condition,
    obey: Receiver<ToLog>,
    events: tokio_mpsc::Sender<FromLog>,
    /// To be started; more than one only while the log is away.
    waiting: VecDeque<Position>,
    /// By the name in the log.
    started: BTreeMap<TopicPartition, Open>,
    /// The landed offsets last reported to the log, by partition name.
    reported: BTreeMap<TopicPartition, NextOffset>,
    /// Read, and not known to be of the same log yet.
    polled: VecDeque<Entry>,
    /// Their memory.
    polled_bytes: usize,
    /// Read and not decoded.
    confirmed: VecDeque<Entry>,
    check: Check,
    /// As reported last.
    undecided: Vec<(TopicPartition, u64)>,
    /// Partitions whose topic was made anew and is not read yet, by their names in the log.
    replacing: BTreeSet<TopicPartition>,
    /// Errors of the log that are believed once its identity is known.
    doubted: VecDeque<ReaderError>,
    /// Partitions whose log is another one now, by their names in the tables, with the evidence.
    replaced: VecDeque<(TopicPartition, ReaderError)>,
    /// Not handed over yet: the service is busy.
    outbox: VecDeque<FromLog>,
    /// What the service waits for.
    awaited: Option<String>,
    is_paused: bool,
    /// When the log gave something last.
    active: Instant,
}

/// The service is gone.
struct Gone;

impl Reader {
    fn new(
        source: Box<dyn Source>,
        Intake { budget, clock }: Intake,
        rules: Rules,
        readable: Condition,
        Channels { obey, events }: Channels,
    ) -> Self {
        Self {
            source,
            budget,
            clock,
            rules,
            readable,
            obey,
            events,
            waiting: VecDeque::new(),
            started: BTreeMap::new(),
            reported: BTreeMap::new(),
            polled: VecDeque::new(),
            polled_bytes: 0,
            confirmed: VecDeque::new(),
            check: Check::default(),
            undecided: Vec::new(),
            replacing: BTreeSet::new(),
            doubted: VecDeque::new(),
            replaced: VecDeque::new(),
            outbox: VecDeque::new(),
            awaited: None,
            is_paused: false,
            active: Instant::now(),
        }
    }

    fn run(mut self) {
        loop {
            match self.step() {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => return,
                Err(error) => {
                    let _ = self.events.blocking_send(FromLog::Failed(error));
                    return;
                }
            }
        }
    }

    fn step(&mut self) -> Result<Result<(), Gone>, ReaderError> {
        loop {
            match self.obey.try_recv() {
                Ok(ToLog::Start(positions)) => self.waiting.extend(positions),
                Ok(ToLog::Landed(positions)) => self.landed(positions),
                Ok(ToLog::Awaits(reason)) => self.awaited = reason,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(Err(Gone)),
            }
        }
        if self.check.is_due(self.polled.len(), self.polled_bytes) {
            self.confirm()?;
        }
        self.hand_over_replaced()?;
        self.start_next()?;
        self.show_state();
        // Only what the service does not take now is a reason to pause the log.
        if let Err(Gone) = self.deliver() {
            return Ok(Err(Gone));
        }
        self.balance()?;
        if self.outbox.is_empty() && !self.confirmed.is_empty() && !self.budget.is_exhausted() {
            let portion = self.next_portion();
            self.outbox.push_back(portion);
        } else {
            self.poll()?;
        }
        Ok(self.deliver())
    }

    /// Shows whether the log can be read, unless a reason why not was shown in this step.
    fn show_state(&self) {
        if self.check.is_failing() || !self.waiting.is_empty() {
            return;
        }
        match self.source.held_up().or_else(|| self.awaited.clone()) {
            Some(reason) => self.readable.unmet(reason),
            None => self.readable.met(),
        }
    }

    /// Nothing that was read waits here.
    fn is_drained(&self) -> bool {
        self.polled.is_empty() && self.confirmed.is_empty()
    }

    /// Asks which logs are behind the partitions now. What was polled before belongs to the logs that reading began with where
    /// these are still there; what was polled of others is dropped.
    fn confirm(&mut self) -> Result<(), ReaderError> {
        self.check.begin();
        let partitions: Vec<_> = self.started.keys().cloned().collect();
        let found = match self.source.identities(&partitions) {
            Ok(found) => found,
            Err(error) if error.is_transient() => {
                let reason = service_kit::run::in_a_line(&error);
                if !self.check.is_failing() {
                    tracing::warn!(reason, "the identity of the log is not known; reading is paused until it is");
                }
                let doubted = self.doubted.front().map(|error| format!("; {}", service_kit::run::in_a_line(error)));
                let doubted = doubted.unwrap_or_default();
                self.readable.unmet(format!("the identity of the log is not known: {reason}{doubted}"));
                self.check.fail();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.check.is_failing() {
            tracing::info!("the identity of the log is known again; reading goes on");
        }
        self.check.succeed();
        for (at, LogIdentity(found)) in partitions.into_iter().zip(found) {
            let Some(open) = self.started.get_mut(&at) else { continue };
            if LogIdentity::are_different(&open.identity, &found) {
                let expected = open.identity.clone();
                self.abandon(&at, ReaderError::Recreated { at: at.clone(), expected, found });
            } else if open.identity == LogIdentity::UNKNOWN {
                // The brokers give identities from now on.
                open.identity = found;
            }
        }
        self.confirmed.append(&mut self.polled);
        self.polled_bytes = 0;
        self.judge_doubted()?;
        let undecided = self.source.undecided();
        if undecided != self.undecided {
            self.undecided.clone_from(&undecided);
            self.outbox.push_back(FromLog::Undecided(undecided));
        }
        Ok(())
    }

    /// Stops reading a partition whose log is another one now. What was confirmed of the former log is still handed over.
    fn abandon(&mut self, at: &TopicPartition, evidence: ReaderError) {
        let Some(open) = self.started.remove(at) else { return };
        if matches!(evidence, ReaderError::Recreated { .. }) {
            self.replacing.insert(at.clone());
        }
        tracing::warn!(%at, "{evidence}");
        self.polled.retain(|entry| entry.at() != Some(&open.log));
        self.reported.remove(at);
        self.replaced.push_back((open.log, evidence));
        if let Err(error) = self.source.pause(std::slice::from_ref(at)) {
            tracing::debug!(%at, %error, "not paused");
        }
    }

    /// Says which logs were replaced, behind everything that was read of them.
    fn hand_over_replaced(&mut self) -> Result<(), ReaderError> {
        if !self.is_drained() || !self.outbox.is_empty() {
            return Ok(());
        }
        let Some((at, evidence)) = self.replaced.pop_front() else { return Ok(()) };
        if self.rules.on_new_log == OnNewLog::Stop {
            return Err(evidence);
        }
        self.outbox.push_back(FromLog::Replaced(at));
        Ok(())
    }

    fn poll(&mut self) -> Result<(), ReaderError> {
        let is_quiet = !self.is_paused && self.waiting.is_empty() && self.active.elapsed() >= QUIET_AFTER;
        let event = match self.source.poll(if is_quiet { POLL_QUIET } else { POLL }, POLL_BYTES) {
            Ok(event) => event,
            Err(error) => {
                self.poll_failed(error.into())?;
                SourceEvent::Idle
            }
        };
        if !matches!(event, SourceEvent::Idle) {
            self.active = Instant::now();
        }
        match event {
            SourceEvent::Assigned(partitions) => self.hand_over_in_order(FromLog::Assigned(partitions)),
            SourceEvent::Revoked(partitions) => self.revoked(partitions),
            SourceEvent::Messages(messages) => self.polled(messages),
            SourceEvent::Skipped(range) => {
                if let Some(open) = self.started.get(&range.at) {
                    let range = OffsetRange::new(open.log.clone(), range.start, range.end);
                    self.polled.push_back(Entry::Skip(range));
                }
            }
            SourceEvent::Idle if self.outbox.is_empty() && self.is_drained() => self.outbox.push_back(FromLog::Idle),
            SourceEvent::Idle => {}
        }
        Ok(())
    }

    fn polled(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            // Messages of a partition that was abandoned belong to another log.
            let Some(open) = self.started.get(&message.at) else { continue };
            message.at = open.log.clone();
            self.polled_bytes += message.held_bytes();
            self.polled.push_back(Entry::Message(message));
        }
    }

    /// An error that another log of the same name may explain is believed once the identity was asked for. Any other one is
    /// believed at once: a login that is refused, for example, is not answered with an identity either.
    fn poll_failed(&mut self, error: ReaderError) -> Result<(), ReaderError> {
        self.check.want();
        if matches!(&error, ReaderError::Source(error) if error.is_transient()) {
            return Ok(());
        }
        if !error.may_come_of_another_log() {
            return Err(error);
        }
        if self.doubted.iter().all(|doubted| doubted.partition() != error.partition()) {
            self.doubted.push_back(error);
        }
        Ok(())
    }

    /// Acts on errors that came before the identity was asked for.
    fn judge_doubted(&mut self) -> Result<(), ReaderError> {
        while let Some(error) = self.doubted.pop_front() {
            let Some(at) = error.partition().cloned() else {
                // A position of a topic that is gone may be the refused one. What truncated one partition may have truncated
                // others and they may have grown again: only a new start compares them with the tables.
                if error.is_refused_position() && !self.replacing.is_empty() {
                    tracing::info!(%error, "passed over: a log is another one");
                    self.source.read_on();
                    continue;
                }
                return Err(error);
            };
            let Some(open) = self.started.get(&at) else { continue };
            match error {
                ReaderError::Overtaken { next, .. } if self.rules.on_gap == OnGap::Record => {
                    // Begins anew, and says where.
                    if self.waiting.iter().all(|position| position.at != open.log) {
                        let log = open.log.clone();
                        let identity = Some(open.identity.clone());
                        self.waiting.push_back(Position { at: log, next, held: Some(next), mark: None, identity });
                    }
                }
                evidence if evidence.is_other_log() => self.abandon(&at, evidence),
                error => return Err(error),
            }
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>) {
        self.doubted.retain(|error| error.partition().is_none_or(|at| !partitions.contains(at)));
        let is_ours = |at: &TopicPartition| !partitions.contains(&at.without_generation());
        self.started.retain(|at, _| !partitions.contains(at));
        self.reported.retain(|at, _| !partitions.contains(at));
        self.waiting.retain(|position| is_ours(&position.at));
        self.replaced.retain(|(at, _)| is_ours(at));
        self.replacing.retain(is_ours);
        self.polled.retain(|entry| entry.at().is_none_or(is_ours));
        // What is known to be of the log the tables know may be nowhere else any more: it is handed over first.
        self.hand_over_in_order(FromLog::Revoked(partitions));
    }

    /// Reports a change of the assignment to the service, behind everything that was confirmed.
    fn hand_over_in_order(&mut self, change: FromLog) {
        if self.confirmed.is_empty() {
            self.outbox.push_back(change);
        } else {
            self.confirmed.push_back(Entry::Group(change));
        }
    }

    /// Hands over what the service has room for, and never waits for it.
    fn deliver(&mut self) -> Result<(), Gone> {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// The next of what was confirmed: messages, decoded, up to something else; or that.
    fn next_portion(&mut self) -> FromLog {
        let arrived_us = self.clock.now_ns().div_euclid(1_000);
        let mut arrivals = Vec::new();
        let mut bytes = 0;
        while bytes < self.budget.portion_bytes()
            && let Some(entry) = self.confirmed.pop_front()
        {
            match entry {
                Entry::Message(message) => {
                    let arrival = Charged::new(decode(message, arrived_us), &self.budget);
                    bytes += arrival.bytes();
                    arrivals.push(arrival);
                }
                Entry::Skip(range) if arrivals.is_empty() => return FromLog::Skipped(range),
                Entry::Group(change) if arrivals.is_empty() => return change,
                other => {
                    self.confirmed.push_front(other);
                    break;
                }
            }
        }
        FromLog::Arrivals(arrivals)
    }

    /// Positions are only a courtesy to lag tools and the spool: those of partitions lost meanwhile are left out, and a disk
    /// that is full is no reason to stop what may empty it.
    fn landed(&mut self, positions: Vec<(TopicPartition, NextOffset)>) {
        let mut fresh = Vec::new();
        for (log, next) in positions {
            let at = log.without_generation();
            let is_read = self.started.get(&at).is_some_and(|open| open.log == log);
            if is_read && self.reported.get(&at) != Some(&next) {
                fresh.push((at, next));
            }
        }
        match self.source.report(&fresh) {
            Ok(()) => self.reported.extend(fresh),
            Err(error) => {
                tracing::warn!(
                    reason = service_kit::run::report(&error),
                    "landed offsets were not reported to the log"
                );
            }
        }
    }

    fn balance(&mut self) -> Result<(), ReaderError> {
        let is_unconfirmed = self.check.is_failing() && !self.polled.is_empty();
        let must_rest = self.budget.is_exhausted() || !self.outbox.is_empty() || is_unconfirmed;
        let started = || self.started.keys().cloned().collect::<Vec<_>>();
        if !self.is_paused && must_rest {
            self.source.pause(&started())?;
            self.is_paused = true;
        } else if self.is_paused && !must_rest && self.budget.has_room() {
            self.source.resume(&started())?;
            self.is_paused = false;
            self.check.want();
        }
        Ok(())
    }
}

/// Decodes one message. The codec checks everything it reads; should it panic all the same, the message is a dead letter and
/// the rest of the log goes on.
fn decode(message: Message, arrived_us: i64) -> Arrival {
    let again = message.clone();
    catch_unwind(AssertUnwindSafe(|| Arrival::decode(message, arrived_us))).unwrap_or_else(|_| {
        tracing::error!(at = %again.at, offset = again.offset, "the decoder panicked; the message goes to the dead letters");
        let rejection = Rejection { cause: "decoder_panic", detail: "the decoder panicked on this message".to_owned() };
        let codec = Codec::of(&again);
        Arrival { message: again, arrived_us, codec, outcome: Err(rejection), fresh: Vec::new(), forwarded_to: None }
    })
}

#[cfg(test)]
mod tests;
