//! What the audit reads of the tables.

use std::collections::BTreeMap;
use std::fmt;

use event_schema::identity::is_recording;
use event_schema::loss::LossCounters;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use event_schema::stream::Stream;

/// What is read of a table's metadata.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFacts {
    pub(crate) name: String,
    /// The offset properties.
    pub(crate) next: BTreeMap<TopicPartition, NextOffset>,
    /// The ranges of each snapshot since the last one that has expired.
    pub(crate) commits: Vec<Vec<OffsetRange>>,
    /// What the log no longer held when it was to be read.
    pub(crate) explained: Vec<OffsetRange>,
    /// What snapshots landed that have left the metadata.
    pub(crate) gone: Vec<OffsetRange>,
}

impl TableFacts {
    /// Whether the table holds a message: one below its offsets that is in no gap that was explained.
    pub(crate) fn holds(&self, row: &LedgerRow) -> bool {
        row.is_below(&self.next) && !is_in_any(&self.explained, &row.at.topic, row.at.partition, row.offset)
    }
}

/// Whether an offset of a log lies in one of these ranges.
pub(crate) fn is_in_any(ranges: &[OffsetRange], topic: &str, partition: i32, offset: i64) -> bool {
    ranges.iter().any(|range| {
        range.at.partition == partition && (range.start..range.end).contains(&offset) && *range.at.topic == *topic
    })
}

/// A row of `ops.ledger`.
#[derive(Debug, Clone)]
pub(crate) struct LedgerRow {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) is_dead_letter: bool,
    /// `None` for a dead letter.
    pub(crate) kind: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) stream: Stream,
    pub(crate) first_seq: i64,
    pub(crate) rows: i64,
    pub(crate) landed: i64,
    pub(crate) duplicates: i64,
    pub(crate) losses: LossCounters,
}

impl LedgerRow {
    /// Whether the message holds records of a kind.
    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether the message was decoded, and an agent sent it. A recording has the numbers of the tracer that made it, which leave out
    /// what it did not keep.
    pub(crate) fn is_of_agent(&self) -> bool {
        !self.is_dead_letter && !is_recording(&self.epoch.boot_id)
    }

    /// Whether the message lies before these offsets.
    pub(crate) fn is_below(&self, offsets: &BTreeMap<TopicPartition, NextOffset>) -> bool {
        offsets.get(&self.at).is_some_and(|next| self.offset < next.0)
    }
}

/// A run of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id, a UUID in text form.
    pub boot_id: String,
    /// From 0; later runs in a boot have greater numbers.
    pub epoch: i64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} boot {} epoch {}", self.node, self.boot_id, self.epoch)
    }
}

/// What agents reported of themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnEvents {
    /// The `epoch_end` events, by epoch and stream.
    pub(crate) ends: BTreeMap<Epoch, BTreeMap<Stream, EpochEnd>>,
    /// Events that agents made of themselves, by epoch: they went through no ring.
    pub(crate) counts: BTreeMap<Epoch, i64>,
}

/// The probes' own counters when an agent ended, as the last event of a stream has them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EpochEnd {
    pub(crate) attempts: u64,
    pub(crate) ring_drop: u64,
    pub(crate) drained: u64,
}

/// A boot of a node, whose records have sequence numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boot<'a> {
    pub(crate) node: &'a str,
    /// The kernel's boot id, a UUID in text form.
    pub(crate) boot_id: &'a str,
}

/// What events are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpMinute {
    pub(crate) node: String,
    /// Start of the minute, unix microseconds.
    pub(crate) minute_us: i64,
    pub(crate) source: i32,
    pub(crate) op: i32,
}

/// Events by node, minute and operation.
pub(crate) type Counts = BTreeMap<OpMinute, u64>;
