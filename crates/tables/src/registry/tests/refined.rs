//! The rows of every refined table, by version of the code that makes them. Files are added, never edited: a change of
//! rows needs a higher `refine_version`, and then a file of its own (`BLESS=1` writes it).

use std::path::{Path, PathBuf};

use arrow::util::pretty::pretty_format_batches;

use super::*;

fn golden(krate: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("golden").join(name)
}

/// The messages of every wire version and kind that were ever shipped, all of whose rows are new.
fn shipped() -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for (version, kind) in (1..=event_schema::wire::VERSION).flat_map(|v| RecordKind::ALL.map(|kind| (v, kind))) {
        let bytes = std::fs::read(golden("event-schema", &format!("{}-v{version}.bin", kind.name()))).unwrap();
        let mut arrival = Arrival::decode(raw(arrivals.len() as i64, Bytes::from(bytes)), ARRIVED_US);
        arrival.fresh = std::iter::once(0..arrival.header().unwrap().rows).collect();
        arrivals.push(arrival);
    }
    arrivals
}

#[test]
fn rows_change_only_with_the_version_of_the_code_that_makes_them() {
    let arrivals = shipped();
    let all: Vec<&Arrival> = arrivals.iter().collect();
    for table in super::all().iter().filter(|table| table.is_refined()) {
        let text = format!("{}\n", pretty_format_batches(&table.rows(&all).unwrap()).unwrap());
        let file = golden("tables", &format!("{}-r{}.txt", table.def.name, table.refine_version));
        if std::env::var_os("BLESS").is_some() && !file.exists() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text == expected, "{} has other rows: raise its refine_version (ADR 50), then BLESS=1", table.def.name);
    }
}
