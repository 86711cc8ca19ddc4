//! What the probes made, what was lost and where, and the sums of waits per thread.

use std::mem::{offset_of, size_of};
use std::ops::AddAssign;

use event_schema::stream::EventStream;
use libbpf_rs::{MapCore, MapFlags};

use crate::bytes::{int, unsigned_long};
use crate::class::{Class, PerClass};
use crate::skeleton::types::{cw_counters, cw_thread};

/// Accounting of one class since the tracer was loaded. All but the last are counts of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassCounters {
    /// Records that should have gone to a ring.
    pub attempts: u64,
    /// Of those: handed out by [`Tracer::poll`](crate::Tracer::poll).
    pub drained: u64,
    /// Of those: lost because the ring was full.
    pub ring_drop: u64,
    /// Waits shorter than the threshold: summed per thread, never attempted.
    pub sampled_out: u64,
    /// Calls or waits that could not be followed because a table in the kernel was full, or because the call was left
    /// by a jump; never attempted. A process that there is no room to follow counts once, for all its waits.
    pub untracked: u64,
    /// Environments of processes that have ended, of which there were too many to keep them. Of [`Class::Process`]
    /// alone.
    pub environs_drop: u64,
}

impl AddAssign for ClassCounters {
    fn add_assign(&mut self, more: Self) {
        self.attempts += more.attempts;
        self.drained += more.drained;
        self.ring_drop += more.ring_drop;
        self.sampled_out += more.sampled_out;
        self.untracked += more.untracked;
        self.environs_drop += more.environs_drop;
    }
}

/// Accounting of every class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    by_class: PerClass<ClassCounters>,
    /// Ring entries that could not be decoded; they are neither drained nor dropped. Always 0 unless this crate is
    /// broken.
    pub undecodable: u64,
}

impl Counters {
    /// The counters of one class.
    pub fn of(&self, class: Class) -> &ClassCounters {
        &self.by_class[class]
    }

    pub(crate) fn of_mut(&mut self, class: Class) -> &mut ClassCounters {
        &mut self.by_class[class]
    }

    /// The sum over the classes of one stream.
    pub fn of_stream(&self, stream: EventStream) -> ClassCounters {
        self.sum(|class| class.stream() == Some(stream))
    }

    /// The sum over the classes whose records are events, that is, all but notices.
    pub fn events(&self) -> ClassCounters {
        self.sum(|class| class.stream().is_some())
    }

    fn sum(&self, has: impl Fn(Class) -> bool) -> ClassCounters {
        let mut sum = ClassCounters::default();
        for class in Class::ALL.into_iter().filter(|class| has(*class)) {
            sum += self.by_class[class];
        }
        sum
    }
}

/// Adds up the kernel's per-CPU counters of one class. `drained` is not the kernel's to count, and 0.
pub(crate) fn read(map: &impl MapCore, class: Class) -> Result<ClassCounters, libbpf_rs::Error> {
    // One value per possible CPU: probes add without sharing a cache line.
    let per_cpu = map.lookup_percpu(&class.number().to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    let mut sum = ClassCounters::default();
    for cpu in &per_cpu {
        sum += ClassCounters {
            attempts: unsigned_long(cpu, offset_of!(cw_counters, attempts)),
            drained: 0,
            ring_drop: unsigned_long(cpu, offset_of!(cw_counters, ring_drop)),
            sampled_out: unsigned_long(cpu, offset_of!(cw_counters, sampled_out)),
            untracked: unsigned_long(cpu, offset_of!(cw_counters, untracked)),
            environs_drop: unsigned_long(cpu, offset_of!(cw_counters, environs_drop)),
        };
    }
    Ok(sum)
}

/// Sums of all waits of one living thread, whether they were recorded or shorter than the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTotals {
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// Thread id in the host's namespace.
    pub tid: i32,
    /// Nanoseconds runnable but not running.
    pub runnable_ns: u64,
    /// Waits that `runnable_ns` adds up.
    pub runnable_count: u64,
    /// Nanoseconds off the CPU by its own choice.
    pub blocked_ns: u64,
    /// Waits that `blocked_ns` adds up.
    pub blocked_count: u64,
}

impl WaitTotals {
    pub(crate) fn decode(tid: &[u8], thread: &[u8]) -> Option<Self> {
        let tid = i32::from_ne_bytes(tid.try_into().ok()?);
        if thread.len() < size_of::<cw_thread>() {
            return None;
        }
        Some(Self {
            pid: int(thread, offset_of!(cw_thread, pid)),
            tid,
            runnable_ns: unsigned_long(thread, offset_of!(cw_thread, runnable_ns)),
            runnable_count: unsigned_long(thread, offset_of!(cw_thread, runnable_count)),
            blocked_ns: unsigned_long(thread, offset_of!(cw_thread, blocked_ns)),
            blocked_count: unsigned_long(thread, offset_of!(cw_thread, blocked_count)),
        })
    }
}
