//! Says which rank of a job is slow, why, and by what evidence; and says nothing when there is nothing to say.
//!
//! All ranks of a collective wait for the slowest one, so every rank's iteration takes equally long and the longest collective
//! names a victim. The engine therefore goes the other way round, each step in a module of its own:
//!
//! 1. [`engine`] takes rows in any order, holds them back until a watermark passes and folds them per process;
//! 2. `iteration` cuts a thread's time into iterations at its synchronising calls;
//! 3. `features` splits each iteration into waiting for others, wanting a CPU, sleeping and the rest;
//! 4. `peers` compares what is not waiting (the busy time) with the other ranks in the same stretch of time, and requires that
//!    the difference lasts;
//! 5. `explain` asks, of the rank so singled out only, how much of the difference was time it was runnable but not running;
//! 6. `judge` decides what is said of a run: chains (`narrate` words them), or "healthy", or "unknown" with a reason ([`verdict`]);
//! 7. [`chain`], [`group`] and [`text`] hold and show what was found.
//!
//! [`compat`] stands apart: it says what the reference tracer's rules would.
//!
//! Iterations that overlap a time in which their node lost much are left out, and the answer says so: see `loss`.
//!
//! Waits are measured on each node's own clock, so blaming needs no synchronised clocks. Wall time only lays ranks side by side,
//! in stretches much longer than clocks usually differ by; what came first is said of events of one node only.
//!
//! Pure: no tokio, no I/O, no clock, no environment, no logging. The same rows give the same answer in any order of arrival.
#![forbid(unsafe_code)]

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
