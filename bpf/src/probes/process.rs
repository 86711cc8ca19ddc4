//! Life and death of traced processes, by the programs of `c/process.h`.

use std::mem::{offset_of, size_of};

use event_schema::catalog::Op;

use super::{Family, Tracepoint};
use crate::class::Class;
use crate::record::{Head, Record, RecordError};
use crate::skeleton::TracerProgs;
use crate::skeleton::types::{cw_field, cw_process_record};

pub(super) const FAMILY: Family = Family { class: Class::Process, decode, tracepoints };

const RECORD_BYTES: usize = size_of::<cw_process_record>();
const _: () = assert!(RECORD_BYTES == 64, "records of processes are 64 bytes on both sides");

fn tracepoints<'a>(programs: &'a TracerProgs<'static>) -> Vec<Tracepoint<'a>> {
    Vec::from([
        // Forks first: a child whose fork was missed is not traced.
        Tracepoint { name: "sched_process_fork", program: &programs.process_forked },
        Tracepoint { name: "sched_process_exec", program: &programs.process_execed },
        Tracepoint { name: "sched_process_exit", program: &programs.process_exited },
    ])
}

fn decode(head: &Head<'_>) -> Result<Record, RecordError> {
    let record = head.record(Class::Process, RECORD_BYTES)?;
    let exit_code = head.int(offset_of!(cw_process_record, exit_code));
    let [arg0, arg1] = match Op::from_numbers(record.source, record.op) {
        Some(Op::ProcessFork) => [number(head, offset_of!(cw_process_record, child_pid)), 0],
        Some(Op::ProcessExec) => [number(head, offset_of!(cw_process_record, caller_tid)), 0],
        // An exit: the family has no other operation.
        _ => [i64::from(exit_code), number(head, offset_of!(cw_process_record, signal))],
    };
    Ok(Record { arg0, arg1, ret_code: head.has(cw_field::CW_HAS_RET).then_some(exit_code), ..record })
}

fn number(head: &Head<'_>, at: usize) -> i64 {
    i64::from(head.unsigned(at))
}
