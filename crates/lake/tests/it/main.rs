//! The lake over real servers. What does not depend on a server runs on both set-ups: SQLite and a directory, PostgreSQL
//! and S3. What landed is counted by PyIceberg and DuckDB, which share no code with it.
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

#[macro_use]
mod place;
mod actions;
mod ambiguous;
mod attachments;
mod foreign;
mod growth;
mod history;
mod homes;
mod leases;
mod maintained;
mod merge;
mod oracle;
mod orphans;
mod protocol;
mod proxy;
mod race;
mod refusals;
mod remake;
mod retention;
mod round_trip;
mod rows;
mod servers;
mod spark;
mod store_faults;
mod warehouse;
