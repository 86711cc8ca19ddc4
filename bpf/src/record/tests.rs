//! Notices and names are decoded whatever their bytes are.

use super::*;

fn comm(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

#[test]
fn only_a_notice_is_as_long_as_one() {
    for length in 0..300 {
        assert!(length == NOTICE_BYTES || Notice::decode(&vec![1; length]).is_err());
    }
}

#[test]
fn an_unknown_kind_is_named() {
    let at = offset_of!(cw_notice, kind);
    let mut bytes = [0; NOTICE_BYTES];
    bytes[at..at + 4].copy_from_slice(&9_u32.to_ne_bytes());
    assert_eq!(Notice::decode(&bytes), Err(RecordError::Kind { number: 9 }));
}

#[test]
fn a_name_ends_at_nul_or_where_it_stops_being_text() {
    assert_eq!(Comm(comm(b"python3\0junk")).as_str(), "python3");
    assert_eq!(Comm(comm("tréner-é".as_bytes())).as_str(), "tréner-é");
    assert_eq!(Comm(comm(b"cut \xc3")).as_str(), "cut ");
    assert_eq!(Comm(*b"sixteen bytes...").as_str(), "sixteen bytes...");
}
