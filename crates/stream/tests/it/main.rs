//! Kafka against a real broker, and the spool log against processes that are killed.
//!
//! The broker is the one at `CAUSEWAY_TEST_KAFKA` (`host:port`), or one started by `infra/dev/kafka.sh` for this run. Tests
//! that kill a broker always start their own.
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

mod broker;
mod group;
mod kafka;
mod log;
