//! The interface of every log to its reader: assignments, messages in order, and errors that name the place.
//!
//! A source is driven by one thread. It never decides where to read from: positions come from the table, once per
//! assignment, through [`Source::start`].

use std::fmt;
use std::time::Duration;

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};

use crate::kafka::KafkaError;
use crate::log::LogError;

/// One thing that happened in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// These partitions are ours now. Nothing is read from them until [`Source::start`] names their positions.
    Assigned(Vec<TopicPartition>),
    /// These partitions are no longer ours. What was read from them may still land: offsets keep it apart from what
    /// their next owner lands.
    Revoked(Vec<TopicPartition>),
    /// Messages in offset order per partition; never a message that [`Sequencer`](crate::Sequencer) would drop.
    Messages(Vec<Message>),
    /// Offsets that the log has given out and holds no message at: markers and aborted messages of transactions, or
    /// compacted away. They follow the messages polled before, and were read a second time to make sure that nothing is
    /// there.
    Skipped(OffsetRange),
    /// The timeout passed and nothing happened.
    Idle,
}

/// The offsets that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest offset that is still kept.
    pub low: NextOffset,
    /// The offset behind the newest one that can be read.
    pub high: NextOffset,
}

/// What distinguishes a log from another of the same name: Kafka's topic id, or the id written when a spool partition
/// was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogIdentity(
    /// A UUID as Kafka writes it (base64 without padding), or the text in the spool partition.
    pub String,
);

impl LogIdentity {
    /// What stands for an identity on brokers that give none (Kafka before 2.8).
    pub const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    /// Whether two identities, as texts, are of two logs. One that is not known is of any log.
    pub fn are_different(one: &str, other: &str) -> bool {
        // A broker before 2.8 cannot show another log by its identity; only the messages can.
        one != other && one != Self::UNKNOWN && other != Self::UNKNOWN
    }
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// Which log of its name it is.
    pub identity: LogIdentity,
    /// The offsets that it holds.
    pub watermarks: Watermarks,
    /// [`fingerprint`] of the message just below the offset that was asked about, or `None` if the log does not hold it.
    pub fingerprint: Option<u32>,
}

/// What a log is and holds where reading is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The log behind the partition.
    pub state: LogState,
    /// [`Source::end`], where an offset was given.
    pub end: NextOffset,
}

/// Messages a source has dropped without harm since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceStats {
    /// Offsets below the expected one: read again after a rebalance or a resume.
    pub replayed: u64,
    /// Messages of partitions that were no longer ours.
    pub stale: u64,
}

/// A log being read by one thread.
pub trait Source: Send {
    /// Waits at most `timeout` for the next event. Returns messages of about `max_bytes` at most, as
    /// [`Message::held_bytes`] counts them, and at least one message if any is there.
    ///
    /// # Errors
    /// A gap, a position outside the log, a damaged log, a refused connection. Temporary faults (a broker that
    /// does not answer for a while) are not errors: they read as [`SourceEvent::Idle`].
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<SourceEvent, SourceError>;

    /// Begins (or begins anew) to read assigned partitions at the table's positions. A partition that the table has
    /// never seen starts at 0.
    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError>;

