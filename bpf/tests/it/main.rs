//! The probes against the real kernel, traced processes and stub libraries. Needs root: a test run by another user says
//! that it was skipped; run by root, it must pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

mod calls;
mod environments;
mod harness;
mod process;
mod refusals;
mod samples;
mod sched;
mod stub;
