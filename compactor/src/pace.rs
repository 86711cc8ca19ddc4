//! How many bytes may be read in an hour. Pure: the time is passed in.

use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;

/// A limit on bytes per hour. A task may be larger than what is left of an hour: the next one then waits for longer.
#[derive(Debug)]
pub(crate) struct Pace {
    per_hour: Option<u64>,
    /// When what was read so far is paid for, unix milliseconds.
    free_at_ms: i64,
}

impl Pace {
    pub(crate) fn new(per_hour: Option<u64>) -> Self {
        Self { per_hour, free_at_ms: i64::MIN }
    }

    /// How long the next task has to wait.
    pub(crate) fn wait(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.free_at_ms.saturating_sub(now_ms)).unwrap_or(0))
    }

    /// Counts bytes that are read.
    pub(crate) fn spend(&mut self, bytes: u64, now_ms: i64) {
        let Some(per_hour) = self.per_hour else { return };
        // In 128 bits: terabytes times milliseconds pass 64.
        let time_ms = u128::from(bytes) * u128::from(HOUR_MS) / u128::from(per_hour.max(1));
        let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
        self.free_at_ms = self.free_at_ms.max(now_ms).saturating_add(time_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_are_read_in_an_hour_as_are_allowed() {
        let mut pace = Pace::new(Some(3_600));
        assert_eq!(pace.wait(0), Duration::ZERO);
        pace.spend(10, 1_000);
        assert_eq!(pace.wait(1_000), Duration::from_secs(10));
        assert_eq!(pace.wait(11_000), Duration::ZERO);
        pace.spend(1, 500_000);
        assert_eq!(pace.wait(500_000), Duration::from_secs(1), "what was not read before is not saved up");
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(None);
        pace.spend(u64::MAX, 0);
        assert_eq!(pace.wait(0), Duration::ZERO);
    }
}
