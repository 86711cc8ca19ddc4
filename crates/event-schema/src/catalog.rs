//! Sources and operations. The numbers of the reference tracer (Ingero) are kept so that its data and habits carry over;
//! ours continue after them, and a number is never reused.

use std::fmt;

/// Where an event was observed. The number is what `silver.events.source` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Source {
    /// CUDA runtime API (libcudart).
    Cuda = 1,
    /// Scheduler, memory and process events of the host kernel.
    Host = 3,
    /// CUDA driver API (libcuda).
    Driver = 4,
    /// Block I/O.
    Io = 5,
    /// TCP.
    Tcp = 6,
    /// Socket calls.
    Net = 7,
    /// CUDA graphs.
    CudaGraph = 8,
    /// NCCL collectives and communicators.
    Nccl = 9,
    /// Periodic snapshots of the host.
    System = 10,
    /// The agent's accounting of itself.
    Ledger = 11,
    /// Clock beacons.
    Clock = 12,
}

impl Source {
    pub const ALL: [Self; 11] = [
        Self::Cuda,
        Self::Host,
        Self::Driver,
        Self::Io,
        Self::Tcp,
        Self::Net,
        Self::CudaGraph,
        Self::Nccl,
        Self::System,
        Self::Ledger,
        Self::Clock,
    ];

    /// Told by the agent itself and not by a probe: such events went through no ring.
    pub const fn is_of_agent(self) -> bool {
        matches!(self, Self::Ledger | Self::Clock)
    }

    /// The number in rows and on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }

    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }

    /// The name the reference's `sources` lookup table uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cuda => "CUDA",
            Self::Host => "HOST",
            Self::Driver => "DRIVER",
            Self::Io => "IO",
            Self::Tcp => "TCP",
            Self::Net => "NET",
            Self::CudaGraph => "CUDA_GRAPH",
            Self::Nccl => "NCCL",
            Self::System => "SYSTEM",
            Self::Ledger => "LEDGER",
            Self::Clock => "CLOCK",
        }
    }

    pub const fn doc(self) -> &'static str {
        match self {
            Self::Cuda => "CUDA runtime API calls (libcudart)",
            Self::Host => "scheduler, memory and process events of the host kernel",
            Self::Driver => "CUDA driver API calls (libcuda)",
            Self::Io => "block device requests",
            Self::Tcp => "TCP protocol events",
            Self::Net => "socket calls",
            Self::CudaGraph => "CUDA graph capture, instantiation and launch",
            Self::Nccl => "NCCL communicators and collectives",
            Self::System => "periodic snapshots of the host",
            Self::Ledger => "the agent's accounting of itself",
            Self::Clock => "clock beacons",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which events of an operation have a duration when our agent records them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Each.
    Each,
    /// A random sample where one is configured, else none: a return probe would double the cost of each call.
    Sample,
    /// None: the event is an instant.
    Instant,
}

impl Timing {
    /// As in `docs/EVENTS.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Sample => "a sample, or none",
            Self::Instant => "none",
        }
    }
}

/// One operation of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    pub source: Source,
    pub number: i32,
    pub name: &'static str,
    pub timing: Timing,
    /// What `arg0`, `arg1` and `bytes` hold.
    pub args: &'static str,
}

const fn op(source: Source, number: i32, name: &'static str, args: &'static str) -> Op {
    Op { source, number, name, timing: Timing::Each, args }
}

impl Op {
    const fn launch(self) -> Self {
        Self { timing: Timing::Sample, ..self }
    }

    const fn instant(self) -> Self {
        Self { timing: Timing::Instant, ..self }
    }
}

