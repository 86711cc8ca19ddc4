//! A table that goes back to an older snapshot, and what is read again.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, change, events, session};
use crate::run::{Said, causeway};

const TABLE: &str = "silver.events";

/// The snapshots of the table of events, oldest first.
fn snapshots(bench: &Bench) -> Vec<i64> {
    let up = bench.lake.up(&[]);
    let document = up.ask(&["tables", TABLE, "--json"]).ok().json();
    let mut found: Vec<(String, i64)> = Vec::new();
    for snapshot in document["snapshots"].as_array().unwrap() {
        found.push((snapshot["committed"].as_str().unwrap().to_owned(), snapshot["snapshot_id"].as_i64().unwrap()));
    }
    up.stop().ok();
    found.sort();
    found.into_iter().map(|(_, id)| id).collect()
}

fn roll_back(bench: &Bench, table: &str, snapshot: i64, more: &[&str]) -> Said {
    let mut command = causeway(&["rollback", table, &snapshot.to_string(), "--json", "--data"]);
    command.arg(bench.lake.path()).args(more);
    Said::of(command.output().unwrap())
}

/// A lake with two imports, and the snapshot between them.
fn twice_imported() -> (Bench, i64) {
    let bench = Bench::new();
    bench.report(&bench.made("a.db", &(session("a") + &events("a", 1..=5))));
    let first = *snapshots(&bench).last().unwrap();
    bench.report(&bench.made("b.db", &(session("b") + &events("b", 1..=7))));
    (bench, first)
}

/// Events of both imports, and of the first one.
const BOTH: u64 = 5 + 7;
const FIRST: u64 = 5;

/// Rows of all tables of records: the events, and a node for each session.
const ALL_ROWS: u64 = BOTH + 2;

#[test]
fn what_is_taken_out_of_a_table_is_read_again_and_lands_once() {
    let (bench, first) = twice_imported();
    assert_eq!(bench.rows(), ALL_ROWS);

    let dry = roll_back(&bench, TABLE, first, &["--dry-run"]).ok().json();
    assert_eq!(
        (&dry["rows_before"], &dry["rows"], &dry["snapshot"]),
        (&json!(BOTH), &json!(FIRST), &Value::Null),
        "{dry}"
    );
    assert_eq!(bench.rows(), ALL_ROWS, "nothing was changed");

    let done = roll_back(&bench, TABLE, first, &[]).ok().json();
    assert_eq!(done["offsets"], dry["offsets"]);
    assert_eq!(done["offsets"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(done["missing"], json!([]));
    assert!(done["snapshot"].is_i64() && done["snapshot"] != json!(first), "{done}");

    // The audit names what is to be read again. `up` does that.
    let audit = bench.lake.audit();
    assert_eq!(audit.code, 1);
    assert!(audit.out.contains("messages that have rows for it have not landed"), "{}", audit.out);
    bench.lake.up(&[]).stop().ok();
    assert_eq!(bench.rows(), ALL_ROWS);
}

#[test]
fn a_table_goes_back_over_what_the_log_does_not_hold_only_when_that_is_accepted() {
    let (bench, first) = twice_imported();
    fs::remove_dir_all(bench.lake.path().join("spool")).unwrap();
    let refused = roll_back(&bench, TABLE, first, &[]);
    assert_eq!(refused.code, 1);
    for part in ["the log does not hold causeway.events.v1/0:", "give --accept-gap"] {
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    assert_eq!(bench.rows(), ALL_ROWS, "nothing was changed");
    let dry = roll_back(&bench, TABLE, first, &["--dry-run"]).ok().json();
    assert_eq!(dry["missing"], dry["offsets"]);
    let accepted = roll_back(&bench, TABLE, first, &["--accept-gap"]).ok().json();
    assert_eq!((&accepted["rows"], &accepted["missing"]), (&json!(FIRST), &dry["offsets"]));
}

/// Nothing of what would be taken out is in the log: the table stays as it is.
fn assert_lost(bench: &Bench, first: i64) {
    let dry = roll_back(bench, TABLE, first, &["--dry-run"]).ok().json();
    assert_ne!(dry["offsets"], json!([]));
    assert_eq!(dry["missing"], dry["offsets"]);
    let refused = roll_back(bench, TABLE, first, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("give --accept-gap"), "{}", refused.err);
    assert_eq!(bench.rows(), ALL_ROWS, "nothing was changed");
}

/// Its offsets show nothing: it ends where the former one ended.
#[test]
fn a_log_of_the_same_name_is_not_taken_for_the_one_that_the_table_was_filled_from() {
    let (bench, first) = twice_imported();
    assert_eq!(roll_back(&bench, TABLE, first, &["--dry-run"]).ok().json()["missing"], json!([]));
    fs::write(bench.lake.path().join("spool/causeway.events.v1/0/identity"), "another").unwrap();
    assert_lost(&bench, first);
}

/// Neither its identity nor its offsets show that it is another one, as where brokers give topics no ids.
#[test]
fn a_log_that_was_written_anew_past_what_has_landed_is_known_by_its_messages() {
    let (bench, first) = twice_imported();
    let (other, _) = twice_imported();
    other.report(&other.made("c.db", &(session("c") + &events("c", 1..=9))));
    let log = |bench: &Bench| bench.lake.path().join("spool/causeway.events.v1/0");
    for entry in fs::read_dir(log(&other)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "identity" {
            fs::copy(entry.path(), log(&bench).join(entry.file_name())).unwrap();
        }
    }
    assert_lost(&bench, first);
}

#[test]
fn a_table_that_was_dropped_is_not_made_to_be_rolled_back() {
    let (bench, first) = twice_imported();
    let catalog = bench.lake.path().join("catalog.sqlite");
    change(&catalog, "DELETE FROM iceberg_tables WHERE table_namespace = 'silver' AND table_name = 'events'");
    for _ in 0..2 {
        let refused = roll_back(&bench, TABLE, first, &[]);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("silver.events is not in this lake: nothing has landed"), "{}", refused.err);
    }
}

#[test]
fn what_cannot_be_rolled_back_is_named_with_what_to_do() {
    let (bench, first) = twice_imported();
    for (table, snapshot, code, part) in [
        ("silver.event", first, 2, "there is no table `silver.event`: `causeway tables` lists them"),
        ("events", first, 2, "there is no table `events`"),
        (TABLE, first + 1, 1, "is not in the table's history"),
    ] {
        let refused = roll_back(&bench, table, snapshot, &[]);
        assert_eq!(refused.code, code, "{}", refused.err);
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    assert_eq!(bench.rows(), ALL_ROWS, "nothing was changed");
    let nowhere = Bench::new();
    let refused = roll_back(&nowhere, TABLE, first, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("there is no lake at"), "{}", refused.err);
    assert!(!nowhere.lake.path().exists());
}
