//! What an agent is given when it is opened.

use std::time::Duration;

use bpf::Library;
use bpf::priority::Priority;
use stream::kafka::KafkaConfig;

use crate::batcher::Limits;
use crate::spool::SpoolOptions;

/// What an agent is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the cluster that the node belongs to.
    pub cluster: String,
    /// Name of this node; the host's when absent.
    pub node: Option<String>,
    /// Rings, thresholds and tables in the kernel.
    pub probes: bpf::Options,
    /// Library files to probe from the start; others are found when a process maps them.
    pub libraries: Vec<Library>,
    /// When a batch of events is cut.
    pub batch: Limits,
    /// Where batches are written before they are shipped.
    pub spool: SpoolOptions,
    /// Where to ship to; absent in the embedded mode, where ingest reads the spool itself.
    pub kafka: Option<KafkaConfig>,
    /// How long an ending agent waits for Kafka to take the rest. What is left stays in the spool.
    pub drain_timeout: Duration,
    /// How long a library that no process maps any more keeps its probes.
    pub keep_probes: Duration,
    /// Of the thread that reads the rings; the threads beside it are raised as far as [`Priority::Raised`].
    pub priority: Priority,
}
