//! The table of operations. Everything else that names an operation, in Rust, in C or in the documentation, is made
//! from it.

use super::args::{Arg, ArgColumn, ArgKind};
use super::{Source, Timing};

/// What the table says of one operation.
struct Entry {
    source: Source,
    number: i32,
    name: &'static str,
    timing: Timing,
    doc: &'static str,
    args: &'static [Arg],
}

macro_rules! operations {
    ($(
        $source:ident {
            $(
                $number:literal $op:ident $name:literal $timing:ident $doc:literal
                [$($column:ident $arg:ident: $kind:ident $arg_doc:literal),* $(,)?]
            )*
        }
    )*) => {
        /// One operation of one source.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Op {
            $($(#[doc = $doc] $op,)*)*
        }

        impl Op {
            /// Every operation, by source and number.
            pub const ALL: &[Self] = &[$($(Self::$op,)*)*];

            const fn entry(self) -> &'static Entry {
                match self {
                    $($(Self::$op => &Entry {
                        source: Source::$source,
                        number: $number,
                        name: $name,
                        timing: Timing::$timing,
                        doc: $doc,
                        args: &[$(Arg {
                            name: stringify!($arg),
                            column: ArgColumn::$column,
                            kind: ArgKind::$kind,
                            doc: $arg_doc,
                        },)*],
                    },)*)*
                }
            }

            /// The operation with these numbers; `None` for numbers that the table does not have, as of a newer agent.
            pub fn from_numbers(source: i32, number: i32) -> Option<Self> {
                match Source::from_number(source)? {
                    $(Source::$source => match number {
                        $($number => Some(Self::$op),)*
                        _ => None,
                    },)*
                }
            }
        }
    };
}

impl Op {
    /// Where it is observed.
    pub const fn source(self) -> Source {
        self.entry().source
    }

    /// The number in rows and on the wire, unique within the source.
    pub const fn number(self) -> i32 {
        self.entry().number
    }

    /// The name, unique over all sources, as in `cudaLaunchKernel`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Which of its events have a duration.
    pub const fn timing(self) -> Timing {
        self.entry().timing
    }

    /// What it does.
    pub const fn doc(self) -> &'static str {
        self.entry().doc
    }

    /// Its arguments.
    pub const fn args(self) -> &'static [Arg] {
        self.entry().args
    }

    /// Source and number, as rows have them.
    pub const fn numbers(self) -> (i32, i32) {
        (self.source().number(), self.number())
    }

    /// What it does and what its arguments are, in a line.
    pub fn description(self) -> String {
        let args = self.args().iter().map(|arg| format!("; {} is {}: {}", arg.column.name(), arg.name, arg.doc));
        args.fold(self.doc().to_owned(), |line, arg| line + &arg)
    }
}

