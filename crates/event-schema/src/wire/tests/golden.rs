//! Bytes of every version ever shipped, and what they must decode to. Files are added, never edited.

use std::path::PathBuf;

use arrow::util::pretty::pretty_format_batches;

use super::super::{decode, encode};
use super::{events, header, rows_of};
use crate::kind::RecordKind;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn read_back(message: &[u8]) -> String {
    let decoded = decode(message).unwrap();
    format!("{:#?}\n{}\n", decoded.header, pretty_format_batches(&[decoded.batch]).unwrap())
}

#[test]
fn version_1_of_every_kind_reads_as_it_did_when_it_shipped() {
    for kind in RecordKind::ALL {
        let (bytes, text) = (file(&format!("{}-v1.bin", kind.name())), file(&format!("{}-v1.txt", kind.name())));
        if std::env::var_os("BLESS").is_some() && !bytes.exists() {
            let batch = if kind == RecordKind::Event { events(25) } else { rows_of(kind, 7) };
            let message = encode(&header(kind), &batch).unwrap();
            std::fs::write(&bytes, &message).unwrap();
            std::fs::write(&text, read_back(&message)).unwrap();
        }
        assert_eq!(read_back(&std::fs::read(&bytes).unwrap()), std::fs::read_to_string(&text).unwrap(), "{kind:?}");
    }
}
