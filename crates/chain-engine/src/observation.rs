//! One row of `silver.events` as the engine sees it, and which rows it cares for.

use event_schema::catalog::Source;

/// A row. Field names are the columns' names; times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    pub event_id: &'a str,
    pub cluster: &'a str,
    pub node: &'a str,
    pub boot_id: &'a str,
    /// Start, unix nanoseconds.
    pub ts_ns: i64,
    /// Start, on the node's boot clock.
    pub boot_ns: i64,
    /// How exactly `ts_ns` follows from `boot_ns`: the time that reading the node's two clocks one after the other took. How far
    /// the node's wall clock is from another node's it does not say.
    pub clock_error_ns: i64,
    pub source: i32,
    pub op: i32,
    /// Absent when it was not measured, as of most launches.
    pub duration_ns: Option<i64>,
    pub pid: i32,
    pub tid: i32,
    pub rank: Option<i32>,
    pub world_size: Option<i32>,
    pub job_id: Option<&'a str>,
    pub arg0: i64,
    pub arg1: i64,
    pub bytes: Option<i64>,
    pub peer_comm: Option<&'a str>,
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

const CUDA_LAUNCH: i32 = 3;
const CUDA_STREAM_SYNC: i32 = 5;
const CUDA_DEVICE_SYNC: i32 = 6;
const CUDA_COPIES: [i32; 6] = [4, 7, 9, 10, 11, 12];
const DRIVER_LAUNCHES: [i32; 2] = [1, 9];
const DRIVER_CTX_SYNC: i32 = 4;
const DRIVER_STREAM_SYNC: i32 = 8;
const DRIVER_COPIES: [i32; 2] = [2, 3];
const GRAPH_LAUNCH: i32 = 4;
const NCCL_COLLECTIVES: std::ops::RangeInclusive<i32> = 3..=8;
const HOST_RUNNABLE_WAIT: i32 = 22;
const HOST_BLOCKED: i32 = 23;

/// `arg1` of a wait for a CPU that began with a wake-up; 0 of one that began with a preemption.
const WOKEN: i64 = 1;
/// The kernel's `TASK_UNINTERRUPTIBLE`.
const UNINTERRUPTIBLE: i64 = 2;
/// Times outside 0 to this (the year 2116) and calls longer than a day are not believed; within, no sum overflows.
const MAX_TIME_NS: i64 = i64::MAX / 2 - 2 * MAX_DURATION_NS;
const MAX_DURATION_NS: i64 = 86_400_000_000_000;

impl Observation<'_> {
    pub(crate) fn kind(&self) -> Option<Kind> {
        match (Source::from_number(self.source)?, self.op) {
            (Source::Cuda, CUDA_STREAM_SYNC | CUDA_DEVICE_SYNC) => Some(Kind::Sync),
            (Source::Driver, DRIVER_CTX_SYNC | DRIVER_STREAM_SYNC) => Some(Kind::Sync),
            (Source::Cuda, CUDA_LAUNCH) | (Source::CudaGraph, GRAPH_LAUNCH) => Some(Kind::Launch),
            (Source::Driver, op) if DRIVER_LAUNCHES.contains(&op) => Some(Kind::Launch),
            (Source::Cuda, op) if CUDA_COPIES.contains(&op) => Some(self.copy()),
            (Source::Driver, op) if DRIVER_COPIES.contains(&op) => Some(self.copy()),
            (Source::Nccl, op) if NCCL_COLLECTIVES.contains(&op) => Some(Kind::Collective),
            (Source::Host, HOST_RUNNABLE_WAIT) => Some(Kind::Runnable(self.arg1 == WOKEN)),
            (Source::Host, HOST_BLOCKED) => Some(Kind::Blocked(self.arg0 & UNINTERRUPTIBLE != 0)),
            _ => None,
        }
    }

    fn copy(&self) -> Kind {
        Kind::Copy(self.bytes.unwrap_or(self.arg0).clamp(0, MAX_TIME_NS))
    }

    /// The process that took the CPU of a wait. Where it is not known: the thread that did (`arg0`).
    pub(crate) fn peer(&self) -> i32 {
        self.peer_pid.unwrap_or_else(|| i32::try_from(self.arg0).unwrap_or(0))
    }

    /// Whether its times can be reckoned with.
    pub(crate) fn is_plausible(&self) -> bool {
        let believed = |time_ns: i64| (0..=MAX_TIME_NS).contains(&time_ns);
        believed(self.ts_ns) && believed(self.boot_ns) && (0..=MAX_DURATION_NS).contains(&self.length_ns())
    }

    /// How long it took, as far as that was measured.
    pub(crate) fn length_ns(&self) -> i64 {
        self.duration_ns.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