// Numbers of the reference tracer (Ingero) are kept; ours continue after them; a number is never reused.
operations! {
    Cuda {
        1 CudaMalloc "cudaMalloc" Each "allocates device memory"
            [Arg0 bytes: Bytes "size asked for", Arg1 address: Address "device memory allocated, 0 where the call failed"]
        2 CudaFree "cudaFree" Each "frees device memory"
            [Arg0 address: Address "device memory freed"]
        3 CudaLaunchKernel "cudaLaunchKernel" Sample "launches a kernel"
            [Arg0 function: Address "host address of the kernel", Arg1 cuda_stream: Handle "CUDA stream; 0 for the default one, and where it lies in a structure"]
        4 CudaMemcpy "cudaMemcpy" Each "copies memory and waits for it"
            [Arg0 bytes: Bytes "size copied", Arg1 copy_kind: Code "cudaMemcpyKind: 0 host to host, 1 to the device, 2 to the host, 3 on the device, 4 by the addresses"]
        5 CudaStreamSync "cudaStreamSync" Each "waits for a stream"
            [Arg0 cuda_stream: Handle "CUDA stream; 0 for the default one"]
        6 CudaDeviceSync "cudaDeviceSync" Each "waits for the device" []
        7 CudaMemcpyAsync "cudaMemcpyAsync" Each "begins a copy"
            [Arg0 bytes: Bytes "size copied", Arg1 copy_kind: Code "cudaMemcpyKind, as of `cudaMemcpy`"]
        8 CudaMallocManaged "cudaMallocManaged" Each "allocates managed memory"
            [Arg0 bytes: Bytes "size asked for"]
        9 CudaMemcpy2D "cudaMemcpy2D" Each "copies a matrix and waits for it"
            [Arg0 bytes: Bytes "size copied", Arg1 copy_kind: Code "cudaMemcpyKind, as of `cudaMemcpy`"]
        10 CudaMemcpy2DAsync "cudaMemcpy2DAsync" Each "begins the copy of a matrix"
            [Arg0 bytes: Bytes "size copied", Arg1 copy_kind: Code "cudaMemcpyKind, as of `cudaMemcpy`"]
        11 CudaMemcpyPeer "cudaMemcpyPeer" Each "copies between devices and waits for it"
            [Arg0 bytes: Bytes "size copied"]
        12 CudaMemcpyPeerAsync "cudaMemcpyPeerAsync" Each "begins a copy between devices"
            [Arg0 bytes: Bytes "size copied"]
    }
    Host {
        1 SchedSwitch "sched_switch" Each "a thread was off the CPU, as the reference tracer records it"
            [Arg1 next_tid: Thread "thread that got the CPU"]
        2 SchedWakeup "sched_wakeup" Instant "a thread was woken" []
        3 MmPageAlloc "mm_page_alloc" Instant "the kernel allocated pages for a process"
            [Arg0 bytes: Bytes "size allocated"]
        4 OomKill "oom_kill" Instant "the kernel killed a process for want of memory" []
        5 ProcessExec "process_exec" Instant "a process began another program"
            [Arg0 caller_tid: Thread "thread that called exec; the process goes on with its first thread's id"]
        6 ProcessExit "process_exit" Instant "a process ended"
            [Arg0 exit_code: Code "as given to exit, 0 to 255", Arg1 signal: Code "number of the signal that ended it, 0 for none"]
        7 ProcessFork "process_fork" Instant "a process made a child"
            [Arg0 child_pid: Process "the child"]
        10 PodRestart "pod_restart" Instant "a container of the pod was restarted" []
        11 PodEviction "pod_eviction" Instant "the pod was evicted" []
        12 PodOomKill "pod_oom_kill" Instant "a container of the pod was killed for want of memory" []
        20 MmPageAllocSummary "mm_page_alloc_summary" Instant "page allocations left out by sampling"
            [Arg0 count: Count "allocations", Arg1 bytes: Bytes "their sum"]
        21 SchedSwitchSummary "sched_switch_summary" Instant "switches left out by sampling"
            [Arg0 count: Count "switches", Arg1 off_cpu_ns: Nanoseconds "time off the CPU, their sum"]
        22 RunnableWait "runnable_wait" Each "a thread waited for a CPU; the duration is the time runnable but not running"
            [Arg0 peer_tid: Thread "thread that used the CPU for most of the time, 0 for none", Arg1 reason: Code "what began the wait: 0 preempted, 1 woken"]
        23 Blocked "blocked" Each "a thread slept; the duration is the time off the CPU by its own choice"
            [Arg0 prev_state: Flags "state it slept in, as the kernel's TASK_ bits: 1 interruptible, 2 uninterruptible", Arg1 waker_tid: Thread "thread that woke it, 0 for none"]
    }
    Driver {
        1 CuLaunchKernel "cuLaunchKernel" Sample "launches a kernel"
            [Arg0 function: Handle "CUfunction", Arg1 cuda_stream: Handle "CUDA stream; 0 for the default one"]
        2 CuMemcpy "cuMemcpy" Each "copies memory and waits for it"
            [Arg0 bytes: Bytes "size copied"]
        3 CuMemcpyAsync "cuMemcpyAsync" Each "begins a copy"
            [Arg0 bytes: Bytes "size copied"]
        4 CuCtxSynchronize "cuCtxSynchronize" Each "waits for the context" []
        5 CuMemAlloc "cuMemAlloc" Each "allocates device memory"
            [Arg0 bytes: Bytes "size asked for", Arg1 address: Address "device memory allocated, 0 where the call failed"]
        6 CuMemAllocManaged "cuMemAllocManaged" Each "allocates managed memory"
            [Arg0 bytes: Bytes "size asked for"]
        7 CuMemFree "cuMemFree" Each "frees device memory"
            [Arg0 address: Address "device memory freed"]
        8 CuStreamSynchronize "cuStreamSynchronize" Each "waits for a stream"
            [Arg0 cuda_stream: Handle "CUDA stream; 0 for the default one"]
        9 CuLaunchKernelEx "cuLaunchKernelEx" Sample "launches a kernel"
            [Arg0 config: Address "host address of the CUlaunchConfig", Arg1 function: Handle "CUfunction"]
    }
    Io {
        1 BlockRead "block_read" Each "a block device read"
            [Arg0 sectors: Sectors "size read", Arg1 first_sector: Sectors "where it began"]
        2 BlockWrite "block_write" Each "a block device wrote"
            [Arg0 sectors: Sectors "size written", Arg1 first_sector: Sectors "where it began"]
        3 BlockDiscard "block_discard" Each "a block device discarded"
            [Arg0 sectors: Sectors "size discarded", Arg1 first_sector: Sectors "where it began"]
    }
    Tcp {
        1 TcpRetransmit "tcp_retransmit" Instant "a segment was sent again"
            [Arg0 addresses: Packed "IPv4 source in the upper 32 bits, destination in the lower", Arg1 ports: Packed "source and destination"]
    }
    Net {
        1 NetSend "net_send" Each "sent on a socket"
            [Arg0 fd: Handle "file descriptor", Arg1 bytes: Bytes "size sent"]
        2 NetRecv "net_recv" Each "received from a socket"
            [Arg0 fd: Handle "file descriptor", Arg1 bytes: Bytes "size received"]
    }
    CudaGraph {
        1 GraphBeginCapture "beginCapture" Each "began to capture a graph" []
        2 GraphEndCapture "endCapture" Each "ended the capture of a graph" []
        3 GraphInstantiate "instantiate" Each "made a graph executable" []
        4 GraphLaunch "launch" Each "launched a graph" []
    }
    Nccl {
        1 NcclCommInitRank "CommInitRank" Each "joined a communicator"
            [Arg0 ranks: Count "ranks of the communicator", Arg1 comm_rank: Rank "rank in it"]
        2 NcclCommDestroy "CommDestroy" Each "left a communicator" []
        3 NcclAllReduce "AllReduce" Each "enqueued an all-reduce"
            [Arg0 communicator: Handle "ncclComm_t", Arg1 cuda_stream: Handle "CUDA stream", Bytes bytes: Bytes "size of the buffer"]
        4 NcclAllGather "AllGather" Each "enqueued an all-gather"
            [Bytes bytes: Bytes "size of the buffer sent"]
        5 NcclReduceScatter "ReduceScatter" Each "enqueued a reduce-scatter"
            [Bytes bytes: Bytes "size of the buffer received"]
        6 NcclBcast "Bcast" Each "enqueued a broadcast"
            [Bytes bytes: Bytes "size of the buffer"]
        7 NcclSend "Send" Each "enqueued a send"
            [Bytes bytes: Bytes "size of the buffer"]
        8 NcclRecv "Recv" Each "enqueued a receive"
            [Bytes bytes: Bytes "size of the buffer"]
        9 NcclCommInitAll "CommInitAll" Each "made a communicator of one process"
            [Arg0 ranks: Count "devices, each a rank"]
    }
    System {}
    Ledger {
        1 EpochEnd "epoch_end" Instant "the account of a stream from the begin of the epoch, as the stream's last event"
            [Arg0 attempts: Count "records the probes wanted to send", Arg1 ring_drop: Count "records a ring had no room for", Bytes drained: Count "records read from a ring"]
    }
    Clock {
        1 Beacon "beacon" Instant "the agent lives: on each stream of events, every 30 s and a second after the last event"
            [Arg0 wall_ns: Nanoseconds "unix time at boot_ns", Arg1 error_ns: Nanoseconds "bound of its error"]
    }
}
