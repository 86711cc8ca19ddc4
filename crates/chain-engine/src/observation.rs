//! One row of `silver.events` as the engine reads it, and which rows it uses.

use event_schema::catalog::Op;

/// A row. Field names are the columns' names; times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    /// `node:boot8:seq`; names the row as evidence.
    pub event_id: &'a str,
    /// Name of the cluster; with `node` and `boot_id` one boot of one node.
    pub cluster: &'a str,
    /// Name of the node.
    pub node: &'a str,
    /// The kernel's boot id, as in `/proc/sys/kernel/random/boot_id`.
    pub boot_id: &'a str,
    /// Start, unix nanoseconds.
    pub ts_ns: i64,
    /// Start, on the node's boot clock.
    pub boot_ns: i64,
    /// Bound of the error with which `ts_ns` follows from `boot_ns`: half the time that reading the node's two clocks
    /// took. It says nothing of the difference between the wall clocks of two nodes.
    pub clock_error_ns: i64,
    /// Number of the source; see `event_schema::catalog::Source`.
    pub source: i32,
    /// Number of the operation within its source; see `event_schema::catalog::Op`.
    pub op: i32,
    /// Absent when it was not measured, as of most launches.
    pub duration_ns: Option<i64>,
    /// Process (thread group) on the node.
    pub pid: i32,
    /// Thread on the node.
    pub tid: i32,
    /// Rank of the process in its job; absent where none is known.
    pub rank: Option<i32>,
    /// Ranks of the job; absent where it is not known.
    pub world_size: Option<i32>,
    /// Name of the job; absent, empty or `none` for a job without one.
    pub job_id: Option<&'a str>,
    /// First argument; docs/EVENTS.md has its meaning by operation.
    pub arg0: i64,
    /// Second argument, likewise.
    pub arg1: i64,
    /// Bytes copied or transferred; absent where the operation moves none.
    pub bytes: Option<i64>,
    /// Of a wait for a CPU: name of the thread that took it, at most 15 bytes.
    pub peer_comm: Option<&'a str>,
    /// Of a wait for a CPU: process of that thread; absent where the agent had no record of it.
    pub peer_pid: Option<i32>,
}

/// What a row means to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A call that returns when the GPU has caught up; it ends an iteration.
    Sync,
    /// A collective: waits for the other ranks.
    Collective,
    /// A copy of that many bytes.
    Copy(i64),
    /// Work given to the GPU, which the next synchronising call waits for.
    Launch,
    /// Runnable but not running: `true` after a wake-up, `false` after losing the CPU.
    Runnable(bool),
    /// Off the CPU by its own choice; `true` for an uninterruptible wait (I/O, kernel locks).
    Blocked(bool),
}

/// `arg1` of a wait for a CPU that began with a wake-up; 0 of one that began with a preemption.
const WOKEN: i64 = 1;
/// The kernel's `TASK_UNINTERRUPTIBLE`.
const UNINTERRUPTIBLE: i64 = 2;
/// Times outside 0 to this (the year 2116) and calls longer than a day are rejected as implausible; within, no sum
/// overflows.
const MAX_TIME_NS: i64 = i64::MAX / 2 - 2 * MAX_DURATION_NS;
const MAX_DURATION_NS: i64 = 86_400_000_000_000;

impl Observation<'_> {
    /// The operation; `None` for numbers that the catalogue does not have.
    pub(crate) fn operation(&self) -> Option<Op> {
        Op::from_numbers(self.source, self.op)
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        self.kind_of(self.operation()?)
    }

    /// The same, for a row of this operation.
    pub(crate) fn kind_of(&self, op: Op) -> Option<Kind> {
        match op {
            // `cudaMemcpy` waits as well, and is a copy here: only explicit synchronisation ends an iteration.
            Op::CudaStreamSync | Op::CudaDeviceSync | Op::CuCtxSynchronize | Op::CuStreamSynchronize => {
                Some(Kind::Sync)
            }
            Op::CudaLaunchKernel | Op::CuLaunchKernel | Op::CuLaunchKernelEx | Op::GraphLaunch => Some(Kind::Launch),
            Op::CudaMemcpy
            | Op::CudaMemcpyAsync
            | Op::CudaMemcpy2D
            | Op::CudaMemcpy2DAsync
            | Op::CudaMemcpyPeer
            | Op::CudaMemcpyPeerAsync
            | Op::CuMemcpy
            | Op::CuMemcpyAsync => Some(self.copy()),
            Op::NcclAllReduce
            | Op::NcclAllGather
            | Op::NcclReduceScatter
            | Op::NcclBcast
            | Op::NcclSend
            | Op::NcclRecv => Some(Kind::Collective),
            Op::RunnableWait => Some(Kind::Runnable(self.arg1 == WOKEN)),
            // A set of bits: `TASK_KILLABLE` is `TASK_WAKEKILL | TASK_UNINTERRUPTIBLE` and counts as uninterruptible.
            Op::Blocked => Some(Kind::Blocked(self.arg0 & UNINTERRUPTIBLE != 0)),
            _ => None,
        }
    }

    fn copy(&self) -> Kind {
        // Every copy of the catalogue carries its size in `arg0` too. The value is not trusted, hence the bounds.
        Kind::Copy(self.bytes.unwrap_or(self.arg0).clamp(0, MAX_TIME_NS))
    }

    /// The process that took the CPU of a wait. Where it is not known: the thread that did (`arg0`).
    pub(crate) fn peer(&self) -> i32 {
        // No thread id of Linux has more than 32 bits (`pid_t`): such a number stands for none.
        self.peer_pid.unwrap_or_else(|| i32::try_from(self.arg0).unwrap_or(0))
    }

    /// Whether its times are plausible.
    pub(crate) fn is_plausible(&self) -> bool {
        let times = [self.ts_ns, self.boot_ns];
        times.iter().all(|ns| (0..=MAX_TIME_NS).contains(ns)) && (0..=MAX_DURATION_NS).contains(&self.length_ns())
    }

    /// How long it took, as far as that was measured.
    pub(crate) fn length_ns(&self) -> i64 {
        self.duration_ns.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
