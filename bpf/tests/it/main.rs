//! The probes against the real kernel, traced processes and stub libraries. Needs root: a test run by another user says
//! that it was skipped; run by root, it must pass.
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

mod calls;
mod environments;
mod harness;
mod process;
mod refusals;
mod samples;
mod sched;
mod stub;
