//! Kafka against a real broker, and the spool log against processes that are killed.
//!
//! The broker is the one at `CAUSEWAY_TEST_KAFKA` (`host:port`), or one started by `infra/dev/kafka.sh` for this run. Tests
//! that kill a broker always start their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

mod broker;
mod group;
mod kafka;
mod log;
