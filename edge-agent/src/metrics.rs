//! What the agent counts about itself: scraped at the admin port, and returned when it ends.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Counters and gauges of one agent. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Records the probes tried to send.
    pub attempts: Counter,
    /// Of these: records that the kernel's rings had no room for.
    pub ring_drop: Counter,
    /// Waits below the threshold: summed per thread, not recorded.
    pub sampled_out: Counter,
    /// Calls and waits that could not be followed because a table of the probes was full.
    pub untracked: Counter,
    /// Hints for discovery there was no room for: the scan finds what they named, later.
    pub notice_ring_drop: Counter,
    /// Environments of ended processes that the probes could not keep: the last records of these may lack rank and job.
    pub environs_drop: Counter,
    /// Records read from the rings.
    pub drained: Counter,
    /// Rows that could not be handed to the spool because it did not keep up. Headers also report `untracked` as shed.
    pub shed: Counter,
    /// Rows the spool had no room for, or Kafka refused for good.
    pub spool_drop: Counter,
    /// Messages of the spool that were damaged or missing, and are not shipped.
    pub spool_damaged: Counter,
    /// Rows in the spool.
    pub spooled: Counter,
    /// Bytes of the encoded messages written to the spool.
    pub spooled_bytes: Counter,
    /// Bytes of the spool on disk, both topics together.
    pub spool_bytes: Gauge,
    /// Processes of which records were read, until a while after their end.
    pub processes: Gauge,
    /// Processes that map a CUDA or NCCL library and are not traced.
    pub untraced_processes: Gauge,
    /// Library files that have probes.
    pub libraries: Gauge,
    /// Library files that were found and could not be probed, at the first attempt at least.
    pub libraries_failed: Counter,
    /// Messages acknowledged by Kafka.
    pub shipped: Counter,
    /// Messages in the spool that Kafka has not acknowledged.
    pub unshipped: Gauge,
}

impl Metrics {
    /// New counters, registered.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("attempts", "Records the probes tried to send", m.attempts.clone());
        registry.register("ring_drop", "Records the kernel ring had no room for", m.ring_drop.clone());
        registry.register("sampled_out", "Waits below the threshold, only summed", m.sampled_out.clone());
        registry.register("untracked", "Calls, waits and processes there was no room to follow", m.untracked.clone());
        let notices = "Hints for discovery the kernel ring had no room for";
        registry.register("notice_ring_drop", notices, m.notice_ring_drop.clone());
        let environs = "Environments of ended processes the probes had no room for";
        registry.register("environs_drop", environs, m.environs_drop.clone());
        registry.register("drained", "Records read from the rings", m.drained.clone());
        registry.register("shed", "Rows dropped because the spool did not keep up", m.shed.clone());
        registry.register(
            "spool_drop",
            "Rows the spool could not hold or Kafka refused for good",
            m.spool_drop.clone(),
        );
        registry.register("spool_damaged_messages", "Messages lost in the spool to damage", m.spool_damaged.clone());
        registry.register("spooled", "Rows written to the spool", m.spooled.clone());
        registry.register_with_unit("spooled", "Bytes written to the spool", Unit::Bytes, m.spooled_bytes.clone());
        registry.register_with_unit("spool", "Size of the spool", Unit::Bytes, m.spool_bytes.clone());
        registry.register("processes", "Processes traced", m.processes.clone());
        let untraced = "Processes that map a CUDA or NCCL library and are not traced";
        registry.register("untraced_processes", untraced, m.untraced_processes.clone());
        registry.register("libraries", "Library files probed", m.libraries.clone());
        let failed = "Library files found that could not be probed at once";
        registry.register("libraries_failed", failed, m.libraries_failed.clone());
        registry.register("shipped_messages", "Messages acknowledged by Kafka", m.shipped.clone());
        registry.register("unshipped_messages", "Messages waiting in the spool", m.unshipped.clone());
        m
    }

    /// Raises a counter to a cumulative value read elsewhere.
    pub(crate) fn raise(counter: &Counter, to: u64) {
        // A counter of Prometheus can only be increased. Saturating: no reading lowers it.
        counter.inc_by(to.saturating_sub(counter.get()));
    }
}
