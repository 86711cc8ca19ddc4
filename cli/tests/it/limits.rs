//! One limit in every format, and damage that the audit finds.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::bench::change;
use crate::run::Lake;

#[test]
fn every_format_has_the_same_limit_and_what_was_cut_is_incomplete() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let many = "SELECT value FROM generate_series(1, 10001)";
    for format in ["csv", "json", "ndjson", "table"] {
        let cut = up.ask(&["query", many, "--format", format, "--strict"]);
        assert_eq!(cut.code, 3, "{format}: {}", cut.err);
        assert!(cut.err.contains("raise --limit, or give --limit all"), "{format}: {}", cut.err);
        assert!(cut.out.contains("10000") && !cut.out.contains("10001"), "{format}");
        let all = up.ask(&["query", many, "--format", format, "--limit", "all"]).ok();
        assert!(all.out.contains("10001"), "{format}");
        assert!(!all.err.contains("--limit"), "{format}: {}", all.err);
        let exact = up.ask(&["query", "SELECT node FROM events LIMIT 2", "--format", format, "--limit", "2"]).ok();
        assert!(!exact.err.contains("--limit"), "{format}: {}", exact.err);
        let wanted = up.ask(&["query", "SELECT node FROM events", "--format", format, "--limit", "2", "--strict"]);
        assert_eq!(wanted.code, 3, "{format}: {}", wanted.err);
    }
    let wrong = up.ask(&["query", many, "--limit", "many"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// As another program drops it. Ingest makes it again and fills it from the log.
#[test]
fn the_audit_of_a_lake_without_a_table_names_the_laws_that_it_keeps_from_being_proved() {
    const UNTOUCHED: [&str; 2] = ["commits", "identity"];
    for (table, broken, unproved) in [
        ("silver.events", vec!["rows"], vec!["accounts", "aggregates"]),
        ("gold.op_minute", vec!["aggregates"], vec![]),
        (
            "ops.ledger",
            vec![],
            vec!["messages", "rows", "dead_letters", "sequence", "ledger", "accounts", "aggregates"],
        ),
    ] {
        let lake = Lake::new();
        lake.import(&["sample-cluster.db"], &[]).ok();
        let rows = lake.audit().ok().json()["rows"].clone();
        let (namespace, name) = table.split_once('.').unwrap();
        let sql = format!("DELETE FROM iceberg_tables WHERE table_namespace = '{namespace}' AND table_name = '{name}'");
        change(&lake.path().join("catalog.sqlite"), &sql);
        let audit = lake.audit();
        assert_eq!(audit.code, 1, "{table}: {}{}", audit.out, audit.err);
        let document = audit.json();
        let mut found = [Vec::new(), Vec::new()];
        for law in document["laws"].as_array().unwrap() {
            let name = law["law"].as_str().unwrap().to_owned();
            assert!(law["holds"] == true || !UNTOUCHED.contains(&&*name), "{table}: {law}");
            if law["broken"] != json!([]) {
                assert!(law["broken"].to_string().contains("start ingest"), "{table}: {law}");
                found[0].push(name);
            } else if law["unproved"] != json!([]) {
                assert!(law["unproved"][0].as_str().unwrap().starts_with(table), "{table}: {law}");
                found[1].push(name);
            }
        }
        assert_eq!(found, [broken, unproved], "{table}");
        lake.up(&[]).stop().ok();
        assert_eq!(lake.audit().ok().json()["rows"], rows, "{table}");
    }
}

#[test]
fn the_audit_finds_a_flipped_bit_in_any_file_of_a_table_and_names_it() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let sound = lake.audit().ok().json();
    assert_eq!((&sound["holds"], &sound["files"]["without_checksum"]), (&true.into(), &0.into()), "{sound}");
    let warehouse = lake.path().join("warehouse");
    for (table, part) in
        [("silver/events", "data"), ("bronze/messages", "data"), ("silver/stacks", "data"), ("ops/ledger", "metadata")]
    {
        let mut files = files_below(&warehouse.join(table).join(part));
        files.sort_by_key(|file| std::fs::metadata(file).unwrap().modified().unwrap());
        let file = files.pop().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        std::fs::write(&file, flipped).unwrap();
        let found = lake.audit();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(found.code, 1, "{table}: {}", found.out);
        let named = found.json()["files"]["damaged"][0]["file"].as_str().unwrap().to_owned();
        assert!(named.ends_with(name), "{table}: {}", found.out);
        std::fs::write(&file, bytes).unwrap();
    }
    lake.audit().ok();
}
