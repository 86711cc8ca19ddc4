//! The `causeway` binary from outside: recordings go in, answers and exit codes come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what went wrong by panicking")]

mod imports;
mod live;
mod lives;
mod refusals;
mod run;
