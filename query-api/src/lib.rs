//! Every read surface of Causeway: SQL over HTTP, the Trino client protocol, causal chains, completeness.
//!
//! Surfaces only: each handler reads a request, calls, and prints. The crate `query-engine` turns SQL into batches over
//! pinned snapshots, the crate `answers` makes answers of them; [`http`] speaks the protocols, [`wire`] has the
//! documents that are not answers; [`service`] wires them and drains.
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

pub mod http;
pub mod service;
pub mod settings;
pub mod wire;
