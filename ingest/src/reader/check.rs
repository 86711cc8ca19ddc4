//! When the identity of the log is asked for.

use std::time::{Duration, Instant};

use super::POLL_BYTES;

/// Least time between two checks of the log's identity while messages come; one more is made per [`POLL_BYTES`].
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// Time between two checks while no messages come.
const CHECK_QUIET_EVERY: Duration = Duration::from_secs(5);
/// Time between two checks while the log does not answer.
const CHECK_AGAIN: Duration = Duration::from_millis(500);

/// When the identity of the log is to be asked for again.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) asked: Option<Instant>,
    /// Something happened that may mean another log: reading was paused, or a fetch failed.
    pub(super) is_wanted: bool,
    /// The log did not answer the last time.
    pub(super) is_failing: bool,
}

impl Check {
    pub(super) fn is_due(&self, polled_messages: usize, polled_bytes: usize) -> bool {
        let Some(asked) = self.asked else { return true };
        let age = asked.elapsed();
        if self.is_failing {
            return age >= CHECK_AGAIN;
        }
        let has_reason = polled_messages > 0 || self.is_wanted;
        (has_reason && age >= CHECK_EVERY) || polled_bytes >= POLL_BYTES || age >= CHECK_QUIET_EVERY
    }
}
