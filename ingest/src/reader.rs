//! The thread that drives the log: reads, decodes, and pauses the log when what was read takes too much memory.
//!
//! A thread, because a Kafka consumer must be polled without pause however long a commit takes, or the group throws it out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use event_schema::position::{Message, NextOffset, TopicPartition};
use stream::{Source, SourceError, SourceEvent};
use tables::arrival::{Arrival, Rejection};
use tokio::sync::mpsc as tokio_mpsc;

use crate::hand::{Budget, bytes_of};

/// How long one poll waits; bounds how late a command is obeyed.
const POLL: Duration = Duration::from_millis(20);
/// Payload read by one poll.
const POLL_BYTES: usize = 4 << 20;
/// Events on their way to the service. The budget bounds their bytes; this only bounds their number.
const EVENTS: usize = 64;

/// What the table remembers of the log behind a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) identity: String,
    /// Fingerprint of the last landed message.
    pub(crate) fingerprint: Option<u32>,
}

/// Where to begin, and what the log there should look like.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) at: TopicPartition,
    pub(crate) next: NextOffset,
    pub(crate) mark: Option<Mark>,
    /// The offset `mark` was taken at.
    pub(crate) marked: NextOffset,
}

#[derive(Debug)]
pub(crate) enum FromLog {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    /// Reading has begun; `high` is the end of the log at that moment.
    Started {
        at: TopicPartition,
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
        Self::Source(source)
    }
}

/// Starts the thread. It closes the log and ends when either channel is dropped.
pub(crate) fn spawn(
    source: Box<dyn Source>,
    budget: Budget,
) -> Result<(Sender<ToLog>, tokio_mpsc::Receiver<FromLog>, JoinHandle<()>), ReaderError> {
    let (commands, obey) = channel();
    let (events, receive) = tokio_mpsc::channel(EVENTS);
    let reader = Reader { source, budget, obey, events, started: Vec::new(), is_paused: false };
    let thread = std::thread::Builder::new().name("log-reader".to_owned()).spawn(move || reader.run());
    Ok((commands, receive, thread.map_err(ReaderError::Thread)?))
}

struct Reader {
    source: Box<dyn Source>,
    budget: Budget,
    obey: Receiver<ToLog>,
    events: tokio_mpsc::Sender<FromLog>,
    started: Vec<TopicPartition>,
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
                Ok(ToLog::Start(positions)) => {
                    for position in positions {
                        let started = self.start(position)?;
                        if self.events.blocking_send(started).is_err() {
                            return Ok(Err(Gone));
                        }
                    }
                }
                Ok(ToLog::Landed(positions)) => self.landed(positions)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(Err(Gone)),
            }
        }
        self.balance()?;
        let event = match self.source.poll(POLL, POLL_BYTES)? {
            SourceEvent::Assigned(partitions) => FromLog::Assigned(partitions),
            SourceEvent::Revoked(partitions) => {
                self.started.retain(|at| !partitions.contains(at));
                FromLog::Revoked(partitions)
            }
            SourceEvent::Messages(messages) => {
                let arrivals: Vec<Arrival> = messages.into_iter().map(decode).collect();
                self.budget.charge(arrivals.iter().map(bytes_of).sum());
                FromLog::Arrivals(arrivals)
            }
            SourceEvent::Idle => FromLog::Idle,
        };
        Ok(self.events.blocking_send(event).map_err(|_| Gone))
    }

    /// Begins to read a partition, after checking that the log is still the one the tables were filled from.
    fn start(&mut self, position: Position) -> Result<FromLog, ReaderError> {
        let Position { at, next, mark, marked } = position;
        let identity = self.source.identity(&at)?.to_string();
        if let Some(mark) = mark {
            if mark.identity != identity {
                return Err(ReaderError::Recreated { at, expected: mark.identity, found: identity });
            }
            let found = self.source.fingerprint(&at, marked)?;
            // A message that retention has deleted can no longer be compared.
            if found.is_some() && mark.fingerprint.is_some() && found != mark.fingerprint {
                return Err(ReaderError::Rewritten { at, next: marked });
            }
        }
        self.source.start(&[(at.clone(), next)])?;
        self.started.push(at.clone());
        if self.is_paused {
            self.source.pause(std::slice::from_ref(&at))?;
        }
        let high = self.source.watermarks(&at)?.high;
        Ok(FromLog::Started { at, identity, high })
    }

    /// Positions are only a courtesy to lag tools and the spool: those of partitions lost meanwhile are left out.
    fn landed(&mut self, mut positions: Vec<(TopicPartition, NextOffset)>) -> Result<(), ReaderError> {
        positions.retain(|(at, _)| self.started.contains(at));
        Ok(self.source.report(&positions)?)
    }

    fn balance(&mut self) -> Result<(), ReaderError> {
        if !self.is_paused && self.budget.is_exhausted() {
            self.source.pause(&self.started)?;
            self.is_paused = true;
        } else if self.is_paused && self.budget.has_room() {
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
