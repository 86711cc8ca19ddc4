//! The thread that drives the log: it reads, checks that the log is still the same one, decodes, and pauses the log
//! when what was read takes too much memory.
//!
//! It is a thread of its own, because a Kafka consumer must be polled within `max.poll.interval.ms` however long a
//! commit takes; otherwise the group removes the member. For the same reason it never waits for the service: what the
//! service has no room for stays here, and the log is paused meanwhile (backpressure).
//!
//! Kafka's client follows a topic by name: after the topic was deleted and made anew, the client goes on at its old
//! offset in the new log. So a message is handed over only when the identity of its log was asked for after the message
//! had been polled, and is the one that reading began with. What comes after this thread, tables included, receives
//! messages of one log only.

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
use stream::{Source, SourceEvent};
use tables::arrival::{Arrival, Rejection};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{Budget, Charged};
use crate::options::{OnGap, OnNewLog};

mod begin;
mod check;
mod confirm;
mod error;

pub(crate) use begin::Position;
use check::Check;
pub(crate) use error::ReaderError;

/// How long one poll waits. It bounds the delay of a command.
const POLL: Duration = Duration::from_millis(20);
/// How long one poll waits after the log has given nothing for [`QUIET_AFTER`]: an idle process wakes up less often.
const POLL_QUIET: Duration = Duration::from_millis(200);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Memory for the messages of one poll.
const POLL_BYTES: usize = 4 << 20;
/// Events on their way to the service. The budget bounds their bytes; this bounds their number only.
const EVENTS: usize = 64;

#[derive(Debug)]
pub(crate) enum FromLog {
    /// Partitions that are to be read from now on, by their names in the log.
    Assigned(Vec<TopicPartition>),
    /// Partitions that are no longer ours, by their names in the log.
    Revoked(Vec<TopicPartition>),
    /// Reading has begun at `begin`, which is the position asked for or, when the log holds no more than that, its
    /// oldest message; `high` is the end of what could be read at that moment.
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
    /// The log behind this partition is another one now. All messages of the former log that were read have been handed
    /// over.
    Replaced(TopicPartition),
    Idle,
    Failed(ReaderError),
}

#[derive(Debug)]
pub(crate) enum ToLog {
    Start(Vec<Position>),
    Landed(Vec<(TopicPartition, NextOffset)>),
    /// What the service waits for before it names positions. `None`: it waits for nothing.
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

/// The budget that decoded messages are charged to, and the clock that gives their arrival times.
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

/// What the log gives, in order. Partitions are named as in the tables.
#[derive(Debug)]
enum Entry {
    Message(Message),
    Skip(OffsetRange),
    /// A change of the partitions that are ours.
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
    /// Partitions to be started.
    waiting: VecDeque<Position>,
    /// How many of these, the first ones, are started each by itself.
    alone: usize,
    /// By the name in the log.
    started: BTreeMap<TopicPartition, Open>,
    /// The landed offsets last reported to the log, by partition name.
    reported: BTreeMap<TopicPartition, NextOffset>,
    /// Entries that were read, and whose log was not confirmed since.
    polled: VecDeque<Entry>,
    /// Memory of the messages in `polled`.
    polled_bytes: usize,
    /// Entries whose log was confirmed, and which are not decoded yet.
    confirmed: VecDeque<Entry>,
    check: Check,
    /// As reported last.
    undecided: Vec<(TopicPartition, u64)>,
    /// Partitions whose topic was made anew and is not read yet, by their names in the log.
    replacing: BTreeSet<TopicPartition>,
    /// Errors of the log that another log of the same name may explain. They are judged once the identity of the log
    /// was asked for.
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

/// The service has dropped its ends of the channels.
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
            alone: 0,
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
        // Checked before anything is handed over: an answer confirms all that was polled before this step.
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
        // What is confirmed is decoded before more is polled. It comes from a few polls of `POLL_BYTES`, because the
        // log is paused while the service or the budget delays it: the next poll of the consumer is never far away.
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

    /// Whether nothing that was read is still to be handed over.
    fn is_drained(&self) -> bool {
        self.polled.is_empty() && self.confirmed.is_empty()
    }

