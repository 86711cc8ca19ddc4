//! What keeps the tables of a lake fast, small and cheap beside their writers: data files are merged and sorted, old
//! days are dropped, objects that no snapshot needs are removed. Snapshots are thinned by each commit itself (`lake`).
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

pub mod orphans;
pub mod retention;
