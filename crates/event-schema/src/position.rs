//! Where a message lies in the log: topic, partition, offset. The same types serve Kafka and the spool directory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One partition of one topic, in Kafka's sense.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic; a log that was made anew has its generation behind it, as in `topic@2`.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Which log of this name it is: 1, or more when the topic was deleted and made anew, or truncated and written
    /// anew.
    pub fn generation(&self) -> u32 {
        self.split().1
    }

    /// The name in the tables of another log of the same topic: `topic`, then `topic@2`, and so on. Each has offsets of
    /// its own, so that what landed of an earlier one keeps its place. Kafka allows no `@` in the name of a topic.
    pub fn of_generation(&self, generation: u32) -> Self {
        // From the name without a generation, so that `topic@2` gives `topic@3` and not `topic@2@3`.
        let topic = self.split().0;
        if generation <= 1 {
            return Self::new(topic, self.partition);
        }
        Self::new(format!("{topic}{GENERATION}{generation}"), self.partition)
    }

    /// The name in Kafka.
    pub fn without_generation(&self) -> Self {
        if self.generation() == 1 { self.clone() } else { self.of_generation(1) }
    }

    fn split(&self) -> (&str, u32) {
        // The legal characters of a Kafka topic are letters, digits, `.`, `_` and `-`, so that `@` is free. What
        // follows it is a generation only where it is a number above 1: a name from elsewhere stays whole.
        let later = self.topic.rsplit_once(GENERATION).and_then(|(topic, generation)| {
            let generation = generation.parse().ok().filter(|generation| *generation > 1)?;
            Some((topic, generation))
        });
        later.unwrap_or((&self.topic, 1))
    }
}

/// Stands between a topic's name and the generation of its log.
const GENERATION: char = '@';

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The offset of the next message to read: everything below it has been taken. Never "the last offset read".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NextOffset(
    /// An offset of the log, from 0.
    pub i64,
);

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A contiguous, half-open range of offsets `[start, end)` of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    /// The partition that the offsets are of.
    pub at: TopicPartition,
    /// The first offset of the range.
    pub start: i64,
    /// The offset behind the last one. At or below `start` in an empty range.
    pub end: i64,
}

impl OffsetRange {
    pub fn new(at: TopicPartition, start: i64, end: i64) -> Self {
        Self { at, start, end }
    }

    /// Number of offsets in the range; zero when it is empty.
    pub fn len(&self) -> u64 {
        // An empty range may end before its start.
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
    /// The partition that holds it.
    pub at: TopicPartition,
    /// Its offset in that partition.
    pub offset: i64,
    /// Broker (or spool) time, unix milliseconds.
    pub timestamp_ms: i64,
    /// The key that chose the partition; agents use the name of the node.
    pub key: Option<Bytes>,
    /// The value of the message: bytes of a [`Codec`](crate::codec::Codec).
    pub payload: Bytes,
    /// Names and values of the Kafka headers, in their order; a name may occur twice.
    pub headers: Vec<(String, Bytes)>,
}

/// What an allocator adds to a small block, about.
const BLOCK_BYTES: usize = 32;

impl Message {
    /// Bytes of memory that the message takes. Headers count with their place in the list and a block for each text: a
    /// message of many short ones takes many times its size in the log.
    pub fn held_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| header_bytes(name, value)).sum();
        size_of::<Self>() + self.key.as_ref().map_or(0, Bytes::len) + self.payload.len() + headers
    }
}

fn header_bytes(name: &str, value: &Bytes) -> usize {
    // Two blocks, of name and value: for headers of a few bytes they are most of the memory.
    size_of::<(String, Bytes)>() + 2 * BLOCK_BYTES + name.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_headers_count_with_the_memory_of_their_blocks() {
        let header = |_| ("h".to_owned(), Bytes::new());
        let message = |headers| Message {
            at: TopicPartition::new("t", 0),
            offset: 0,
            timestamp_ms: 0,
            key: Some(Bytes::from_static(b"key")),
            payload: Bytes::from_static(b"payload"),
            headers: (0..headers).map(header).collect(),
        };
        let bare = message(0).held_bytes();
        assert_eq!(bare, size_of::<Message>() + 10);
        assert!(message(1_000).held_bytes() - bare > 1_000 * 100);
    }

    #[test]
    fn a_log_made_anew_has_a_name_of_its_own_that_leads_back_to_the_topic() {
        let first = TopicPartition::new(crate::topics::EVENTS, 3);
        assert_eq!((first.generation(), first.without_generation()), (1, first.clone()));
        let third = first.of_generation(2).of_generation(3);
        assert_eq!(third.to_string(), "causeway.events.v1@3/3");
        assert_eq!((third.generation(), third.without_generation()), (3, first.clone()));
        assert_eq!(third.of_generation(1), first);
        for odd in ["t@", "t@x", "t@1", "t@0", "@t"] {
            assert_eq!(TopicPartition::new(odd, 0).generation(), 1, "{odd}");
        }
    }
}
