//! What went on on the host since the beginning of the window: counts and sums, as the reference keeps them in a replay.

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
    pub swap_mb: i64,
    /// Over one minute.
    pub load_avg: f64,
}

/// Everything counted.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) system: Option<SystemPeak>,
    /// Stretches off the CPU, and how long they were together.
    pub(super) switches: u64,
    pub(super) off_cpu_ns: i64,
    pub(super) page_allocs: u64,
    pub(super) page_alloc_bytes: i64,
    pub(super) oom_kills: u64,
    pub(super) pod_restarts: u64,
    pub(super) pod_evictions: u64,
    pub(super) io: BlockIo,
    pub(super) retransmits: u64,
    pub(super) socket_ops: u64,
    pub(super) socket_bytes: i64,
}

#[derive(Debug, Default)]
pub(super) struct BlockIo {
    pub(super) ops: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) total_ns: i64,
    pub(super) longest_ns: i64,
    pub(super) bytes: i64,
}

const SECTOR_BYTES: i64 = 512;

impl Evidence {
    pub(super) fn observe(&mut self, event: &Event) {
        match Source::from_number(event.source) {
            Some(Source::Host) => self.observe_host(event),
            Some(Source::Io) => self.io.observe(event),
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
            // What the reference calls a switch is a stretch off the CPU, for whatever reason; our agent distinguishes them.
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
        self.bytes = self.bytes.saturating_add(event.arg0.saturating_mul(SECTOR_BYTES));
    }
}
