//! Benches: figures and ratios, each beside the limit it is held against, all of one run.

pub mod bare;
pub mod checksum;
pub mod commit;
pub mod compact;
pub mod detect;
pub mod freshness;
pub mod ingest;
pub mod memory;
pub mod report;
pub mod setup;

use crate::child::ChildError;
use crate::out::OutError;
use fleet_sim::FleetError;

/// Why a bench could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Out(#[from] OutError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("`{what}` failed")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the lake cannot be opened")]
    Lake(#[from] lake::OpenError),
    #[error("a table cannot be made")]
    Table(#[from] lake::EnsureError),
    #[error("a table cannot be read")]
    Read(#[from] lake::ReadError),
    #[error("files cannot be written")]
    Write(#[from] lake::WriteError),
    #[error("rows cannot be made")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("kafka cannot be used")]
    Kafka(#[from] stream::kafka::KafkaError),
    #[error("{url} does not answer as it should")]
    Http {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{what} did not happen within {seconds} s")]
    Timeout { what: String, seconds: u64 },
    #[error("{file} is not what was written to it")]
    Damaged { file: String },
    #[error("files cannot be rewritten")]
    Rewrite(#[from] maintenance::rewrite::PrepareError),
    #[error("rewritten files cannot be committed")]
    Land(#[from] maintenance::LandError),
    #[error("a commit ended with {outcome}")]
    Commit { outcome: String },
}

impl BenchError {
    /// [`Self::Io`], of anything whose error is one of the system's or becomes one.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}
