//! What `bronze.messages` records of the logs it was filled from, so that another log of the same name is not taken for
//! the same.

use std::collections::HashMap;
use std::fmt;

use event_schema::position::{NextOffset, TopicPartition};

use crate::note::Note;

/// `causeway.log.<topic>/<partition>` of `bronze.messages`: offset, fingerprint and identity of the log it was filled
/// from.
const PREFIX: &str = "causeway.log.";

/// A log as it was when the messages below `next` had landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// How far the log had landed.
    pub next: NextOffset,
    /// Fingerprint of the message just below `next`; absent when none was read there.
    pub fingerprint: Option<u32>,
    /// Kafka's topic id, or the id of the spool partition.
    pub identity: String,
}

/// The newest log of a partition that has landed anything, by its name in the tables. `landed` are the logs that
/// `bronze.messages` has offsets of: it lands the first offsets of a log before any other table, and so names every
/// log.
pub fn newest_log<'a>(at: &TopicPartition, landed: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartition {
    let of_partition = landed.into_iter().filter(|log| log.without_generation() == *at);
    // A partition of which nothing has landed is its first log.
    at.of_generation(of_partition.map(TopicPartition::generation).max().unwrap_or(1))
}

impl Mark {
    /// The property that keeps the mark of a partition.
    fn key(at: &TopicPartition) -> String {
        format!("{PREFIX}{at}")
    }

    /// The property to write once the log has landed up to `reached`, which may lie behind the last message.
    pub(crate) fn note(&self, at: &TopicPartition, reached: NextOffset) -> Note {
        Note { at: at.clone(), next: reached, key: Self::key(at), value: self.to_string() }
    }

    /// Whether the message just below [`Self::next`], of which the log shows this fingerprint, is another one than
    /// landed.
    pub fn is_rewritten(&self, found: Option<u32>) -> bool {
        // A message that retention or compaction has deleted can no longer be compared; nor is there anything to
        // compare where only offsets without a message were read.
        found.is_some() && self.fingerprint.is_some() && found != self.fingerprint
    }

    /// The mark of a log among the properties of `bronze.messages`.
    pub fn of(properties: &HashMap<String, String>, at: &TopicPartition) -> Option<Self> {
        // At most three parts: an identity may hold a colon.
        let mut parts = properties.get(&Self::key(at))?.splitn(3, ':');
        let next = NextOffset(parts.next()?.parse().ok()?);
        // Empty where no message was read.
        let fingerprint = parts.next()?.parse().ok();
        Some(Self { next, fingerprint, identity: parts.next()?.to_owned() })
    }
}

/// `offset:fingerprint:identity`, as [`Mark::of`] reads it.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.next)?;
        if let Some(fingerprint) = self.fingerprint {
            write!(f, "{fingerprint}")?;
        }
        write!(f, ":{}", self.identity)
    }
}
