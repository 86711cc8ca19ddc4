//! What is done when the catalog or the store is away after ingest has begun: wait, try again, and say so on `/readyz` until it is back.
//! Nothing is given up, because everything that has not landed is still in the log.

use std::error::Error;
use std::time::{Duration, Instant};

use service_kit::admin::Condition;
use service_kit::run::in_a_line;

/// First and longest pause before the next attempt.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// How often the log is told of attempts that go on failing.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The attempts at one thing. The condition is met again when it ends.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    condition: &'a Condition,
    pause: Duration,
    told: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(condition: &'a Condition) -> Self {
        Self { condition, pause: FIRST, told: None }
    }

    /// Tells that `doing` failed, and returns when it may be tried again.
    pub(crate) async fn wait(&mut self, doing: &str, error: &(dyn Error + Sync)) {
        let reason = in_a_line(error);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(reason, "{doing} failed; trying again until it succeeds");
        }
        self.condition.unmet(format!("{doing} failed: {reason}"));
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.condition.met();
    }
}
