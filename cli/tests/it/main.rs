//! The `causeway` binary from outside: recordings go in, answers and exit codes come out.
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

mod again;
mod bench;
mod dlq;
mod imports;
mod interrupted;
mod limits;
mod live;
mod lives;
mod maintain;
mod maintained;
mod manners;
mod merged;
mod orphans;
mod prompt;
mod recordings;
mod refusals;
mod reprocess;
mod rollback;
mod run;
mod thinned;
