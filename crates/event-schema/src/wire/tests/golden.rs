//! Bytes of every version ever shipped, and what they must decode to. Files are added, never edited.

use std::path::PathBuf;

use arrow::util::pretty::pretty_format_batches;

use super::super::{decode, encode};
use super::{events, header};
use crate::kind::RecordKind;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

#[test]
fn version_1_reads_as_it_did_when_it_shipped() {
    if std::env::var_os("BLESS").is_some() && !file("event-v1.bin").exists() {
        std::fs::create_dir_all(file("")).unwrap();
        let message = encode(&header(RecordKind::Event), &events(25)).unwrap();
        std::fs::write(file("event-v1.bin"), &message).unwrap();
        let decoded = decode(&message).unwrap();
        let text = format!("{:#?}\n{}\n", decoded.header, pretty_format_batches(&[decoded.batch]).unwrap());
        std::fs::write(file("event-v1.txt"), text).unwrap();
    }
    let decoded = decode(&std::fs::read(file("event-v1.bin")).unwrap()).unwrap();
    let text = format!("{:#?}\n{}\n", decoded.header, pretty_format_batches(&[decoded.batch]).unwrap());
    assert_eq!(text, std::fs::read_to_string(file("event-v1.txt")).unwrap());
}
