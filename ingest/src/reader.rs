//! The thread that drives the log: reads, decodes, and pauses the log when what was read takes too much memory.
//!
//! A thread, because a Kafka consumer must be polled without pause however long a commit takes, or the group throws it out. So
//! it never waits for the service either: what the service has no room for stays here, and the log is paused meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use event_schema::position::{Message, NextOffset, TopicPartition};
use service_kit::admin::Condition;
use stream::{GapError, Source, SourceError, SourceEvent, Watermarks};
use tables::arrival::{Arrival, Rejection};
use tokio::sync::mpsc as tokio_mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::hand::{Budget, bytes_of};
use crate::mark::Mark;
use crate::service::OnGap;

/// How long one poll waits; bounds how late a command is obeyed.
const POLL: Duration = Duration::from_millis(20);
/// Payload read by one poll.
const POLL_BYTES: usize = 4 << 20;
/// Decoded bytes handed over at once. A message is small until it is decoded: what was polled is decoded bit by bit, so that
/// the budget is not passed by much more than one message.
const PORTION_BYTES: u64 = 16 << 20;
/// Events on their way to the service. The budget bounds their bytes; this only bounds their number.
const EVENTS: usize = 64;

/// Where to begin, and what the log there should look like.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) at: TopicPartition,
    pub(crate) next: NextOffset,
    /// Where the furthest behind stands of those tables that have seen the log: what lies behind it must not be missed. `None`
    /// when none has.
    pub(crate) held: Option<NextOffset>,
    /// The log as the tables know it; absent when they have never seen it.
    pub(crate) mark: Option<Mark>,
}

#[derive(Debug)]
pub(crate) enum FromLog {
    Assigned(Vec<TopicPartition>),
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
    Idle,
    Failed(ReaderError),
}

#[derive(Debug)]
pub(crate) enum ToLog {
    Start(Vec<Position>),
    Landed(Vec<(TopicPartition, NextOffset)>),
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    #[error("the log cannot be read")]
    Source(#[source] SourceError),
    #[error(
        "retention deleted {} messages of {at} before they were read: the tables end at offset {next}, the log begins at {low}. \
         To go on there, and have the gap recorded in every table, start again with `ingest.on_gap = \"record\"`",
        low.0 - next.0
    )]
    Overtaken { at: TopicPartition, next: NextOffset, low: NextOffset },
    #[error(
        "{at} is another log than the one the tables were filled from: its identity is `{found}`, the tables say `{expected}`. \
         The topic was made anew under the same name; use another topic name or another catalog"
    )]
    Recreated { at: TopicPartition, expected: String, found: String },
    #[error(
        "{at} was truncated and written anew: the message below offset {next} is not the one that landed. \
         Offsets can no longer be trusted; use another topic name or another catalog"
    )]
    Rewritten { at: TopicPartition, next: NextOffset },
    #[error("the thread that reads the log could not be started")]
    Thread(#[source] std::io::Error),
}

impl From<SourceError> for ReaderError {
    fn from(source: SourceError) -> Self {
        match source {
            SourceError::Retention { partition: at, next, low } => Self::Overtaken { at, next, low },
            SourceError::Gap(GapError { partition: at, expected: next, low_watermark: Some(low), .. })
                if next < low =>
            {
                Self::Overtaken { at, next, low }
            }
            source => Self::Source(source),
        }
    }
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
    on_gap: OnGap,
    readable: Condition,
) -> Result<ReaderThread, ReaderError> {
    let (commands, obey) = channel();
    let (events, receive) = tokio_mpsc::channel(EVENTS);
    let reader = Reader {
        source,
        budget,
        on_gap,
        readable,
        obey,
        events,
        waiting: VecDeque::new(),
        started: Vec::new(),
        reported: BTreeMap::new(),
        polled: VecDeque::new(),
        outbox: VecDeque::new(),
        is_paused: false,
    };
    let thread = std::thread::Builder::new().name("log-reader".to_owned()).spawn(move || reader.run());
    Ok(ReaderThread { commands, events: receive, thread: thread.map_err(ReaderError::Thread)? })
}

