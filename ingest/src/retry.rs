//! Retries, with exponential backoff, while the catalog or the store does not answer. `/readyz` shows the reason until
//! the attempt succeeds. Nothing is given up, because everything that has not landed is still in the log.

use std::error::Error;
use std::time::{Duration, Instant};

use service_kit::admin::Condition;
use service_kit::run::in_a_line;

/// The first pause before the next attempt, and the longest.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// How often attempts that go on failing are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The attempts at one thing. The condition is met again when it ends.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    condition: &'a Condition,
    pause: Duration,
    logged: Option<Instant>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(condition: &'a Condition) -> Self {
        Self { condition, pause: FIRST, logged: None }
    }

    /// Shows that `doing` failed, and returns when it may be tried again.
    pub(crate) async fn wait(&mut self, doing: &str, error: &(dyn Error + Sync)) {
        let reason = in_a_line(error);
        // Rate limiting: at the longest pause twelve attempts a minute fail for the same reason.
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(reason, "{doing} failed; trying again until it succeeds");
        }
        self.condition.unmet(format!("{doing} failed: {reason}"));
        tokio::time::sleep(self.pause).await;
        // The limit bounds how long landing lags behind a service that has come back.
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

impl Drop for Retry<'_> {
    fn drop(&mut self) {
        self.condition.met();
    }
}
