//! The programs as users run them, against real Kafka, PostgreSQL and S3, under faults. What they have written is judged by
//! `causeway audit` and, without a line of our code, by PyIceberg and DuckDB (`infra/dev/oracle.py`).
//!
//! The programs are taken from beside this test (`make test` builds them first). Random choices follow from `CAUSEWAY_SEED`,
//! which is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cognitive_complexity,
    reason = "a test crate: a surprise should end the test, and numbers are small"
)]

#[path = "../../../../bpf/tests/it/harness.rs"]
#[expect(dead_code, reason = "written for the probes' own tests, which use more of it")]
mod harness;

mod agent;
mod bulk;
mod chance;
mod dlq;
mod exactly_once;
mod fenced;
mod fleet;
mod group;
mod ingest;
mod kafka_away;
mod made_anew;
mod mirror;
mod place;
mod program;
mod refusals;
mod rollback;
mod server;
mod to_the_lake;
mod topics;
mod transactions;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Polls until `done` holds; fails with `what` when it does not in time.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for_rest(what, || if done() { Vec::new() } else { vec![()] });
}

/// Polls until nothing is left; fails with `what` and what is left when that is not so in time.
#[track_caller]
fn wait_for_rest<T: Debug>(what: &str, mut left: impl FnMut() -> Vec<T>) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not within {TEST_TIMEOUT:?}: {what}; left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
