//! Waits of traced threads, by the programs of `c/sched.h`.

use std::mem::{offset_of, size_of};

use event_schema::catalog::Op;

use super::{Family, Tracepoint};
use crate::class::Class;
use crate::record::{Head, Measured, Peer, Record, RecordError};
use crate::skeleton::TracerProgs;
use crate::skeleton::types::{cw_field, cw_wait_record};

pub(super) const FAMILY: Family = Family { class: Class::Sched, decode, tracepoints };

const RECORD_BYTES: usize = size_of::<cw_wait_record>();
const _: () = assert!(RECORD_BYTES == 88, "records of waits are 88 bytes on both sides");

fn tracepoints<'a>(programs: &'a TracerProgs<'static>) -> Vec<Tracepoint<'a>> {
    Vec::from([
        Tracepoint { name: "sched_switch", program: &programs.sched_switched },
        // `sched_waking` runs on the waker's CPU and is the only one that shows it; `sched_wakeup` may run on the CPU
        // of the woken.
        Tracepoint { name: "sched_waking", program: &programs.sched_waking },
        Tracepoint { name: "sched_wakeup", program: &programs.sched_woken },
        Tracepoint { name: "sched_wakeup_new", program: &programs.sched_woken_new },
    ])
}

fn decode(head: &Head<'_>) -> Result<Record, RecordError> {
    let record = head.record(Class::Sched, RECORD_BYTES)?;
    let peer = Peer {
        pid: head.int(offset_of!(cw_wait_record, peer_pid)),
        tid: head.int(offset_of!(cw_wait_record, peer_tid)),
        comm: head.comm(offset_of!(cw_wait_record, peer_comm)),
    };
    let reason = i64::from(head.unsigned(offset_of!(cw_wait_record, reason)));
    let prev_state = i64::from(head.unsigned(offset_of!(cw_wait_record, prev_state)));
    // A wait is always measured: its record is made when it ends.
    let duration = Measured { ns: head.long(offset_of!(cw_wait_record, duration_ns)), events: 1 };
    // As the catalogue has the arguments of the two operations.
    let is_sleep = Op::from_numbers(record.source, record.op) == Some(Op::Blocked);
    let [arg0, arg1] = if is_sleep { [prev_state, i64::from(peer.tid)] } else { [i64::from(peer.tid), reason] };
    Ok(Record { duration: Some(duration), arg0, arg1, peer: head.has(cw_field::CW_HAS_PEER).then_some(peer), ..record })
}
