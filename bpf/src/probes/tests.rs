//! Decoding is total, and puts every field of every family where the probes wrote it.

use std::mem::{offset_of, size_of};

use event_schema::catalog::Op;

use super::*;
use crate::record::RecordError;
use crate::skeleton::types::{cw_call_record, cw_field, cw_head, cw_process_record, cw_wait_record};

const HEAD_BYTES: usize = size_of::<cw_head>();

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn name(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

/// A record of `size` bytes with every field of its head set.
fn headed(class: Class, op: Op, size: usize, fields: u32) -> Vec<u8> {
    let mut bytes = vec![0; size];
    put(&mut bytes, offset_of!(cw_head, size), u16::try_from(size).unwrap().to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, class), [class.number() as u8]);
    put(&mut bytes, offset_of!(cw_head, fields), [fields as u8]);
    put(&mut bytes, offset_of!(cw_head, source), [op.source().number() as u8]);
    put(&mut bytes, offset_of!(cw_head, op), [op.number() as u8]);
    put(&mut bytes, offset_of!(cw_head, cpu), 300_u16.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, boot_ns), 1_000_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, cgroup_id), 77_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, pid), 10_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, tid), 11_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_head, comm), name(b"rank 3"));
    bytes
}

fn call(fields: u32) -> Vec<u8> {
    let mut bytes = headed(Class::Call, Op::NcclAllReduce, size_of::<cw_call_record>(), fields);
    put(&mut bytes, offset_of!(cw_call_record, duration_ns), 70_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_call_record, duration_calls), 5_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_call_record, arg0), u64::MAX.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_call_record, arg1), 2_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_call_record, bytes), 4096_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_call_record, ret_code), (-5_i32).to_ne_bytes());
    bytes
}

fn wait(op: Op, fields: u32) -> Vec<u8> {
    let mut bytes = headed(Class::Sched, op, size_of::<cw_wait_record>(), fields);
    put(&mut bytes, offset_of!(cw_wait_record, duration_ns), 77_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_wait_record, reason), 1_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_wait_record, prev_state), 2_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_wait_record, peer_pid), 98_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_wait_record, peer_tid), 99_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_wait_record, peer_comm), name(b"cpu-hog"));
    bytes
}

fn life(op: Op, fields: u32) -> Vec<u8> {
    let mut bytes = headed(Class::Process, op, size_of::<cw_process_record>(), fields);
    put(&mut bytes, offset_of!(cw_process_record, child_pid), 20_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_process_record, caller_tid), 21_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_process_record, exit_code), 22_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_process_record, signal), 9_u32.to_ne_bytes());
    bytes
}

#[test]
fn the_head_of_every_record_comes_out_as_it_was_written() {
    for bytes in [call(0), wait(Op::Blocked, 0), life(Op::ProcessExit, 0)] {
        let record = decode(&bytes).unwrap();
        assert_eq!((record.boot_ns, record.cgroup_id, record.cpu), (1_000, 77, 300));
        assert_eq!((record.pid, record.tid, record.comm.as_str()), (10, 11, "rank 3"));
    }
}

#[test]
fn a_call_comes_out_as_it_was_written() {
    let record = decode(&call(cw_field::CW_HAS_BYTES.0 | cw_field::CW_HAS_RET.0)).unwrap();
    assert_eq!((record.class, (record.source, record.op)), (Class::Call, Op::NcclAllReduce.numbers()));
    assert_eq!(record.duration.map(|duration| (duration.ns, duration.events)), Some((70, 5)));
    assert_eq!((record.arg0, record.arg1, record.bytes, record.ret_code), (-1, 2, Some(4096), Some(-5)));
}

#[test]
fn a_wait_has_the_arguments_of_its_operation() {
    let waited = decode(&wait(Op::RunnableWait, cw_field::CW_HAS_PEER.0)).unwrap();
    assert_eq!((waited.class, waited.duration_ns(), waited.arg0, waited.arg1), (Class::Sched, Some(77), 99, 1));
    let peer = waited.peer.unwrap();
    assert_eq!((peer.pid, peer.tid, peer.comm.as_str()), (98, 99, "cpu-hog"));
    let slept = decode(&wait(Op::Blocked, 0)).unwrap();
    assert_eq!((slept.arg0, slept.arg1, slept.peer), (2, 99, None));
}

#[test]
fn the_life_of_a_process_has_the_arguments_of_its_operation() {
    let args = |op| decode(&life(op, cw_field::CW_HAS_RET.0)).map(|record| (record.arg0, record.arg1)).unwrap();
    assert_eq!(args(Op::ProcessFork), (20, 0));
    assert_eq!(args(Op::ProcessExec), (21, 0));
    assert_eq!(args(Op::ProcessExit), (22, 9));
    assert_eq!(decode(&life(Op::ProcessExit, cw_field::CW_HAS_RET.0)).unwrap().ret_code, Some(22));
}

#[test]
fn a_field_that_was_not_set_is_none_whatever_its_bytes_say() {
    let record = decode(&call(0)).unwrap();
    assert_eq!((record.bytes, record.ret_code), (None, None));
    assert_eq!(decode(&wait(Op::RunnableWait, 0)).unwrap().peer, None);
    assert_eq!(decode(&life(Op::ProcessExit, 0)).unwrap().ret_code, None);
    let mut untimed = call(0);
    put(&mut untimed, offset_of!(cw_call_record, duration_calls), 0_u32.to_ne_bytes());
    assert_eq!(decode(&untimed).unwrap().duration, None);
}

#[test]
fn a_record_must_have_the_size_that_it_states_and_that_its_class_has() {
    let (whole, wait_bytes) = (call(0), size_of::<cw_wait_record>());
    for got in 0..whole.len() {
        let want = if got < HEAD_BYTES { HEAD_BYTES } else { whole.len() };
        assert_eq!(decode(&whole[..got]), Err(RecordError::Size { got, want }));
    }
    let mut longer = wait(Op::Blocked, 0);
    longer.extend([0; 8]);
    assert_eq!(decode(&longer), Err(RecordError::Size { got: wait_bytes + 8, want: wait_bytes }));
    put(&mut longer, offset_of!(cw_head, size), u16::try_from(wait_bytes + 8).unwrap().to_ne_bytes());
    assert_eq!(decode(&longer), Err(RecordError::Size { got: wait_bytes + 8, want: wait_bytes }), "as it states");
}

#[test]
fn every_length_and_every_byte_value_gives_a_value_or_an_error() {
    for length in 0..300 {
        for value in [0, 1, 2, 3, 4, 0x58, 0x7f, 0x80, 0xff] {
            if let Ok(record) = decode(&vec![value; length]) {
                assert!(record.comm.as_str().len() <= 16);
            }
        }
    }
}

#[test]
fn a_class_without_a_family_is_named() {
    let notice = headed(Class::Notice, Op::Blocked, HEAD_BYTES, 0);
    assert_eq!(decode(&notice), Err(RecordError::Kind { number: Class::Notice.number() }));
}

#[test]
fn every_class_of_events_has_one_family() {
    for class in Class::ALL {
        let families = FAMILIES.iter().filter(|family| family.class == class).count();
        assert_eq!(families, usize::from(class.stream().is_some()), "{}", class.name());
    }
}
