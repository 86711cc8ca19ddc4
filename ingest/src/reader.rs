//! The thread that drives the log: reads, checks that the log is still the same one, decodes, and pauses the log when what was
//! read takes too much memory.
//!
//! A thread, because a Kafka consumer must be polled without pause however long a commit takes, or the group throws it out. So
//! it never waits for the service either: what the service has no room for stays here, and the log is paused meanwhile.
//!
//! Kafka's client follows a topic by name: after the topic was deleted and made anew it goes on at its old offset in the new
//! log. So a message is handed over only when the identity of its log was asked for after the message had been polled, and is
//! the one that reading began with. What follows behind this thread, tables included, deals with messages of one log only.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};
use service_kit::admin::Condition;
use stream::{Source, SourceError, SourceEvent, Watermarks};
use tables::arrival::{Arrival, Rejection};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::hand::{Budget, bytes_of};
use crate::mark::Mark;
use crate::service::{OnGap, OnNewLog};

mod check;
mod error;

use check::Check;
pub(crate) use error::ReaderError;

/// How long one poll waits; bounds how late a command is obeyed.
const POLL: Duration = Duration::from_millis(20);
/// The same after the log has given nothing for [`QUIET_AFTER`].
const POLL_QUIET: Duration = Duration::from_millis(200);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Payload read by one poll.
const POLL_BYTES: usize = 4 << 20;
/// Events on their way to the service. The budget bounds their bytes; this only bounds their number.
const EVENTS: usize = 64;

/// Where to begin, and what the log there should look like.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// The partition's name in the tables.
    pub(crate) at: TopicPartition,
    pub(crate) next: NextOffset,
    /// Lowest offset among the tables that have seen the log: what lies behind it must not be missed. `None` when none has.
    pub(crate) held: Option<NextOffset>,
    /// The log as the tables know it; absent when they have never seen it.
    pub(crate) mark: Option<Mark>,
    /// The identity of the log that this run has read from, when it begins anew.
    pub(crate) identity: Option<String>,
}

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
    Arrivals(Vec<Arrival>),
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
    rules: Rules,
    readable: Condition,
) -> Result<ReaderThread, ReaderError> {
    let (commands, obey) = channel();
    let (events, receive) = tokio_mpsc::channel(EVENTS);
    let reader = Reader {
        source,
        budget,
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
        is_replacing: false,
        doubted: VecDeque::new(),
        replaced: VecDeque::new(),
        outbox: VecDeque::new(),
        is_paused: false,
        active: Instant::now(),
    };
    let thread = std::thread::Builder::new().name("log-reader".to_owned()).spawn(move || reader.run());
    Ok(ReaderThread { commands, events: receive, thread: thread.map_err(ReaderError::Thread)? })
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
    rules: Rules,
    /// Met while partitions can be started and the identity of their logs is known.
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
    /// Their payload.
    polled_bytes: usize,
    /// Read and not decoded.
    confirmed: VecDeque<Entry>,
    check: Check,
    /// As reported last.
    undecided: Vec<(TopicPartition, u64)>,
    /// A log was found to be another one, and that one is not read yet.
    is_replacing: bool,
    /// Errors of the log that are believed once its identity is known.
    doubted: VecDeque<ReaderError>,
    /// Partitions whose log is another one now, by their names in the tables, with the evidence.
    replaced: VecDeque<(TopicPartition, ReaderError)>,
    /// Not handed over yet: the service is busy.
    outbox: VecDeque<FromLog>,
    is_paused: bool,
    /// When the log gave something last.
    active: Instant,
}

/// The service is gone.
struct Gone;

