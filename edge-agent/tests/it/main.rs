//! The whole agent against the real kernel, the stub training job and a real spool. Needs root, as the probes do: a test run by
//! another user says that it was skipped.
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

#[path = "../../../bpf/tests/it/harness.rs"]
#[expect(dead_code, reason = "written for the probes' own tests, which use more of it")]
mod harness;

mod identity;
mod live;
mod program;
mod spool;
