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

use crate::batcher::Limits;
use crate::options::Options;
use crate::process::VARIABLES;
use crate::spool::SpoolOptions;

/// The admin port of an agent, unless set.
pub const ADMIN_PORT: u16 = 9470;

/// Sections of the configuration file that the agent reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSettings {
    /// `[node]`
    pub node: NodeConfig,
    /// `[agent]`
    pub agent: AgentConfig,
    /// `[spool]`
    pub spool: SpoolConfig,
    /// `[kafka]`: where to ship to.
    pub kafka: KafkaConfig,
    /// `[admin]`: the port for metrics and readiness.
    pub admin: AdminConfig,
}

/// `[node]`: the names of this node and its cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeConfig {
    /// The host's name when absent.
    pub name: Option<String>,
    /// The cluster that the node belongs to; 1 to [`NAME_BYTES_MAX`] bytes.
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
    /// Library files to probe from the start (`libcudart…`, `libcuda…`, `libnccl…`); others are found when a process
    /// maps them, which may miss its first calls.
    pub libraries: Vec<PathBuf>,
    /// Waits for a CPU shorter than this are counted, not recorded.
    pub min_runnable: HumanDuration,
    /// Waits by the thread's own choice shorter than this are counted, not recorded.
    pub min_blocked: HumanDuration,
    /// Most rows of a batch of events; 1 to 65,536.
    pub batch_rows: usize,
    /// How long the first event of a batch waits at most.
    pub batch_age: HumanDuration,
    /// How long an ending agent waits for Kafka to take the rest.
    pub drain_timeout: HumanDuration,
    /// How long a library keeps its probes after the last process that mapped it has gone. The next one that maps it is
    /// traced from its first call on.
    pub keep_probes: HumanDuration,
    /// One launch in so many, chosen at random, is timed; 0 for none. 1000 is a good rate where durations of launches
    /// are wanted.
    pub launch_sample: u32,
    /// The thread that reads the rings runs before every thread that is not real-time (SCHED_RR), where that is
    /// permitted.
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
    /// Directory of the spool; made when it does not exist.
    pub dir: PathBuf,
    /// Events are dropped, and counted, when the spool of a topic is this large.
    pub max_size: ByteSize,
    /// Size of one file of the spool, at least 1 MiB. Room is reclaimed by whole files: a quarter of `max_size` at
    /// most.
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
        let name = format!("must have 1 to {NAME_BYTES_MAX} bytes");
        let ring = "must be a power of two from 4KiB to 1GiB";
        let libraries = "must name files like libcudart.so.12, libcuda.so.1 or libnccl.so.2";
        let max = self.spool.max_size.0;
        let segment = self.spool.segment_size.0;
        let agent = &self.agent;
        let rules = [
            (self.node.name.as_deref().is_none_or(is_name), "node.name", name.as_str()),
            (is_name(&self.node.cluster), "node.cluster", name.as_str()),
            (is_ring(agent.data_ring), "agent.data_ring", ring),
            (is_ring(agent.critical_ring), "agent.critical_ring", ring),
            ((1..=65_536).contains(&agent.batch_rows), "agent.batch_rows", "must be from 1 to 65536"),
            (agent.launch_sample <= 1_000_000, "agent.launch_sample", "must be at most 1000000"),
            (!self.kafka.brokers.is_empty(), "kafka.brokers", "is empty: name at least one host:port"),
            // A log deletes whole segments and never the newest: with fewer than four, reclaiming room would free most
            // of it or nothing.
            (segment >= 1 << 20, "spool.segment_size", "must be at least 1MiB"),
            (max >= 4 * segment, "spool.max_size", "must hold at least four segments"),
            (agent.libraries.iter().all(|path| library(path).is_some()), "agent.libraries", libraries),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        broken.map(|(_, key, what)| Problem::new(key, what)).collect()
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

fn is_ring(size: ByteSize) -> bool {
    // The kernel's rule for BPF_MAP_TYPE_RINGBUF: a power of two and a multiple of the page size.
    size.0.is_power_of_two() && (4096..=1 << 30).contains(&size.0)
}

/// The library a file is by its name.
fn library(path: &Path) -> Option<Library> {
    let kind = LibraryKind::of_file_name(path.file_name()?.to_str()?)?;
    Some(Library { path: path.to_owned(), kind })
}

fn ring_bytes(size: ByteSize) -> u32 {
    // `validate` refuses more than 1 GiB, so that this never saturates.
    u32::try_from(size.0).unwrap_or(u32::MAX)
}

fn nanoseconds(duration: HumanDuration) -> u64 {
    u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX)
}

impl AgentSettings {
    /// An agent that ships to Kafka.
    pub fn options(&self) -> Options {
        let log = LogOptions {
            segment_bytes: self.spool.segment_size.0,
            max_bytes: self.spool.max_size.0,
            // The spool thread syncs for several batches at once (group commit), see `Spool::run`.
            fsync: Fsync::Manual,
        };
        Options {
            cluster: self.node.cluster.clone(),
            node: self.node.name.clone(),
            probes: bpf::Options {
                data_ring_bytes: ring_bytes(self.agent.data_ring),
                critical_ring_bytes: ring_bytes(self.agent.critical_ring),
                min_runnable_ns: nanoseconds(self.agent.min_runnable),
                min_blocked_ns: nanoseconds(self.agent.min_blocked),
                launch_sample: self.agent.launch_sample,
                variables: VARIABLES,
                ..bpf::Options::default()
            },
            // Nothing is left out here: `validate` has refused paths of unknown libraries.
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
