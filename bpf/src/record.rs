//! Bytes from a ring become a typed [`Record`] or [`Notice`]. Total: any input is a value or an error, never a panic.
//!
//! The layout is written once, in `c/record.h`; the offsets used here come from the BTF of the compiled object.

use std::fmt;
use std::mem::{offset_of, size_of};

use thiserror::Error;

use crate::bytes::{array, byte, int, long, unsigned};
use crate::class::Class;
use crate::skeleton::types::{cw_field, cw_head, cw_notice, cw_notice_kind};

#[cfg(test)]
mod tests;

const HEAD_BYTES: usize = size_of::<cw_head>();
const NOTICE_BYTES: usize = size_of::<cw_notice>();
const _: () = assert!(HEAD_BYTES == 48, "heads are 48 bytes on both sides");
const _: () = assert!(NOTICE_BYTES == 32, "notices are 32 bytes on both sides");

/// The kernel's name of a thread: up to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm([u8; 16]);

impl Comm {
    /// The name up to its end, or to the first byte that is not UTF-8 (the kernel may cut a character in two).
    pub fn as_str(&self) -> &str {
        // prctl(2), PR_SET_NAME: up to 15 bytes and a terminating zero.
        let name = self.0.split(|&b| b == 0).next().unwrap_or_default();
        name.utf8_chunks().next().map_or("", |chunk| chunk.valid())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The other party of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id; 0 for an idle CPU.
    pub pid: i32,
    /// Thread id; 0 for an idle CPU.
    pub tid: i32,
    /// Its name at the time.
    pub comm: Comm,
}

/// A measured duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Nanoseconds.
    pub ns: i64,
    /// Events of its operation that it stands for: 1, or more where only a sample of the calls is timed.
    pub events: u32,
}

/// One event, as its probe saw it. Sources, operations and the meaning of `arg0` and `arg1` are those of
/// `event_schema::catalog`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Which probes made it, and which counters its loss goes to.
    pub class: Class,
    /// When the call or wait began, nanoseconds of CLOCK_BOOTTIME; of an instantaneous event, when it happened.
    pub boot_ns: i64,
    /// Absent of instantaneous events and of calls that were probed at entry only.
    pub duration: Option<Measured>,
    /// Number of the source in the catalogue.
    pub source: i32,
    /// Number of the operation in the catalogue, within its source.
    pub op: i32,
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// Thread id in the host's namespace.
    pub tid: i32,
    /// The CPU the probe ran on.
    pub cpu: u32,
    /// Name of the thread.
    pub comm: Comm,
    /// Inode of the thread's cgroup in the v2 hierarchy.
    pub cgroup_id: i64,
    /// Raw 64 bits.
    pub arg0: i64,
    /// Raw 64 bits.
    pub arg1: i64,
    /// Bytes moved, allocated or reduced, where the call has such a number.
    pub bytes: Option<i64>,
    /// What the call returned, or the exit status of a process. `None` for a call that ended with its thread.
    pub ret_code: Option<i32>,
    /// Of a runnable wait: the task that used the CPU meanwhile. Of a blocked wait: the waker.
    pub peer: Option<Peer>,
}

/// Why user space looks at a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// It replaced its image and may be about to load CUDA.
    Exec,
    /// It was not traced and called into a probed library; it is traced from now on.
    FirstCall,
}

/// A hint that a process may be worth tracing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// What the process did.
    pub kind: NoticeKind,
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: i64,
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// Name of the thread that the probe ran in.
    pub comm: Comm,
}

/// Bytes in a ring that are not what this build of the probes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("a ring entry has {got} bytes where {want} were expected")]
    Size { got: usize, want: usize },
    #[error("a ring entry is of unknown class or kind {number}")]
    Kind { number: u32 },
}

impl Record {
    /// Nanoseconds it took, as far as that was measured.
    pub fn duration_ns(&self) -> Option<i64> {
        self.duration.map(|duration| duration.ns)
    }
}

/// What is in front of every record of the data and the critical ring, and the record that it belongs to.
pub(crate) struct Head<'a> {
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The head of one entry of the ring, whose length is the stated one.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() < HEAD_BYTES {
            return Err(RecordError::Size { got: bytes.len(), want: HEAD_BYTES });
        }
        // The size is stated and measured: a record of another build of the probes is refused before a field of it is
        // read.
        let want = usize::from(u16::from_ne_bytes(array(bytes, offset_of!(cw_head, size))));
        check_size(bytes, want)?;
        Ok(Self { bytes })
    }

    /// The number of the record's class.
    pub(crate) fn class(&self) -> u32 {
        u32::from(byte(self.bytes, offset_of!(cw_head, class)))
    }

    pub(crate) fn has(&self, field: cw_field) -> bool {
        u32::from(byte(self.bytes, offset_of!(cw_head, fields))) & field.0 != 0
    }

    /// The record as far as the head determines it, of a family whose records have `want` bytes.
    pub(crate) fn record(&self, class: Class, want: usize) -> Result<Record, RecordError> {
        let bytes = self.bytes;
        check_size(bytes, want)?;
        Ok(Record {
            class,
            boot_ns: long(bytes, offset_of!(cw_head, boot_ns)),
            duration: None,
            source: i32::from(byte(bytes, offset_of!(cw_head, source))),
            op: i32::from(byte(bytes, offset_of!(cw_head, op))),
            pid: int(bytes, offset_of!(cw_head, pid)),
            tid: int(bytes, offset_of!(cw_head, tid)),
            cpu: u32::from(u16::from_ne_bytes(array(bytes, offset_of!(cw_head, cpu)))),
            comm: self.comm(offset_of!(cw_head, comm)),
            cgroup_id: long(bytes, offset_of!(cw_head, cgroup_id)),
            arg0: 0,
            arg1: 0,
            bytes: None,
            ret_code: None,
            peer: None,
        })
    }

    /// A name at this offset of the record.
    pub(crate) fn comm(&self, at: usize) -> Comm {
        Comm(array(self.bytes, at))
    }

    /// A 32-bit number at this offset.
    pub(crate) fn int(&self, at: usize) -> i32 {
        int(self.bytes, at)
    }

    /// A 32-bit number without a sign at this offset.
    pub(crate) fn unsigned(&self, at: usize) -> u32 {
        unsigned(self.bytes, at)
    }

    /// A 64-bit number at this offset.
    pub(crate) fn long(&self, at: usize) -> i64 {
        long(self.bytes, at)
    }
}

impl Notice {
    /// Decodes one entry of the notice ring.
    ///
    /// Wrong size, or an unknown kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        check_size(bytes, NOTICE_BYTES)?;
        let kind = unsigned(bytes, offset_of!(cw_notice, kind));
        let kind = match cw_notice_kind(kind) {
            cw_notice_kind::CW_NOTICE_EXEC => NoticeKind::Exec,
            cw_notice_kind::CW_NOTICE_FIRST_CALL => NoticeKind::FirstCall,
            cw_notice_kind(number) => return Err(RecordError::Kind { number }),
        };
        Ok(Self {
            kind,
            boot_ns: long(bytes, offset_of!(cw_notice, boot_ns)),
            pid: int(bytes, offset_of!(cw_notice, pid)),
            comm: Comm(array(bytes, offset_of!(cw_notice, comm))),
        })
    }
}

fn check_size(bytes: &[u8], want: usize) -> Result<(), RecordError> {
    if bytes.len() == want { Ok(()) } else { Err(RecordError::Size { got: bytes.len(), want }) }
}
