//! Bytes of every version ever shipped, and what they must decode to. Files are added, never edited.

use std::fmt;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;

use super::super::{Header, VERSION, decode};
use super::versions::read_as_shipped;
use super::{encode, events, header, rows_of};
use crate::kind::RecordKind;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// A header as the files show it: the stream is its number.
struct Shown(Header);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(header) = self;
        f.debug_struct("Header")
            .field("kind", &header.kind)
            .field("cluster", &header.cluster)
            .field("node", &header.node)
            .field("boot_id", &header.boot_id)
            .field("epoch", &header.epoch)
            .field("stream", &header.stream.number())
            .field("first_seq", &header.first_seq)
            .field("rows", &header.rows)
            .field("first_boot_ns", &header.first_boot_ns)
            .field("last_boot_ns", &header.last_boot_ns)
            .field("beacon", &header.beacon)
            .field("losses", &header.losses)
            .field("agent", &header.agent)
            .finish()
    }
}

fn text_of((header, batch): (Header, RecordBatch)) -> String {
    format!("{:#?}\n{}\n", Shown(header), pretty_format_batches(&[batch]).unwrap())
}

fn read_back(message: &[u8]) -> String {
    let decoded = decode(message).unwrap();
    text_of((decoded.header, decoded.batch))
}

/// Compares with a file; with `BLESS` makes one that does not exist yet.
fn hold_to_file(name: &str, text: &str) {
    if std::env::var_os("BLESS").is_some() && !file(name).exists() {
        std::fs::write(file(name), text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(file(name)).unwrap(), "{name}");
}

#[test]
fn every_version_of_every_kind_has_the_columns_and_values_it_shipped_with() {
    for (version, kind) in (1..=VERSION).flat_map(|version| RecordKind::ALL.map(|kind| (version, kind))) {
        let (bytes, text) = (format!("{}-v{version}.bin", kind.name()), format!("{}-v{version}.txt", kind.name()));
        if std::env::var_os("BLESS").is_some() && version == VERSION && !file(&bytes).exists() {
            let batch = if kind == RecordKind::Event { events(25) } else { rows_of(kind, 7) };
            std::fs::write(file(&bytes), encode(&header(kind), &batch).unwrap()).unwrap();
        }
        hold_to_file(&text, &text_of(read_as_shipped(&std::fs::read(file(&bytes)).unwrap())));
    }
}

#[test]
fn earlier_versions_of_every_kind_read_as_rows_of_the_current_one() {
    for (version, kind) in (1..VERSION).flat_map(|version| RecordKind::ALL.map(|kind| (version, kind))) {
        let message = std::fs::read(file(&format!("{}-v{version}.bin", kind.name()))).unwrap();
        hold_to_file(&format!("{}-v{version}-in-v{VERSION}.txt", kind.name()), &read_back(&message));
    }
}
