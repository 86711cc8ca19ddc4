//! Every table of the lake: its definition, and how its rows are made from messages.
//!
//! Pure. A batch of messages goes once through [`arrival`] (decode, drop what was seen before) and then through the
//! `rows` function of each table in [`registry`]. The same functions serve live ingest, recovery and reprocessing, so
//! that all give the same rows. A new table is a file, a [`registry::Content`] and a line in [`registry`].
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]

pub mod arrival;
pub mod bronze;
pub mod columns;
mod coordinates;
pub mod def;
pub mod gold;
pub mod hash;
pub mod ops;
pub mod registry;
pub mod seen;
pub mod silver;
