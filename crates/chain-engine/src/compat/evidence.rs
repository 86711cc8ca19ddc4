//! Activity of the host since the beginning of the window: counts and sums, as the reference keeps them in a replay.

use event_schema::catalog::{Op, Source};

use super::Event;

/// The worst of each metric over a node's system snapshots; each may be of another moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SystemPeak {
    /// Per cent of all cores.
    pub cpu_pct: f64,
    /// Per cent.
    pub mem_pct: f64,
    /// The least, MiB.
    pub mem_avail_mb: i64,
    /// In use, MiB.
    pub swap_mb: i64,
    /// Over one minute.
    pub load_avg: f64,
}

/// Everything counted.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// From `silver.system`; `None` without a snapshot of the window.
    pub system: Option<SystemPeak>,
    /// Stretches off the CPU, whatever the reason.
    pub switches: u64,
    /// Their lengths together, nanoseconds.
    pub off_cpu_ns: i64,
    /// Page allocations reported by the reference's tracepoint.
    pub page_allocs: u64,
    /// Bytes of these.
    pub page_alloc_bytes: i64,
    /// Kills by the kernel's OOM killer, inside pods and outside.
    pub oom_kills: u64,
    /// Restarts of containers.
    pub pod_restarts: u64,
    /// Evictions of pods.
    pub pod_evictions: u64,
    /// Requests to block devices.
    pub io: BlockIo,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// Reads and writes of sockets.
    pub socket_ops: u64,
    /// Bytes of these.
    pub socket_bytes: i64,
}

/// Requests to block devices, added up.
#[derive(Debug, Default)]
pub(super) struct BlockIo {
    /// Requests of any kind.
    pub ops: u64,
    /// Of them, reads.
    pub reads: u64,
    /// Of them, writes.
    pub writes: u64,
    /// Their durations together, nanoseconds.
    pub total_ns: i64,
    /// The longest of them, nanoseconds.
    pub longest_ns: i64,
    /// Bytes moved.
    pub bytes: i64,
}

/// The kernel counts block I/O in sectors of this size whatever the device's is (`SECTOR_SIZE` in
/// `include/linux/blk_types.h`).
const SECTOR_BYTES: i64 = 512;

impl Evidence {
    pub(super) fn observe(&mut self, event: &Event) {
        match Source::from_number(event.source) {
            Some(Source::Host) => self.observe_host(event),
            Some(Source::Io) => self.io.observe(event),
            // Retransmissions are the only operation of this source.
            Some(Source::Tcp) => self.retransmits += 1,
            Some(Source::Net) => {
                self.socket_ops += 1;
                self.socket_bytes = self.socket_bytes.saturating_add(event.arg1);
            }
            _ => {}
        }
    }

    fn observe_host(&mut self, event: &Event) {
        let Some(op) = Op::from_numbers(event.source, event.op) else { return };
        match op {
            // What the reference calls a switch is a stretch off the CPU, for whatever reason; our agent distinguishes
            // them.
            Op::SchedSwitch | Op::RunnableWait | Op::Blocked => {
                self.switches += 1;
                self.off_cpu_ns = self.off_cpu_ns.saturating_add(event.duration_ns.unwrap_or(0));
            }
            Op::MmPageAlloc => {
                self.page_allocs += 1;
                self.page_alloc_bytes = self.page_alloc_bytes.saturating_add(event.arg0);
            }
            Op::OomKill | Op::PodOomKill => self.oom_kills += 1,
            Op::PodRestart => self.pod_restarts += 1,
            Op::PodEviction => self.pod_evictions += 1,
            _ => {}
        }
    }
}

impl BlockIo {
    fn observe(&mut self, event: &Event) {
        self.ops += 1;
        let op = Op::from_numbers(event.source, event.op);
        self.reads += u64::from(op == Some(Op::BlockRead));
        self.writes += u64::from(op == Some(Op::BlockWrite));
        let took_ns = event.duration_ns.unwrap_or(0);
        self.total_ns = self.total_ns.saturating_add(took_ns);
        self.longest_ns = self.longest_ns.max(took_ns);
        // `arg0` is in sectors, and the rows are not trusted, hence the bounded arithmetic.
        self.bytes = self.bytes.saturating_add(event.arg0.saturating_mul(SECTOR_BYTES));
    }
}