    /// Stops reading partitions for a while; [`Source::poll`] must still be called. A log that is truncated and written
    /// anew meanwhile is noticed when it is read again, unless no message of it was read before.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// Reads paused partitions again.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// Reports to the log what has landed, for lag tools and for reclaiming a spool. It is never read back as a
    /// position.
    fn report(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError>;

    /// The offsets that can be read now. Who reads up to `high` has caught up.
    fn watermarks(&mut self, at: &TopicPartition) -> Result<Watermarks, SourceError>;

    /// The end of the log, whether what stands there can be read yet or not: a table that is further on than this has
    /// seen another log. After a power failure a spool may hold more than its high watermark shows as synced, and a
    /// table may have all of it.
    fn end(&mut self, at: &TopicPartition) -> Result<NextOffset, SourceError> {
        Ok(self.watermarks(at)?.high)
    }

    /// The identity of the log behind a partition, to be kept beside the offsets it gives meaning to.
    fn identity(&mut self, at: &TopicPartition) -> Result<LogIdentity, SourceError>;

    /// [`Source::identity`] of several partitions, in their order, asked for at once: what was polled before this call
    /// came from the logs that it names, if these are the logs that reading began with, for an identity is never given
    /// twice.
    ///
    /// # Errors
    /// As [`Source::identity`], for the first partition that has none.
    fn identities(&mut self, partitions: &[TopicPartition]) -> Result<Vec<LogIdentity>, SourceError> {
        partitions.iter().map(|at| self.identity(at)).collect()
    }

    /// [`fingerprint`] of the message just below `next`, or `None` if the log no longer holds it. Differs from the one
    /// kept in the table when the log was truncated and written anew.
    fn fingerprint(&mut self, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, SourceError>;

    /// What is behind partitions that are to be read together, in their order, each with the offset below which its
    /// message is compared, if any. Identities are asked for first: should a log be made anew after that answer, the
    /// next one of [`Source::identities`] is another.
    ///
    /// # Errors
    /// The first that a partition has. It does not say what the others would have answered.
    fn beginnings(&mut self, asked: &[(TopicPartition, Option<NextOffset>)]) -> Result<Vec<Beginning>, SourceError> {
        let mut found = Vec::with_capacity(asked.len());
        for (at, landed) in asked {
            let identity = self.identity(at)?;
            let watermarks = self.watermarks(at)?;
            let state = LogState { identity, watermarks, fingerprint: None };
            let mut beginning = Beginning { state, end: watermarks.high };
            if landed.is_some() {
                beginning.end = self.end(at)?;
            }
            if let Some(next) = landed.filter(|next| *next <= beginning.end) {
                beginning.state.fingerprint = self.fingerprint(at, next)?;
            }
            found.push(beginning);
        }
        Ok(found)
    }

    /// How many offsets of each partition are written and cannot be read yet because a transaction before or at them is
    /// open.
    fn undecided(&self) -> Vec<(TopicPartition, u64)> {
        Vec::new()
    }

    /// Reads every partition on at its next offset, also one whose position was refused. A position that is not in the
    /// log is reported again, and so is a log that was truncated and written anew, unless no message of it was read
    /// before.
    fn read_on(&mut self) {}

    /// What keeps messages of a partition back for long, although it is neither paused nor failed.
    fn held_up(&self) -> Option<String> {
        None
    }

    /// What was dropped so far.
    fn stats(&self) -> SourceStats;
}

/// CRC32C of key, payload and timestamp of a message: what the table records of the last message that it landed.
pub fn fingerprint(message: &Message) -> u32 {
    // Not cryptographic: it has to differ where a log was truncated and written anew, not to resist an attacker.
    let key = crc32c::crc32c(message.key.as_deref().unwrap_or_default());
    let payload = crc32c::crc32c_append(key, &message.payload);
    crc32c::crc32c_append(payload, &message.timestamp_ms.to_le_bytes())
}

/// Offsets that should follow one another do not, although the log holds messages in between or held them. Never
/// skipped silently: the owner stops the partition, or records the missing range and starts behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "gap in {partition}: expected offset {expected}, got {got} (low watermark {}); {}",
    low_watermark.map_or_else(|| "unknown".to_owned(), |low| low.to_string()),
    gap_advice(*expected, *low_watermark)
)]
pub struct GapError {
    /// Where messages are missing.
    pub partition: TopicPartition,
    /// The first missing offset.
    pub expected: NextOffset,
    /// The offset of the message that came instead; above `expected`.
    pub got: i64,
    /// The oldest offset that the log holds; `None` when the log could not be asked.
    pub low_watermark: Option<NextOffset>,
}

fn gap_advice(expected: NextOffset, low_watermark: Option<NextOffset>) -> &'static str {
    match low_watermark {
        Some(low) if expected < low => {
            "retention deleted the missing messages before they were read: record the gap to go on"
        }
        _ => "the client left out messages that the log holds: start again, nothing was skipped",
    }
}

impl SourceError {
    /// The same request may succeed later: once a broker is back, or what the group has changed was polled.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Kafka(error) => error.is_transient(),
            Self::Rebalanced => true,
            _ => false,
        }
    }
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Gap(#[from] GapError),
    #[error(
        "offset {next} of {partition} is below the low watermark {low}: retention deleted {} messages before they were \
         read; record the gap to go on at {low}",
        low.0 - next.0
    )]
    Retention { partition: TopicPartition, next: NextOffset, low: NextOffset },
    #[error(
        "offset {next} of {partition} is above the end of the log ({high}): the log was truncated or made anew under the \
         same name; compare its identity with the table's before going on"
    )]
    Truncated { partition: TopicPartition, next: NextOffset, high: NextOffset },
    #[error(
        "the message of {partition} below offset {next} is not the one that was read there: the log was truncated and written \
         anew, or made anew under the same name"
    )]
    Rewritten { partition: TopicPartition, next: NextOffset },
    #[error(
        "kafka refused a position that lies within its log: the log was truncated and has grown again, or the partition has \
         moved; start again, so that the log is compared with the tables"
    )]
    Refused,
    #[error("{0} is not assigned: start only what was announced as assigned")]
    NotAssigned(TopicPartition),
    #[error("the group has changed what is assigned: poll first")]
    Rebalanced,
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Log(#[from] LogError),
}