    /// Reports which logs were replaced, after everything that was read of them.
    fn hand_over_replaced(&mut self) -> Result<(), ReaderError> {
        // What was read of the former log exists nowhere else any more: the service must have it before the log is
        // closed.
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
        // A paused log gives nothing either, but is resumed as soon as memory is free; a partition that waits for its
        // start is not to be delayed.
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
            // The service may end once it is caught up: it is idle only when nothing that was read is still here.
            SourceEvent::Idle if self.outbox.is_empty() && self.is_drained() => self.outbox.push_back(FromLog::Idle),
            SourceEvent::Idle => {}
        }
        Ok(())
    }

    fn polled(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            // The partition was abandoned: these messages belong to another log.
            let Some(open) = self.started.get(&message.at) else { continue };
            message.at = open.log.clone();
            self.polled_bytes += message.held_bytes();
            self.polled.push_back(Entry::Message(message));
        }
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>) {
        // What went wrong on a partition of another member is for that member to judge.
        self.doubted.retain(|error| error.partition().is_none_or(|at| !partitions.contains(at)));
        let is_ours = |at: &TopicPartition| !partitions.contains(&at.without_generation());
        self.started.retain(|at, _| !partitions.contains(at));
        self.reported.retain(|at, _| !partitions.contains(at));
        self.waiting.retain(|position| is_ours(&position.at));
        self.replaced.retain(|(at, _)| is_ours(at));
        self.replacing.retain(is_ours);
        self.polled.retain(|entry| entry.at().is_none_or(is_ours));
        // What is confirmed is handed over first: a topic that is deleted is revoked before its new id can be seen, and
        // its messages exist nowhere else. What is not confirmed is read by the next owner.
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

    /// Hands over what the service has room for. It never waits, because the log must be polled.
    fn deliver(&mut self) -> Result<(), Gone> {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                // At the front again: events keep their order.
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Takes the next portion of what was confirmed: messages, decoded, up to the next entry of another kind; or that
    /// entry.
    fn next_portion(&mut self) -> FromLog {
        let arrived_us = self.clock.now_ns().div_euclid(1_000);
        let mut arrivals = Vec::new();
        let mut bytes = 0;
        // Compared before a message is decoded, since only then its size is known: a portion exceeds the limit by one
        // message at most.
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
                    // Messages are handed over first; the entry begins the next portion.
                    self.confirmed.push_front(other);
                    break;
                }
            }
        }
        FromLog::Arrivals(arrivals)
    }

    /// Reports landed offsets to the log, for lag tools and for the deletion of spool segments. They are never read
    /// back as positions.
    fn landed(&mut self, positions: Vec<(TopicPartition, NextOffset)>) {
        let mut fresh = Vec::new();
        for (log, next) in positions {
            let at = log.without_generation();
            // Partitions that were revoked or replaced since are left out: their offsets are another owner's to report.
            let is_read = self.started.get(&at).is_some_and(|open| open.log == log);
            if is_read && self.reported.get(&at) != Some(&next) {
                fresh.push((at, next));
            }
        }
        // An error does not end ingest: the disk of a spool may be full, and landing is what empties it. The offsets
        // are reported again with the next commit, because `reported` does not have them.
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
        // Paused above the limit, resumed below half of it (hysteresis), so that the log does not change its state with
        // every message.
        let is_unconfirmed = self.check.is_failing() && !self.polled.is_empty();
        let must_rest = self.budget.is_exhausted() || !self.outbox.is_empty() || is_unconfirmed;
        let started = || self.started.keys().cloned().collect::<Vec<_>>();
        if !self.is_paused && must_rest {
            self.source.pause(&started())?;
            self.is_paused = true;
        } else if self.is_paused && !must_rest && self.budget.has_room() {
            self.source.resume(&started())?;
            self.is_paused = false;
            // While the log was paused nothing was fetched, so that no error can have shown another log.
            self.check.want();
        }
        Ok(())
    }
}

/// Decodes one message. The codec checks everything it reads; should it panic all the same, the message is a dead
/// letter and the rest of the log goes on.
fn decode(message: Message, arrived_us: i64) -> Arrival {
    // The payload is not copied: clones of `Bytes` share a buffer.
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
