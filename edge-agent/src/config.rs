//! What a user sets, and how it becomes [`Options`].

use std::path::{Path, PathBuf};

use bpf::priority::Priority;
use bpf::{Library, LibraryKind};
use event_schema::wire::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use service_kit::admin::AdminConfig;
use service_kit::config::{ByteSize, HumanDuration, Problem, Settings};
use stream::kafka::KafkaConfig;
use stream::log::{Fsync, LogOptions};

use crate::agent::Options;
use crate::batcher::Limits;
use crate::process::VARIABLES;
use crate::spool::SpoolOptions;

/// The admin port of an agent, unless set.
pub const ADMIN_PORT: u16 = 9470;

/// Sections of the configuration file that the agent reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSettings {
    pub node: NodeConfig,
    pub agent: AgentConfig,
    pub spool: SpoolConfig,
    pub kafka: KafkaConfig,
    pub admin: AdminConfig,
}

/// `[node]`: who we are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeConfig {
    /// The host's name when absent.
    pub name: Option<String>,
    pub cluster: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { name: None, cluster: "default".to_owned() }
    }
}

/// `[agent]`: what is traced and how it is batched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentConfig {
    /// Ring for calls and waits; a power of two.
    pub data_ring: ByteSize,
    /// Ring for exec, exit and fork; a power of two.
    pub critical_ring: ByteSize,
    /// Library files to probe from the start (`libcudart…`, `libcuda…`, `libnccl…`); others are found when a process maps
    /// them, which may miss its first calls.
    pub libraries: Vec<PathBuf>,
    /// Waits for a CPU shorter than this are counted, not recorded.
    pub min_runnable: HumanDuration,
    /// Waits by the thread's own choice shorter than this are counted, not recorded.
    pub min_blocked: HumanDuration,
    pub batch_rows: usize,
    pub batch_age: HumanDuration,
    /// How long an ending agent waits for Kafka to take the rest.
    pub drain_timeout: HumanDuration,
    /// How long a library keeps its probes after the last process that mapped it has gone. The next one that maps it is traced
    /// from its first call on.
    pub keep_probes: HumanDuration,
    /// One launch in so many, chosen at random, is timed; 0 for none. 1000 is a good rate where durations of launches are wanted.
    pub launch_sample: u32,
    /// The thread that reads the rings runs before all that are not real-time (SCHED_RR), where that is permitted.
    pub real_time: bool,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            data_ring: ByteSize(8 << 20),
            critical_ring: ByteSize(256 << 10),
            libraries: Vec::new(),
            min_runnable: HumanDuration::from_millis(0),
            min_blocked: HumanDuration(std::time::Duration::from_micros(20)),
            batch_rows: limits.rows,
            batch_age: HumanDuration(limits.age),
            drain_timeout: HumanDuration::from_secs(10),
            keep_probes: HumanDuration::from_secs(600),
            launch_sample: 0,
            real_time: true,
        }
    }
}

/// `[spool]`: what waits for Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpoolConfig {
    pub dir: PathBuf,
    /// Events are dropped, and counted, when the spool of a topic is this large.
    pub max_size: ByteSize,
    pub segment_size: ByteSize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        let log = LogOptions::default();
        Self {
            dir: PathBuf::from("/var/lib/causeway/spool"),
            max_size: ByteSize(log.max_bytes),
            segment_size: ByteSize(log.segment_bytes),
        }
    }
}

impl Settings for AgentSettings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, what: &str| {
            if !holds {
                problems.push(Problem::new(key, what));
            }
        };
        let is_name = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
        let name = format!("must have 1 to {NAME_BYTES_MAX} bytes");
        require(self.node.name.as_deref().is_none_or(is_name), "node.name", &name);
        require(is_name(&self.node.cluster), "node.cluster", &name);
        let is_ring = |size: ByteSize| size.0.is_power_of_two() && (4096..=1 << 30).contains(&size.0);
        let ring = "must be a power of two from 4KiB to 1GiB";
        require(is_ring(self.agent.data_ring), "agent.data_ring", ring);
        require(is_ring(self.agent.critical_ring), "agent.critical_ring", ring);
        require((1..=65_536).contains(&self.agent.batch_rows), "agent.batch_rows", "must be from 1 to 65536");
        require(self.agent.launch_sample <= 1_000_000, "agent.launch_sample", "must be at most 1000000");
        require(!self.kafka.brokers.is_empty(), "kafka.brokers", "is empty: name at least one host:port");
        let (max, segment) = (self.spool.max_size.0, self.spool.segment_size.0);
        require(segment >= 1 << 20, "spool.segment_size", "must be at least 1MiB");
        require(max >= 4 * segment, "spool.max_size", "must hold at least four segments");
        let is_known = |path: &PathBuf| library(path).is_some();
        let known = self.agent.libraries.iter().all(is_known);
        require(known, "agent.libraries", "must name files like libcudart.so.12, libcuda.so.1 or libnccl.so.2");
        problems
    }
}

/// The library a file is by its name.
fn library(path: &Path) -> Option<Library> {
    let kind = LibraryKind::of_file_name(path.file_name()?.to_str()?)?;
    Some(Library { path: path.to_owned(), kind })
}

impl AgentSettings {
    /// An agent that ships to Kafka.
    pub fn options(&self) -> Options {
        let ring = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
        let ns = |duration: HumanDuration| u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX);
        let log = LogOptions {
            segment_bytes: self.spool.segment_size.0,
            max_bytes: self.spool.max_size.0,
            fsync: Fsync::Manual,
        };
        Options {
            cluster: self.node.cluster.clone(),
            node: self.node.name.clone(),
            probes: bpf::Options {
                data_ring_bytes: ring(self.agent.data_ring),
                critical_ring_bytes: ring(self.agent.critical_ring),
                min_runnable_ns: ns(self.agent.min_runnable),
                min_blocked_ns: ns(self.agent.min_blocked),
                launch_sample: self.agent.launch_sample,
                variables: VARIABLES,
                ..bpf::Options::default()
            },
            libraries: self.agent.libraries.iter().filter_map(|path| library(path)).collect(),
            batch: Limits { rows: self.agent.batch_rows, age: self.agent.batch_age.0, ..Limits::default() },
            spool: SpoolOptions { dir: self.spool.dir.clone(), log, shared: false },
            kafka: Some(self.kafka.clone()),
            drain_timeout: self.agent.drain_timeout.0,
            keep_probes: self.agent.keep_probes.0,
            priority: if self.agent.real_time { Priority::RealTime } else { Priority::Raised },
        }
    }
}

#[cfg(test)]
mod tests;
