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
    /// When the identity was asked for last; never, at first.
    asked: Option<Instant>,
    /// Something happened that may mean another log: reading was paused, or a fetch failed.
    is_wanted: bool,
    /// The log did not answer the last time.
    is_failing: bool,
}

impl Check {
    /// The identity is asked for now.
    pub(super) fn begin(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// The log has answered: no reason for another check is left.
    pub(super) fn succeed(&mut self) {
        self.is_failing = false;
        self.is_wanted = false;
    }

    /// The log has not answered.
    pub(super) fn fail(&mut self) {
        self.is_failing = true;
    }

    /// The next check is made soon, although no message may come.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the log did not answer the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Makes the next check due at once.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }

    pub(super) fn is_due(&self, polled_messages: usize, polled_bytes: usize) -> bool {
        let Some(asked) = self.asked else { return true };
        let age = asked.elapsed();
        // Also when more bytes were polled: the log is paused until the broker answers.
        if self.is_failing {
            return age >= CHECK_AGAIN;
        }
        let has_reason = polled_messages > 0 || self.is_wanted;
        // The bytes bound what waits unconfirmed. The long interval finds a topic that was made anew although nothing
        // of it comes and no fetch fails.
        (has_reason && age >= CHECK_EVERY) || polled_bytes >= POLL_BYTES || age >= CHECK_QUIET_EVERY
    }
}