impl Reader {
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
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(Err(Gone)),
            }
        }
        if self.check.is_due(self.polled.len(), self.polled_bytes) {
            self.confirm()?;
        }
        self.hand_over_replaced()?;
        self.start_next()?;
        self.balance()?;
        if self.outbox.is_empty() && !self.confirmed.is_empty() && !self.budget.is_exhausted() {
            let portion = self.next_portion();
            self.outbox.push_back(portion);
        } else {
            self.poll();
        }
        Ok(self.deliver())
    }

    /// Nothing that was read waits here.
    fn is_drained(&self) -> bool {
        self.polled.is_empty() && self.confirmed.is_empty()
    }

    /// Asks which logs are behind the partitions now. What was polled before belongs to the logs that reading began with where
    /// these are still there; what was polled of others is dropped.
    fn confirm(&mut self) -> Result<(), ReaderError> {
        self.check.asked = Some(Instant::now());
        let partitions: Vec<_> = self.started.keys().cloned().collect();
        let found = match self.source.identities(&partitions) {
            Ok(found) => found,
            Err(error) if error.is_transient() => {
                let reason = service_kit::run::in_a_line(&error);
                if !self.check.is_failing {
                    tracing::warn!(reason, "the identity of the log is not known; reading is paused until it is");
                }
                self.readable.unmet(format!("the identity of the log is not known: {reason}"));
                self.check.is_failing = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.check.is_failing {
            tracing::info!("the identity of the log is known again; reading goes on");
        }
        (self.check.is_failing, self.check.is_wanted) = (false, false);
        for (at, found) in partitions.into_iter().zip(found) {
            let expected = self.started.get(&at).map(|open| open.identity.clone());
            if let Some(expected) = expected.filter(|expected| *expected != found.0) {
                self.abandon(&at, ReaderError::Recreated { at: at.clone(), expected, found: found.0 });
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
        self.is_replacing = true;
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

    fn start_next(&mut self) -> Result<(), ReaderError> {
        // What was read before a gap is handed over before the place is told at which reading goes on behind it.
        if !self.is_drained() {
            return Ok(());
        }
        let Some(position) = self.waiting.pop_front() else {
            if !self.check.is_failing {
                self.readable.met();
            }
            return Ok(());
        };
        match self.start(&position) {
            Ok(started) => self.outbox.push_back(started),
            // Revoked since it was asked for, or not polled yet that it is.
            Err(ReaderError::Source(SourceError::NotAssigned(at))) => tracing::debug!(%at, "no longer ours"),
            Err(ReaderError::Source(SourceError::Rebalanced)) => self.waiting.push_back(position),
            Err(ReaderError::Source(error)) if error.is_transient() => {
                let (at, reason) = (&position.at, service_kit::run::report(&error));
                tracing::warn!(%at, reason, "reading cannot begin yet; trying again");
                self.readable.unmet(format!("{at} cannot be read yet: {reason}"));
                self.waiting.push_back(position);
            }
            Err(evidence) if evidence.is_other_log() => {
                tracing::warn!(at = %position.at, "{evidence}");
                self.started.remove(&position.at.without_generation());
                self.replaced.push_back((position.at, evidence));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn poll(&mut self) {
        let is_quiet = !self.is_paused && self.waiting.is_empty() && self.active.elapsed() >= QUIET_AFTER;
        let event = match self.source.poll(if is_quiet { POLL_QUIET } else { POLL }, POLL_BYTES) {
            Ok(event) => event,
            Err(error) => {
                self.poll_failed(error.into());
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
    }

    fn polled(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            // Messages of a partition that was abandoned belong to another log.
            let Some(open) = self.started.get(&message.at) else { continue };
            message.at = open.log.clone();
            self.polled_bytes += message.payload.len();
            self.polled.push_back(Entry::Message(message));
        }
    }

    /// An error may come from another log of the same name: the identity is asked for before the error is believed.
    fn poll_failed(&mut self, error: ReaderError) {
        self.check.is_wanted = true;
        let is_transient = matches!(&error, ReaderError::Source(error) if error.is_transient());
        let is_known = self.doubted.iter().any(|doubted| doubted.partition() == error.partition());
        if !is_transient && !is_known {
            self.doubted.push_back(error);
        }
    }

    /// Acts on errors that came before the identity was asked for.
    fn judge_doubted(&mut self) -> Result<(), ReaderError> {
        while let Some(error) = self.doubted.pop_front() {
            let Some(at) = error.partition().cloned() else {
                // It names no partition, and there is one that explains it.
                if self.is_replacing {
                    tracing::info!(%error, "passed over: the log is another one");
                    continue;
                }
                return Err(error);
            };
            let Some(open) = self.started.get(&at) else { continue };
            match error {
                ReaderError::Overtaken { next, .. } if self.rules.on_gap == OnGap::Record => {
                    // Begins anew, and says where.
                    if self.waiting.iter().all(|position| position.at != open.log) {
                        let (log, identity) = (open.log.clone(), Some(open.identity.clone()));
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
        let (mut arrivals, mut bytes) = (Vec::new(), 0);
        while bytes < self.budget.portion_bytes()
            && let Some(entry) = self.confirmed.pop_front()
        {
            match entry {
                Entry::Message(message) => {
                    let arrival = decode(message);
                    bytes += bytes_of(&arrival);
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
        self.budget.charge(bytes);
        FromLog::Arrivals(arrivals)
    }

    /// Begins to read a partition, after checking that the log is still the one the tables were filled from.
    fn start(&mut self, position: &Position) -> Result<FromLog, ReaderError> {
        let at = position.at.without_generation();
        let identity = self.source.identity(&at)?.0;
        if let Some(expected) = position.identity.clone().filter(|expected| *expected != identity) {
            return Err(ReaderError::Recreated { at, expected, found: identity });
        }
        let Watermarks { low, high } = self.source.watermarks(&at)?;
        if let Some(mark) = &position.mark {
            self.compare(&at, mark, &identity)?;
        }
        let misses_nothing = position.held.is_none_or(|held| held >= low);
        let may_skip = misses_nothing || self.rules.on_gap == OnGap::Record;
        let begin = if may_skip { position.next.max(low) } else { position.next };
        self.source.start(&[(at.clone(), begin)])?;
        if self.is_paused {
            self.source.pause(std::slice::from_ref(&at))?;
        }
        self.started.insert(at, Open { log: position.at.clone(), identity: identity.clone() });
        self.is_replacing &= !self.waiting.is_empty();
        // Said again for the partitions that are read now.
        self.undecided.clear();
        Ok(FromLog::Started { at: position.at.clone(), begin, identity, high })
    }

    fn compare(&mut self, at: &TopicPartition, mark: &Mark, identity: &str) -> Result<(), ReaderError> {
        let (at, next) = (at.clone(), mark.next);
        if mark.identity != identity {
            return Err(ReaderError::Recreated { at, expected: mark.identity.clone(), found: identity.to_owned() });
        }
        let end = self.source.end(&at)?;
        if next > end {
            return Err(ReaderError::Truncated { at, next, end });
        }
        let found = self.source.fingerprint(&at, next)?;
        // A message that retention has deleted can no longer be compared.
        if found.is_some() && mark.fingerprint.is_some() && found != mark.fingerprint {
            return Err(ReaderError::Rewritten { at, next });
        }
        Ok(())
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
        let is_unconfirmed = self.check.is_failing && !self.polled.is_empty();
        let must_rest = self.budget.is_exhausted() || !self.outbox.is_empty() || is_unconfirmed;
        let started = || self.started.keys().cloned().collect::<Vec<_>>();
        if !self.is_paused && must_rest {
            self.source.pause(&started())?;
            self.is_paused = true;
        } else if self.is_paused && !must_rest && self.budget.has_room() {
            self.source.resume(&started())?;
            self.is_paused = false;
            self.check.is_wanted = true;
        }
        Ok(())
    }
}

/// Decodes one message. The codec checks everything it reads; should it panic all the same, the message is a dead letter and
/// the rest of the log goes on.
fn decode(message: Message) -> Arrival {
    let again = message.clone();
    catch_unwind(AssertUnwindSafe(|| Arrival::decode(message))).unwrap_or_else(|_| {
        tracing::error!(at = %again.at, offset = again.offset, "the decoder panicked; the message goes to the dead letters");
        let rejection = Rejection { cause: "decoder_panic", detail: "the decoder panicked on this message".to_owned() };
        Arrival { message: again, outcome: Err(rejection), fresh: Vec::new(), forwarded_to: None }
    })
}

#[cfg(test)]
mod tests;
