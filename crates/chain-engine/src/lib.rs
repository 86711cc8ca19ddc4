//! Finds the slow rank of a job, the cause and the evidence, and gives a reason where it cannot.
//!
//! All ranks of a collective wait for the slowest one, so every rank's iteration takes equally long and the longest
//! collective is that of a rank that only waits. The engine therefore compares what is not waiting, each step in a
//! module of its own:
//!
//! 1. [`engine`] takes rows in any order, holds them back until a watermark passes and folds them per process;
//! 2. `iteration` cuts a thread's time into iterations at its synchronising calls;
//! 3. `features` splits each iteration into waiting for other ranks, waiting for a CPU, sleeping and the rest;
//! 4. `peers` compares what is not waiting (the busy time) with the other ranks in the same stretch of time, and
//!    requires that the difference lasts;
//! 5. `explain` computes, for the rank so singled out only, how much of the difference was time in which it was
//!    runnable but not running;
//! 6. `judge` reaches the verdict on a run: chains (`narrate` words them), or "healthy", or "unknown" with a reason
//!    ([`verdict`]);
//! 7. [`chain`], [`group`] and [`text`] hold and show what was found.
//!
//! [`compat`] stands apart: it reports what the reference tracer's rules would.
//!
//! Iterations that overlap a time in which their node lost much are left out, and the answer says so: see `loss`.
//!
//! Waits are measured on each node's own clock, so that no synchronised clocks are needed to find the slow rank. Wall
//! time only aligns ranks, in stretches much longer than clocks usually differ by. An order of events is stated for
//! events of one node only.
//!
//! Pure: no tokio, no I/O, no clock, no environment, no logging. The same rows give the same answer in any order of
//! arrival.
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

pub mod chain;
pub mod columns;
pub mod compat;
pub mod engine;
mod explain;
mod features;
pub mod format;
pub mod group;
mod iteration;
mod job;
mod judge;
mod loss;
mod names;
mod narrate;
pub mod observation;
mod peers;
mod process;
pub mod rules;
mod stats;
pub mod text;
pub mod verdict;

pub use chain::{Cause, Chain, Culprit, Severity, Step};
pub use columns::{COLUMNS, ColumnError};
pub use engine::Engine;
pub use loss::Loss;
pub use observation::Observation;
pub use rules::{Limits, Rules, Settings};
pub use verdict::{ChargedLoss, Coverage, Finding, IncompleteNode, Reason, Shares, StragglerRank, Verdict};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
