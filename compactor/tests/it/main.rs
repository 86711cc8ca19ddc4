//! The compactor over real servers: SQLite and a directory, PostgreSQL and S3. What it leaves is counted by PyIceberg
//! and DuckDB, and proved by the audit.
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

// The set-ups of the lake's own tests.
#[allow(dead_code, reason = "shared with the tests of lake")]
#[macro_use]
#[path = "../../../crates/lake/tests/it/place.rs"]
mod place;
#[allow(dead_code, reason = "shared with the tests of lake")]
#[path = "../../../crates/lake/tests/it/oracle.rs"]
mod oracle;
#[allow(dead_code, reason = "shared with the tests of lake")]
#[path = "../../../crates/lake/tests/it/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "shared with the tests of lake")]
#[path = "../../../crates/lake/tests/it/rows.rs"]
mod rows;
#[allow(dead_code, reason = "shared with the tests of lake")]
#[path = "../../../crates/lake/tests/it/servers.rs"]
mod servers;

mod beside;
mod checked;
mod fleet;
mod foreign;
mod leases;
mod program;
mod whole;
