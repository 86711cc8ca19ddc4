//! The configuration of `causeway-ingest`.

use std::path::PathBuf;

use lake::config::{CatalogConfig, StoreConfig};
use serde::{Deserialize, Serialize};
use service_kit::admin::AdminConfig;
use service_kit::config::{ByteSize, HumanDuration, Problem};
use stream::kafka::KafkaConfig;

use crate::service::{Options, Until};

/// The topics messages are read from.
pub const TOPICS: [&str; 2] = ["causeway.events.v1", "causeway.critical.v1"];

/// The sections `causeway-ingest` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub kafka: KafkaConfig,
    pub catalog: CatalogConfig,
    pub store: StoreConfig,
    pub ingest: IngestConfig,
    pub admin: AdminConfig,
}

/// The `[ingest]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngestConfig {
    /// Read this spool directory instead of Kafka.
    pub spool: Option<PathBuf>,
    /// A batch is committed when it is this old.
    pub commit_interval: HumanDuration,
    /// A table without new rows is committed after this time.
    pub idle_commit_interval: HumanDuration,
    /// Memory for what was read and has not landed.
    pub memory: ByteSize,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let options = Options::default();
        Self {
            spool: None,
            commit_interval: HumanDuration(options.commit_interval),
            idle_commit_interval: HumanDuration(options.idle_commit_interval),
            memory: ByteSize(options.memory_bytes),
        }
    }
}

impl IngestConfig {
    pub fn options(&self) -> Options {
        Options {
            commit_interval: self.commit_interval.0,
            idle_commit_interval: self.idle_commit_interval.0,
            memory_bytes: self.memory.0,
            until: Until::Drained,
        }
    }
}

/// Less memory than this cannot hold two of the largest messages.
const MEMORY_MIN_BYTES: u64 = 16 << 20;

impl service_kit::config::Settings for Settings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.catalog.uri.is_empty() {
            problems.push(Problem::new(
                "catalog.uri",
                "must name the catalog: `sqlite:///path/catalog.sqlite` or `postgres://…`",
            ));
        }
        if self.store.warehouse.is_empty() {
            problems.push(Problem::new("store.warehouse", "must name the warehouse: `/path` or `s3://bucket/prefix`"));
        }
        if self.ingest.commit_interval.0.is_zero() {
            problems.push(Problem::new("ingest.commit_interval", "must be longer than zero"));
        }
        if self.ingest.memory.0 < MEMORY_MIN_BYTES {
            problems.push(Problem::new("ingest.memory", "must be at least 16 MiB"));
        }
        problems
    }
}
