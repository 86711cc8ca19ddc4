//! Who made a record: node, boot, epoch, stream, sequence number; and the id a user sees.

use std::sync::Arc;

/// An ordered sequence of records within a node, boot and epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub node: Arc<str>,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: Arc<str>,
    /// One run of an agent in a boot; later runs have greater numbers.
    pub epoch: i64,
    /// Number of the stream, see [`stream_number`].
    pub stream: i32,
}

/// What one run of an agent ships to one topic, and therefore to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    pub node: Arc<str>,
    /// The kernel's boot id (a UUID in text form).
    pub boot_id: Arc<str>,
    /// One run of an agent in a boot.
    pub epoch: i64,
    pub lane: Lane,
}

/// The streams that travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// The stream of droppable events.
    Events,
    /// All other streams.
    Critical,
}

impl Lane {
    /// The lane that a stream travels in.
    pub const fn of(stream: i32) -> Self {
        if stream == DATA_STREAM { Self::Events } else { Self::Critical }
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

/// Bits of a sequence number that count within one stream: 2^36 records, about 19 hours at a million a second. An agent that
/// has used them up goes on in a new epoch.
const COUNT_BITS: u32 = 36;
/// Sequence numbers a stream has.
pub const SEQS_MAX: i64 = 1 << COUNT_BITS;
/// Bits that name the stream.
const STREAM_BITS: u32 = 4;
/// Streams an epoch may have.
pub const STREAMS_MAX: i32 = 1 << STREAM_BITS;
/// Epochs a boot may have: what is left of 63 bits.
pub const EPOCHS_MAX: i64 = 1 << (63 - COUNT_BITS - STREAM_BITS);

/// The stream of droppable events.
pub const DATA_STREAM: i32 = 0;
/// The stream of events that are never shed (exec, exit, OOM, ledger).
pub const CRITICAL_STREAM: i32 = 1;

/// The stream on which records of a kind other than events travel: one stream carries one kind.
pub fn stream_number(kind: crate::kind::RecordKind) -> i32 {
    match kind {
        crate::kind::RecordKind::Event => DATA_STREAM,
        other => i32::from(other.number()),
    }
}

/// The first sequence number of a stream. Epoch and stream are the high bits, so that a number occurs once per boot and
/// `node:boot8:seq` names one record. `None` when epoch or stream is out of range.
pub fn first_seq(epoch: i64, stream: i32) -> Option<i64> {
    ((0..EPOCHS_MAX).contains(&epoch) && (0..STREAMS_MAX).contains(&stream))
        .then(|| (epoch << (COUNT_BITS + STREAM_BITS)) | (i64::from(stream) << COUNT_BITS))
}

/// The first eight characters of a boot id, as ids show it.
pub fn boot8(boot_id: &str) -> &str {
    boot_id.get(..8).unwrap_or(boot_id)
}

/// The id users see: `node:boot8:seq`.
pub fn event_id(node: &str, boot_id: &str, seq: i64) -> String {
    format!("{node}:{}:{seq}", boot8(boot_id))
}
