//! The `causeway` binary from outside: recordings go in, answers and exit codes come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

mod again;
mod bench;
mod imports;
mod interrupted;
mod limits;
mod live;
mod lives;
mod manners;
mod merged;
mod prompt;
mod recordings;
mod refusals;
mod rollback;
mod run;
