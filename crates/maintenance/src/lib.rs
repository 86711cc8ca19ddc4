//! What keeps the tables of a lake fast, small and cheap beside their writers: data files are merged and sorted, old
//! days are dropped, objects that no snapshot needs are removed. Snapshots are thinned by each commit itself (`lake`).
//!
//! ```text
//! survey ─► plan (pure) ─► Task ─► Rewriter::write ─► verify ─► commit
//!            policy, time           read, merge        read back, compare   compare-and-swap, or a conflict
//! ```
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

pub mod check;
mod land;
pub mod orphans;
pub mod plan;
pub mod policy;
pub mod retention;
pub mod rewrite;
mod survey;
pub mod task;

pub use land::{LandError, Landed, land};
pub use policy::{Limits, Policy};
pub use survey::{LeftAlone, Survey, is_current, survey};
pub use task::Task;