struct Reader {
    source: Box<dyn Source>,
    budget: Budget,
    on_gap: OnGap,
    /// Met while partitions can be started.
    readable: Condition,
    obey: Receiver<ToLog>,
    events: tokio_mpsc::Sender<FromLog>,
    /// To be started; more than one only while the log is away.
    waiting: VecDeque<Position>,
    started: Vec<TopicPartition>,
    /// What the log was told to have landed.
    reported: BTreeMap<TopicPartition, NextOffset>,
    /// Read and not decoded.
    polled: VecDeque<Message>,
    /// Not handed over yet: the service is busy.
    outbox: VecDeque<FromLog>,
    is_paused: bool,
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
        self.start_next()?;
        self.balance()?;
        if self.outbox.is_empty() && !self.polled.is_empty() && !self.budget.is_exhausted() {
            let arrivals = self.decode_portion();
            self.outbox.push_back(FromLog::Arrivals(arrivals));
        } else {
            self.poll()?;
        }
        Ok(self.deliver())
    }

    fn start_next(&mut self) -> Result<(), ReaderError> {
        // What was read before a gap is handed over before the place is told at which reading goes on behind it.
        if !self.polled.is_empty() {
            return Ok(());
        }
        let Some(position) = self.waiting.pop_front() else {
            self.readable.met();
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
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(), ReaderError> {
        let event = match self.source.poll(POLL, POLL_BYTES).map_err(ReaderError::from) {
            Err(ReaderError::Overtaken { at, next, .. }) if self.on_gap == OnGap::Record => {
                // Begins anew, and says where.
                if self.waiting.iter().all(|position| position.at != at) {
                    self.waiting.push_back(Position { at, next, held: Some(next), mark: None });
                }
                SourceEvent::Idle
            }
            event => event?,
        };
        match event {
            SourceEvent::Assigned(partitions) => self.outbox.push_back(FromLog::Assigned(partitions)),
            SourceEvent::Revoked(partitions) => {
                self.started.retain(|at| !partitions.contains(at));
                self.reported.retain(|at, _| !partitions.contains(at));
                self.waiting.retain(|position| !partitions.contains(&position.at));
                self.polled.retain(|message| !partitions.contains(&message.at));
                self.outbox.push_back(FromLog::Revoked(partitions));
            }
            SourceEvent::Messages(messages) => self.polled.extend(messages),
            SourceEvent::Idle if self.outbox.is_empty() && self.polled.is_empty() => {
                self.outbox.push_back(FromLog::Idle)
            }
            SourceEvent::Idle => {}
        }
        Ok(())
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

    fn decode_portion(&mut self) -> Vec<Arrival> {
        let (mut arrivals, mut bytes) = (Vec::new(), 0);
        while bytes < PORTION_BYTES
            && let Some(message) = self.polled.pop_front()
        {
            let arrival = decode(message);
            bytes += bytes_of(&arrival);
            arrivals.push(arrival);
        }
        self.budget.charge(bytes);
        arrivals
    }

    /// Begins to read a partition, after checking that the log is still the one the tables were filled from.
    fn start(&mut self, position: &Position) -> Result<FromLog, ReaderError> {
        let at = position.at.clone();
        let identity = self.source.identity(&at)?.to_string();
        let Watermarks { low, high } = self.source.watermarks(&at)?;
        if let Some(mark) = &position.mark {
            self.compare(&at, mark, &identity)?;
        }
        let misses_nothing = position.held.is_none_or(|held| held >= low);
        let may_skip = misses_nothing || self.on_gap == OnGap::Record;
        let begin = if may_skip { position.next.max(low) } else { position.next };
        self.source.start(&[(at.clone(), begin)])?;
        if !self.started.contains(&at) {
            self.started.push(at.clone());
        }
        if self.is_paused {
            self.source.pause(std::slice::from_ref(&at))?;
        }
        Ok(FromLog::Started { at, begin, identity, high })
    }

    fn compare(&mut self, at: &TopicPartition, mark: &Mark, identity: &str) -> Result<(), ReaderError> {
        let (at, next) = (at.clone(), mark.next);
        if mark.identity != identity {
            return Err(ReaderError::Recreated { at, expected: mark.identity.clone(), found: identity.to_owned() });
        }
        let high = self.source.end(&at)?;
        if next > high {
            return Err(SourceError::Truncated { partition: at, next, high }.into());
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
    fn landed(&mut self, mut positions: Vec<(TopicPartition, NextOffset)>) {
        positions.retain(|(at, next)| self.started.contains(at) && self.reported.get(at) != Some(next));
        match self.source.report(&positions) {
            Ok(()) => self.reported.extend(positions),
            Err(error) => {
                tracing::warn!(reason = service_kit::run::report(&error), "the log was not told what has landed");
            }
        }
    }

    fn balance(&mut self) -> Result<(), ReaderError> {
        let must_rest = self.budget.is_exhausted() || !self.outbox.is_empty();
        if !self.is_paused && must_rest {
            self.source.pause(&self.started)?;
            self.is_paused = true;
        } else if self.is_paused && !must_rest && self.budget.has_room() {
            self.source.resume(&self.started)?;
            self.is_paused = false;
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
        Arrival { message: again, outcome: Err(rejection), fresh: Vec::new() }
    })
}

#[cfg(test)]
mod tests;
