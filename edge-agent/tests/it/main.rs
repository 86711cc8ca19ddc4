//! The whole agent against the real kernel, the stub training job and a real spool. Needs root, as the probes do: a test run by
//! another user says that it was skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

#[path = "../../../bpf/tests/it/harness.rs"]
#[expect(dead_code, reason = "written for the probes' own tests, which use more of it")]
mod harness;

mod identity;
mod live;
mod program;
mod spool;
