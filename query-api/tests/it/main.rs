//! The query service over real tables: written through the lake as ingest writes them, asked over HTTP as users ask.
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

mod answers;
mod archived;
mod cases;
mod chains;
mod damage;
mod differential;
mod fixture;
mod limits;
mod openapi;
mod protocol;
mod pruning;
mod questions;
#[path = "../../../ingest/tests/it/s3.rs"]
mod s3;
mod trino;
mod trino_client;
mod untraced;
mod views;
