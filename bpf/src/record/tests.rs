//! Decoding is total, and puts every field where the probes wrote it.

use super::*;

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn comm(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

fn wait_record() -> Vec<u8> {
    let mut bytes = vec![0; RECORD_BYTES];
    put(&mut bytes, offset_of!(cw_record, boot_ns), 1_000_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, duration_ns), 77_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, duration_calls), 1_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, arg0), u64::MAX.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, bytes), 4096_u64.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, pid), 10_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, tid), 11_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, ret_code), (-5_i32).to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, source), [3]);
    put(&mut bytes, offset_of!(cw_record, op), [22]);
    put(&mut bytes, offset_of!(cw_record, class), [Class::Sched.number() as u8]);
    put(&mut bytes, offset_of!(cw_record, peer_tid), 99_u32.to_ne_bytes());
    put(&mut bytes, offset_of!(cw_record, comm), comm(b"rank 3"));
    put(&mut bytes, offset_of!(cw_record, peer_comm), comm(b"cpu-hog"));
    bytes
}

#[test]
fn a_record_comes_out_as_it_was_written() {
    let mut bytes = wait_record();
    let all = cw_field::CW_HAS_BYTES.0 | cw_field::CW_HAS_RET.0 | cw_field::CW_HAS_PEER.0;
    put(&mut bytes, offset_of!(cw_record, fields), [all as u8]);
    let record = Record::decode(&bytes).unwrap();
    assert_eq!((record.class, record.boot_ns, record.duration_ns()), (Class::Sched, 1_000, Some(77)));
    assert_eq!((record.source, record.op, record.pid, record.tid), (3, 22, 10, 11));
    assert_eq!((record.arg0, record.bytes, record.ret_code), (-1, Some(4096), Some(-5)));
    assert_eq!(record.comm.as_str(), "rank 3");
    let peer = record.peer.unwrap();
    assert_eq!((peer.tid, peer.comm.as_str()), (99, "cpu-hog"));
}

#[test]
fn a_field_that_was_not_set_is_none_whatever_its_bytes_say() {
    let record = Record::decode(&wait_record()).unwrap();
    assert_eq!((record.bytes, record.ret_code, record.peer), (None, None, None));
}

#[test]
fn every_length_and_every_byte_value_gives_a_value_or_an_error() {
    for length in 0..300 {
        for value in [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff] {
            let bytes = vec![value; length];
            assert!(length == RECORD_BYTES || Record::decode(&bytes).is_err());
            assert!(length == NOTICE_BYTES || Notice::decode(&bytes).is_err());
            if let Ok(record) = Record::decode(&bytes) {
                assert!(record.comm.as_str().len() <= 16);
            }
        }
    }
}

#[test]
fn an_unknown_class_or_kind_is_named() {
    let mut bytes = wait_record();
    put(&mut bytes, offset_of!(cw_record, class), [Class::Notice.number() as u8]);
    assert_eq!(Record::decode(&bytes), Err(RecordError::Kind { number: Class::Notice.number() }));
    let mut bytes = [0; NOTICE_BYTES];
    put(&mut bytes, offset_of!(cw_notice, kind), 9_u32.to_ne_bytes());
    assert_eq!(Notice::decode(&bytes), Err(RecordError::Kind { number: 9 }));
}

#[test]
fn a_name_ends_at_nul_or_where_it_stops_being_text() {
    assert_eq!(Comm(comm(b"python3\0junk")).as_str(), "python3");
    assert_eq!(Comm(comm("tréner-é".as_bytes())).as_str(), "tréner-é");
    assert_eq!(Comm(comm(b"cut \xc3")).as_str(), "cut ");
    assert_eq!(Comm(*b"sixteen bytes...").as_str(), "sixteen bytes...");
}
