//! The edge agent: kernel probes on a GPU node, batches, a crash-safe spool, Kafka.
//!
//! A record walks [`collect`] (rings, enriched from [`process`]) → [`batcher`] → [`spool`] (numbered, encoded, durable)
//! → [`ship`]. Each arrow is a thread boundary that can only lose what it counts:
//! `emitted = landed + ring_drop + shed + sampled_out + spool_drop`, per node, boot and epoch. What is to be traced is
//! found beside it, by [`discover`].
//!
//! Start reading at [`agent::Agent::run`].
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

pub mod agent;
pub mod batcher;
pub mod cgroups;
pub mod clock;
pub mod collect;
pub mod config;
pub mod discover;
pub mod facts;
pub mod halve;
pub mod identity;
pub mod metrics;
pub mod numbering;
pub mod options;
pub mod process;
pub mod service;
pub mod ship;
pub mod spool;

pub use agent::{Agent, AgentError, Outcome};
pub use config::AgentSettings;
pub use metrics::Metrics;
pub use options::Options;
pub use spool::SpoolOptions;
