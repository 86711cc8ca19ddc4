//! Why reading the log ends.

use event_schema::position::{NextOffset, TopicPartition};
use stream::{GapError, SourceError};

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    #[error("the log cannot be read")]
    Source(#[source] SourceError),
    #[error(
        "retention deleted {} messages of {at} before they were read: the tables end at offset {next}, the log begins at {low}. \
         To go on there, and have the gap recorded in every table, start again with `ingest.on_gap = \"record\"`",
        low.0 - next.0
    )]
    Overtaken { at: TopicPartition, next: NextOffset, low: NextOffset },
    #[error(
        "{at} is another log than the one the tables were filled from: its identity is `{found}`, the tables record \
         `{expected}`. The topic was deleted and made anew under the same name; nothing of the new log has landed. \
         {WAY_ON}"
    )]
    Recreated { at: TopicPartition, expected: String, found: String },
    #[error(
        "{at} was truncated and written anew: the message below offset {next} is not the one that landed. {WAY_ON}"
    )]
    Rewritten { at: TopicPartition, next: NextOffset },
    #[error(
        "{at} ends at offset {end}, before offset {next} that the tables have reached: the log was truncated, or restored from \
         an older copy. {WAY_ON}"
    )]
    Truncated { at: TopicPartition, next: NextOffset, end: NextOffset },
    #[error("the thread that reads the log could not be started")]
    Thread(#[source] std::io::Error),
}

/// What the operator can do about another log under the same name.
const WAY_ON: &str = "To keep what has landed and read this log from its oldest message on, with offsets of its own, start \
                      again with `ingest.on_new_log = \"follow\"`";

impl ReaderError {
    /// The partition that the error is about, by its name in the log.
    pub(crate) fn partition(&self) -> Option<&TopicPartition> {
        match self {
            Self::Overtaken { at, .. }
            | Self::Recreated { at, .. }
            | Self::Rewritten { at, .. }
            | Self::Truncated { at, .. } => Some(at),
            Self::Source(SourceError::Gap(gap)) => Some(&gap.partition),
            Self::Source(_) | Self::Thread(_) => None,
        }
    }

    /// Whether another log under the name of the one that is read may be the reason.
    pub(crate) fn may_come_of_another_log(&self) -> bool {
        match self {
            Self::Overtaken { .. } | Self::Recreated { .. } | Self::Rewritten { .. } | Self::Truncated { .. } => true,
            Self::Source(SourceError::Kafka(error)) => error.is_damage(),
            Self::Source(_) => true,
            Self::Thread(_) => false,
        }
    }

    /// Whether the log refused a position without naming the partition.
    pub(crate) fn is_refused_position(&self) -> bool {
        matches!(self, Self::Source(SourceError::Refused))
    }

    /// Whether the offsets of the tables do not belong to the log that is there now.
    pub(crate) fn is_other_log(&self) -> bool {
        matches!(self, Self::Recreated { .. } | Self::Rewritten { .. } | Self::Truncated { .. })
    }
}

impl From<SourceError> for ReaderError {
    fn from(source: SourceError) -> Self {
        match source {
            SourceError::Retention { partition: at, next, low } => Self::Overtaken { at, next, low },
            SourceError::Truncated { partition: at, next, high: end } => Self::Truncated { at, next, end },
            SourceError::Rewritten { partition: at, next } => Self::Rewritten { at, next },
            // Retention has deleted the missing messages while the partition was read: the same as a position below the
            // low watermark.
            SourceError::Gap(GapError { partition: at, expected: next, low_watermark: Some(low), .. })
                if next < low =>
            {
                Self::Overtaken { at, next, low }
            }
            source => Self::Source(source),
        }
    }
}
