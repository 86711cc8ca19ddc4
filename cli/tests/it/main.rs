//! The `causeway` binary from outside: recordings go in, answers and exit codes come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

mod imports;
mod limits;
mod live;
mod lives;
mod manners;
mod recordings;
mod refusals;
mod run;
