//! Sources and operations. The numbers of the reference tracer (Ingero) are kept so that its data and habits carry
//! over; ours continue after them, and a number is never reused. An operation is a row of the table in
//! `catalog/ops.rs`.

use std::fmt;

mod args;
mod ops;
pub mod typed_events;

pub use args::{Arg, ArgColumn, ArgKind};
pub use ops::Op;

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

    /// Whether such events are made by the agent itself and not by a probe: they went through no ring.
    pub const fn is_of_agent(self) -> bool {
        // The account in `epoch_end` counts records of the rings. Events that went through none are added to it apart
        // (law "accounts" of the audit).
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

/// The operation's name, as in `cudaLaunchKernel`; `None` for numbers that the table does not have.
pub fn op_name(source: i32, op: i32) -> Option<&'static str> {
    Op::from_numbers(source, op).map(Op::name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_is_found_by_its_numbers_and_no_two_share_a_name() {
        let found = Op::ALL.iter().map(|op| Op::from_numbers(op.source().number(), op.number()));
        assert!(found.eq(Op::ALL.iter().copied().map(Some)));
        let names: BTreeSet<&str> = Op::ALL.iter().map(|op| op.name()).collect();
        assert_eq!(names.len(), Op::ALL.len());
        assert_eq!(Op::from_numbers(Source::System.number(), 1), None);
        assert_eq!(Op::from_numbers(2, 1), None, "a source that there is not");
    }

    #[test]
    fn arguments_of_an_operation_have_a_column_each_and_a_name_means_one_type() {
        for op in Op::ALL {
            let columns: BTreeSet<&str> = op.args().iter().map(|arg| arg.column.name()).collect();
            let names: BTreeSet<&str> = op.args().iter().map(|arg| arg.name).collect();
            assert_eq!((columns.len(), names.len()), (op.args().len(), op.args().len()), "{}", op.name());
        }
        let all: Vec<&Arg> = Op::ALL.iter().flat_map(|op| op.args()).collect();
        for arg in &all {
            let same = all.iter().filter(|other| other.name == arg.name);
            let types: BTreeSet<&str> = same.map(|other| other.kind.sql_type()).collect();
            assert_eq!(types.len(), 1, "{}", arg.name);
        }
    }
}
