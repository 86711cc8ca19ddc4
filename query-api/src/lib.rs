//! Every read surface of Causeway: SQL over HTTP, the Trino client protocol, causal chains, completeness.
//!
//! The crate `query-engine` turns SQL into batches over pinned snapshots; [`http`] speaks the protocols; [`detect`] runs the chain
//! engine over a window of events; [`service`] wires them and drains.
#![forbid(unsafe_code)]

pub mod completeness;
pub mod detect;
pub mod http;
pub mod service;
pub mod settings;
mod time;
