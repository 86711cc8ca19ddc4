//! What `bronze.messages` remembers of the logs it was filled from, so that another log of the same name is not taken for
//! the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};

/// `causeway.log.<topic>/<partition>` of `bronze.messages`: offset, fingerprint and identity of the log it was filled from.
const PREFIX: &str = "causeway.log.";

/// The logs of a batch as they were when it was closed.
pub(crate) type Marks = BTreeMap<TopicPartition, Mark>;

/// A log as it was when the messages below `next` had landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) next: NextOffset,
    /// Fingerprint of the message just below `next`.
    pub(crate) fingerprint: Option<u32>,
    pub(crate) identity: String,
}

impl Mark {
    /// The property that keeps the mark of a partition.
    fn key(at: &TopicPartition) -> String {
        format!("{PREFIX}{at}")
    }

    /// The properties to write with a commit of `ranges`: marks only of what it moves, because another owner may have moved
    /// the rest further.
    pub(crate) fn properties(marks: &Marks, ranges: &[OffsetRange]) -> BTreeMap<String, String> {
        let mark = |range: &OffsetRange| marks.get(&range.at).filter(|mark| mark.next.0 == range.end);
        ranges.iter().filter_map(|range| Some((Self::key(&range.at), mark(range)?.to_string()))).collect()
    }

    pub(crate) fn of(properties: &HashMap<String, String>, at: &TopicPartition) -> Option<Self> {
        let mut parts = properties.get(&Self::key(at))?.splitn(3, ':');
        let next = NextOffset(parts.next()?.parse().ok()?);
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
