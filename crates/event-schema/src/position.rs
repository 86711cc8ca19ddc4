//! Where a message lies in the log: topic, partition, offset. The same types serve Kafka and the spool directory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One partition of one topic, in Kafka's sense.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The offset of the next message to read: everything below it has been taken. Never "the last offset read".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NextOffset(pub i64);

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A contiguous, half-open range of offsets `[start, end)` of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    pub at: TopicPartition,
    pub start: i64,
    pub end: i64,
}

impl OffsetRange {
    pub fn new(at: TopicPartition, start: i64, end: i64) -> Self {
        Self { at, start, end }
    }

    /// Number of offsets in the range; zero when it is empty.
    pub fn len(&self) -> u64 {
        u64::try_from(self.end - self.start).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.at, self.start, self.end)
    }
}

/// One message of the log exactly as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub at: TopicPartition,
    pub offset: i64,
    /// Broker (or spool) time, unix milliseconds.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub payload: Bytes,
    pub headers: Vec<(String, Bytes)>,
}