/// Every operation, by source and number.
pub const OPS: &[Op] = &[
    op(Source::Cuda, 1, "cudaMalloc", "arg0 bytes, arg1 device pointer"),
    op(Source::Cuda, 2, "cudaFree", "arg0 device pointer"),
    op(Source::Cuda, 3, "cudaLaunchKernel", "arg0 function, arg1 stream").launch(),
    op(Source::Cuda, 4, "cudaMemcpy", "arg0 bytes, arg1 kind"),
    op(Source::Cuda, 5, "cudaStreamSync", "arg0 stream"),
    op(Source::Cuda, 6, "cudaDeviceSync", ""),
    op(Source::Cuda, 7, "cudaMemcpyAsync", "arg0 bytes, arg1 kind"),
    op(Source::Cuda, 8, "cudaMallocManaged", "arg0 bytes"),
    op(Source::Cuda, 9, "cudaMemcpy2D", "arg0 bytes, arg1 kind"),
    op(Source::Cuda, 10, "cudaMemcpy2DAsync", "arg0 bytes, arg1 kind"),
    op(Source::Cuda, 11, "cudaMemcpyPeer", "arg0 bytes"),
    op(Source::Cuda, 12, "cudaMemcpyPeerAsync", "arg0 bytes"),
    op(Source::Host, 1, "sched_switch", "arg1 next tid"),
    op(Source::Host, 2, "sched_wakeup", "").instant(),
    op(Source::Host, 3, "mm_page_alloc", "arg0 bytes").instant(),
    op(Source::Host, 4, "oom_kill", "").instant(),
    op(Source::Host, 5, "process_exec", "").instant(),
    op(Source::Host, 6, "process_exit", "arg0 exit code").instant(),
    op(Source::Host, 7, "process_fork", "arg0 child pid").instant(),
    op(Source::Host, 10, "pod_restart", "").instant(),
    op(Source::Host, 11, "pod_eviction", "").instant(),
    op(Source::Host, 12, "pod_oom_kill", "").instant(),
    op(Source::Host, 20, "mm_page_alloc_summary", "arg0 count, arg1 bytes").instant(),
    op(Source::Host, 21, "sched_switch_summary", "arg0 count, arg1 off-CPU ns").instant(),
    op(
        Source::Host,
        22,
        "runnable_wait",
        "arg0 tid that took the CPU, arg1 0 preempted or 1 woken; duration is the time runnable but not running",
    ),
    op(
        Source::Host,
        23,
        "blocked",
        "arg0 prev_state bits, arg1 tid of the waker; duration is the time off the CPU by the thread's own choice",
    ),
    op(Source::Driver, 1, "cuLaunchKernel", "arg0 function, arg1 stream").launch(),
    op(Source::Driver, 2, "cuMemcpy", "arg0 bytes"),
    op(Source::Driver, 3, "cuMemcpyAsync", "arg0 bytes"),
    op(Source::Driver, 4, "cuCtxSynchronize", ""),
    op(Source::Driver, 5, "cuMemAlloc", "arg0 bytes"),
    op(Source::Driver, 6, "cuMemAllocManaged", "arg0 bytes"),
    op(Source::Driver, 7, "cuMemFree", "arg0 device pointer"),
    op(Source::Driver, 8, "cuStreamSynchronize", "arg0 stream"),
    op(Source::Driver, 9, "cuLaunchKernelEx", "arg0 config, arg1 function").launch(),
    op(Source::Io, 1, "block_read", "arg0 sectors (512 B), arg1 first sector"),
    op(Source::Io, 2, "block_write", "arg0 sectors (512 B), arg1 first sector"),
    op(Source::Io, 3, "block_discard", "arg0 sectors (512 B), arg1 first sector"),
    op(Source::Tcp, 1, "tcp_retransmit", "arg0 source<<32 | destination address, arg1 ports").instant(),
    op(Source::Net, 1, "net_send", "arg0 fd, arg1 bytes"),
    op(Source::Net, 2, "net_recv", "arg0 fd, arg1 bytes"),
    op(Source::CudaGraph, 1, "beginCapture", ""),
    op(Source::CudaGraph, 2, "endCapture", ""),
    op(Source::CudaGraph, 3, "instantiate", ""),
    op(Source::CudaGraph, 4, "launch", ""),
    op(Source::Nccl, 1, "CommInitRank", "arg0 ranks of the communicator, arg1 rank in it"),
    op(Source::Nccl, 2, "CommDestroy", ""),
    op(Source::Nccl, 3, "AllReduce", "bytes"),
    op(Source::Nccl, 4, "AllGather", "bytes"),
    op(Source::Nccl, 5, "ReduceScatter", "bytes"),
    op(Source::Nccl, 6, "Bcast", "bytes"),
    op(Source::Nccl, 7, "Send", "bytes"),
    op(Source::Nccl, 8, "Recv", "bytes"),
    op(Source::Nccl, 9, "CommInitAll", ""),
    op(
        Source::Ledger,
        1,
        "epoch_end",
        "arg0 attempts, arg1 ring_drop, bytes drained: of this stream, since the epoch began; its last event",
    )
    .instant(),
    op(
        Source::Clock,
        1,
        "beacon",
        "arg0 wall ns, arg1 error ns: on each stream of events, every 30 s and a second after the last event",
    )
    .instant(),
];

/// Finds an operation by its numbers.
pub fn find_op(source: i32, op: i32) -> Option<&'static Op> {
    OPS.iter().find(|o| o.source.number() == source && o.number == op)
}

/// Which events of an operation have a duration; [`Timing::Each`] for one that is not in the catalogue.
pub fn timing_of(source: i32, op: i32) -> Timing {
    find_op(source, op).map_or(Timing::Each, |op| op.timing)
}

/// The operation's name, as in `cudaLaunchKernel`.
pub fn op_name(source: i32, op: i32) -> Option<&'static str> {
    find_op(source, op).map(|o| o.name)
}

/// The number of an operation given its name; names are unique over all sources.
pub fn op_number(name: &str) -> Option<(Source, i32)> {
    OPS.iter().find(|o| o.name == name).map(|o| (o.source, o.number))
}
