//! The families of probes. A family is a class, a record and programs: the class and the record in `c/record.h`, the
//! record also in `layouts` of `c/maps.h`, a file of programs in `c`, a file here, a value of [`Class`] and a place in
//! [`FAMILIES`].

use libbpf_rs::ProgramMut;

use crate::class::Class;
use crate::record::{Head, Record, RecordError};
use crate::skeleton::TracerProgs;

mod calls;
mod process;
mod sched;
#[cfg(test)]
mod tests;

pub use calls::{Arg, Bytes, CALLS, LibraryKind, Probe, Timing};

/// How libraries are probed. A tracer uses the best method of the running kernel for all of them, and reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// One link for all functions of a library (kernel 6.6); needs CAP_BPF and CAP_PERFMON only.
    UprobeMulti,
    /// One perf event per function (kernel 5.15); needs CAP_SYS_ADMIN.
    Uprobe,
}

impl Method {
    /// As in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UprobeMulti => "uprobe.multi",
            Self::Uprobe => "uprobe",
        }
    }
}

/// What user space does for a family.
pub(crate) struct Family {
    /// The class of its records; no other family has it.
    class: Class,
    /// Reads a record whose head has that class.
    decode: fn(&Head<'_>) -> Result<Record, RecordError>,
    /// The programs that are attached when the probes are loaded.
    pub(crate) tracepoints: for<'a> fn(&'a TracerProgs<'static>) -> Vec<Tracepoint<'a>>,
}

/// A program and the tracepoint that it belongs to.
pub(crate) struct Tracepoint<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a ProgramMut<'static>,
}

/// Every family, in the order in which they are attached. Processes come first: a child whose fork was missed is not
/// traced.
pub(crate) const FAMILIES: [Family; 3] = [process::FAMILY, sched::FAMILY, calls::FAMILY];

/// Decodes one entry of the data or the critical ring. Total: any bytes are a record or an error.
///
/// # Errors
/// The size is not that of the class, or no family has the class.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let head = Head::read(bytes)?;
    let family = FAMILIES.iter().find(|family| family.class.number() == head.class());
    let family = family.ok_or(RecordError::Kind { number: head.class() })?;
    (family.decode)(&head)
}
