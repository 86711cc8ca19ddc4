//! Load: where the messages of the simulated fleet go, and the benches that print what the system does with them, each
//! figure beside a limit or a peer measured in the same run.
//!
//! `stub/` holds stand-ins for the CUDA and NCCL libraries and a training program that calls them: what the agent
//! traces where there is no GPU.
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

pub mod bench;
pub mod child;
pub mod out;
