//! The answers of Causeway: causal chains, stragglers, nodes, tables, and how complete any of it is.
//!
//! Every answer is a method of [`Answers`] and a type with serde and an OpenAPI schema: a surface reads its request,
//! calls, and prints what comes back. No HTTP here, and no DataFusion: rows come from the crate `query-engine` as Arrow
//! batches.
//!
//! * [`chains`] runs the chain engine over a [`window`] of time; [`stragglers`] is the ranking behind the chains.
//! * [`completeness`] says what is missing from an answer, from `ops.ledger`.
//! * [`nodes`], [`tables`], [`untraced`] and [`jobs`] say what there is; [`hints`] what to do where there is nothing.
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

mod answers;
pub mod chains;
mod columns;
pub mod completeness;
pub mod hints;
pub mod jobs;
pub mod nodes;
pub mod stragglers;
pub mod tables;
pub mod time;
pub mod untraced;
pub mod verdict;
pub mod window;

pub use answers::Answers;
