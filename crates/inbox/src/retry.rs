//! Whether the bulk path works, as `/readyz` shows it, and how long to wait after a failure.

use std::error::Error;
use std::time::{Duration, Instant};

use service_kit::admin::Condition;
use service_kit::run::{Drain, in_a_line};

/// The first pause after a failure, and the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);
/// How often failures that repeat are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Failures since the last success.
#[derive(Debug)]
pub(crate) struct Failures {
    condition: Condition,
    pause: Duration,
    logged: Option<Instant>,
    /// Until when a failure of an object counts, although the queue can be read.
    until: Option<Instant>,
}

impl Failures {
    pub(crate) fn new(condition: Condition) -> Self {
        Self { condition, pause: FIRST, logged: None, until: None }
    }

    /// Records a failure. `counts` is how long it holds while nothing else succeeds: an object that is attempted again
    /// after a time has not succeeded before.
    pub(crate) fn note(&mut self, doing: &str, error: &(dyn Error + 'static), counts: Duration) {
        let reason = in_a_line(error);
        // Rate limiting: at the longest pause four attempts a minute fail for the same reason.
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(reason, "{doing} failed; it is attempted again, and nothing is lost");
        }
        self.condition.unmet(format!("{doing} failed: {reason}"));
        self.until = Some(Instant::now() + counts);
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&mut self, drain: &Drain) {
        tokio::select! {
            () = drain.cancelled() => {}
            () = tokio::time::sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(LONGEST);
    }

    /// Records that everything that was attempted succeeded.
    pub(crate) fn over(&mut self) {
        self.pause = FIRST;
        self.until = None;
        self.logged = None;
        self.condition.met();
    }

    /// Records that there was nothing to do.
    pub(crate) fn idle(&mut self) {
        if self.until.is_none_or(|until| Instant::now() >= until) {
            self.over();
        }
    }
}
