//! The query service over real tables: written through the lake as ingest writes them, asked over HTTP as users ask.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate: a surprise should end the test"
)]

mod answers;
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
mod trino;
mod trino_client;
mod untraced;
mod views;
