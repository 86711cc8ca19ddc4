//! What is done when the catalog or the store is away after ingest has begun: wait, try again, and say so on `/readyz` until it is back.
//! Nothing is given up, because everything that has not landed is still in the log.

use std::error::Error;
use std::time::Duration;

use service_kit::admin::Condition;

/// First and longest pause before the next attempt.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// The attempts at one thing. The condition is met again when it ends.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    condition: &'a Condition,
    pause: Duration,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(condition: &'a Condition) -> Self {
        Self { condition, pause: FIRST }
    }

    /// Tells that `doing` failed, and returns when it may be tried again.
    pub(crate) async fn wait(&mut self, doing: &str, error: &(dyn Error + Sync)) {
        let reason = service_kit::run::report(error);
        tracing::warn!(reason, "{doing} failed; trying again");
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
