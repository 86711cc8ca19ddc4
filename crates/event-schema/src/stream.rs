//! The streams of an agent's run. A stream is an ordered sequence of batches of one record kind with sequence numbers
//! of its own. Its lane and its topic follow from it.

use std::fmt;
use std::ops::{Index, IndexMut};

use crate::kind::RecordKind;
use crate::topics;

/// One stream of a run. Numbers are on the wire and in every table of records, and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Stream {
    /// Events that may be shed under overload: calls and waits.
    Data = 0,
    /// Events that are never shed: exec, exit, fork, and the agent's own.
    Critical = 1,
    /// [`RecordKind::Stack`].
    Stacks = 2,
    /// [`RecordKind::Process`].
    Processes = 3,
    /// [`RecordKind::Session`].
    Sessions = 4,
    /// [`RecordKind::System`].
    System = 5,
    /// [`RecordKind::Cgroup`].
    Cgroups = 6,
    /// [`RecordKind::Chain`].
    Chains = 7,
    /// [`RecordKind::Aggregate`].
    Aggregates = 8,
}

impl Stream {
    /// Every stream, by number.
    pub const ALL: [Self; 9] = [
        Self::Data,
        Self::Critical,
        Self::Stacks,
        Self::Processes,
        Self::Sessions,
        Self::System,
        Self::Cgroups,
        Self::Chains,
        Self::Aggregates,
    ];

    /// The number in rows and on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The stream of a number; `None` for a number that no stream has.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.number() == number)
    }

    /// The stream of records of a kind. Events that are never shed travel on [`Self::Critical`] instead.
    pub const fn of(kind: RecordKind) -> Self {
        match kind {
            // Events are the only kind with two streams: the data stream may shed, and must not take exec and exit with
            // it (ADR 14).
            RecordKind::Event => Self::Data,
            RecordKind::Stack => Self::Stacks,
            RecordKind::Process => Self::Processes,
            RecordKind::Session => Self::Sessions,
            RecordKind::System => Self::System,
            RecordKind::Cgroup => Self::Cgroups,
            RecordKind::Chain => Self::Chains,
            RecordKind::Aggregate => Self::Aggregates,
        }
    }

    /// The kind of the stream's records.
    pub const fn kind(self) -> RecordKind {
        match self {
            Self::Data | Self::Critical => RecordKind::Event,
            Self::Stacks => RecordKind::Stack,
            Self::Processes => RecordKind::Process,
            Self::Sessions => RecordKind::Session,
            Self::System => RecordKind::System,
            Self::Cgroups => RecordKind::Cgroup,
            Self::Chains => RecordKind::Chain,
            Self::Aggregates => RecordKind::Aggregate,
        }
    }

    /// The lane that the stream travels in.
    pub const fn lane(self) -> Lane {
        match self {
            // A topic of its own for what grows with the load: critical records are not behind it in the log.
            Self::Data => Lane::Events,
            _ => Lane::Critical,
        }
    }

    /// The topic of the stream's batches.
    pub const fn topic(self) -> &'static str {
        self.lane().topic()
    }

    /// The stream as one of events; `None` for a stream of another kind.
    pub const fn of_events(self) -> Option<EventStream> {
        match self {
            Self::Data => Some(EventStream::Data),
            Self::Critical => Some(EventStream::Critical),
            _ => None,
        }
    }
}

/// As in log lines and reports: the number.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// The streams that travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// [`Stream::Data`].
    Events,
    /// All other streams.
    Critical,
}

impl Lane {
    /// The topic of the lane.
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Events => topics::EVENTS,
            Self::Critical => topics::CRITICAL,
        }
    }

    /// The number under which the lane is stored. Numbers are never reused.
    pub const fn number(self) -> i64 {
        match self {
            Self::Events => 0,
            Self::Critical => 1,
        }
    }

    /// The lane stored under a number; `None` for a number that no lane has.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Events),
            1 => Some(Self::Critical),
            _ => None,
        }
    }
}

/// A stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventStream {
    /// [`Stream::Data`].
    Data,
    /// [`Stream::Critical`].
    Critical,
}

impl EventStream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Data, Self::Critical];
}

impl From<EventStream> for Stream {
    fn from(stream: EventStream) -> Self {
        match stream {
            EventStream::Data => Self::Data,
            EventStream::Critical => Self::Critical,
        }
    }
}

/// A value for each stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerEventStream<T> {
    /// Of [`EventStream::Data`].
    pub data: T,
    /// Of [`EventStream::Critical`].
    pub critical: T,
}

impl<T> Index<EventStream> for PerEventStream<T> {
    type Output = T;

    fn index(&self, stream: EventStream) -> &T {
        match stream {
            EventStream::Data => &self.data,
            EventStream::Critical => &self.critical,
        }
    }
}

impl<T> IndexMut<EventStream> for PerEventStream<T> {
    fn index_mut(&mut self, stream: EventStream) -> &mut T {
        match stream {
            EventStream::Data => &mut self.data,
            EventStream::Critical => &mut self.critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_found_by_its_number_and_has_the_number_it_shipped_with() {
        let numbers = Stream::ALL.map(Stream::number);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(Stream::ALL.into_iter().all(|stream| Stream::from_number(stream.number()) == Some(stream)));
        assert_eq!([-1, 9, 15, i32::MAX].map(Stream::from_number), [None; 4]);
    }

    #[test]
    fn records_other_than_events_travel_on_the_stream_with_the_number_of_their_kind() {
        for kind in RecordKind::ALL.into_iter().filter(|kind| *kind != RecordKind::Event) {
            assert_eq!(Stream::of(kind).number(), i32::from(kind.number()));
            assert_eq!(Stream::of(kind).kind(), kind);
            assert_eq!(Stream::of(kind).of_events(), None);
        }
    }

    #[test]
    fn only_the_data_stream_is_in_the_topic_of_events() {
        for stream in Stream::ALL {
            let topic = if stream == Stream::Data { topics::EVENTS } else { topics::CRITICAL };
            assert_eq!(stream.topic(), topic);
        }
    }
}
