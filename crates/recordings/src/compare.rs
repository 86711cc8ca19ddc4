//! What an event holds, to compare the events of a file with those that landed under the same keys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use event_schema::batch::Value;
use event_schema::identity::StreamId;

use crate::digest::Digest;

/// Columns of an event that are compared, as `silver.events` names them: first those that a tracer writes once, then
/// those that it may update.
pub(crate) const COMPARED: [&str; 9] = ["ts_ns", "pid", "tid", "source", "op", "arg0", "arg1", "duration_ns", "comm"];
/// How many of them are written once.
const WRITTEN_ONCE: usize = 7;

/// A key that an event of the file has, and that an event that landed has too: its stream and its sequence number.
pub(crate) type EventKey = (StreamId, i64);

/// What an event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// A hash of what a tracer writes once.
    once: u64,
    /// A hash of what it may update, such as a duration that was not known yet.
    anew: u64,
}

impl Content {
    /// Of an event that has these cells in the order of [`COMPARED`].
    pub(crate) fn of(cells: &[&Value]) -> Self {
        // Two hashes and not the cells: a sample has some 200,000 events, of which each takes 16 bytes so.
        let (once, anew) = cells.split_at(WRITTEN_ONCE);
        let (names_once, names_anew) = COMPARED.split_at(WRITTEN_ONCE);
        Self { once: hash_of(names_once, once), anew: hash_of(names_anew, anew) }
    }

    /// Whether they are one event, however often its tracer has written it.
    pub(crate) fn is_same_event(self, other: Self) -> bool {
        self.once == other.once
    }
}

fn hash_of(names: &[&'static str], cells: &[&Value]) -> u64 {
    Digest::of_cells("event", names.iter().copied().zip(cells.iter().copied())).number(0)
}

/// Events of a file to compare, by key.
#[derive(Debug, Default)]
pub struct Sample {
    /// Their boot before any alternate, and what they hold.
    events: HashMap<EventKey, (Arc<str>, Content)>,
}

impl Sample {
    /// Adds an event; `base` is its boot before any alternate.
    pub(crate) fn add(&mut self, key: EventKey, base: Arc<str>, content: Content) {
        self.events.insert(key, (base, content));
    }

    pub(crate) fn has(&self, key: &EventKey) -> bool {
        self.events.contains_key(key)
    }

    /// The sequence numbers of its events.
    pub(crate) fn seqs(&self) -> HashSet<i64> {
        self.events.keys().map(|(_, seq)| *seq).collect()
    }

    /// Compares its events with those that landed, by their boot before any alternate.
    pub(crate) fn compare(&self, landed: &Landed) -> HashMap<&Arc<str>, Tally> {
        let mut tallies: HashMap<&Arc<str>, Tally> = HashMap::new();
        for (key, (base, content)) in &self.events {
            // Without a landed event there is nothing to compare: of Kafka nothing can be read, so that no host is
            // taken for another.
            if let Some(landed) = landed.contents.get(key) {
                tallies.entry(base).or_default().note(*landed, *content);
            }
        }
        tallies
    }
}

/// What landed under keys of a [`Sample`].
#[derive(Debug, Default)]
pub struct Landed {
    contents: HashMap<EventKey, Content>,
}

impl Landed {
    /// Of a destination that cannot be read.
    pub fn unknown() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, key: EventKey, content: Content) {
        self.contents.insert(key, content);
    }
}

/// Events that have landed, compared with those of the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Events that were compared.
    pub compared: u64,
    /// Of them: those that hold something else than the file now, and stay as they landed.
    pub differing: u64,
    /// Of them: those that are other events.
    others: u64,
}

impl Tally {
    fn note(&mut self, landed: Content, of_file: Content) {
        self.compared += 1;
        self.differing += u64::from(landed != of_file);
        self.others += u64::from(!landed.is_same_event(of_file));
    }

    pub(crate) fn plus(self, other: &Self) -> Self {
        Self {
            compared: self.compared + other.compared,
            differing: self.differing + other.differing,
            others: self.others + other.others,
        }
    }

    /// Whether the file is another host's: two hosts that recorded at the same time agree on next to nothing.
    pub(crate) fn is_another_hosts(self) -> bool {
        // A majority: a few events that their tracer has updated in other columns do not make a session another host's.
        self.others * 2 > self.compared
    }
}
