//! `causeway rollback` of a table that was filled from Kafka: what is taken out is read again, if the log is still the
//! one that it came from.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fleet::{Account, Fleet};
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::Place;
use crate::program::{self, Said};
use crate::{topics, wait_until};

const TABLE: &str = "silver.events";

/// Lands everything that Kafka holds, and ends.
fn land(place: &Place) {
    let ingest = Ingest::start(place);
    wait_until("rows land", || ingest.commits(TABLE) > 0);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
}

/// The current snapshot of the table, from its newest metadata file.
fn current_snapshot(place: &Place) -> i64 {
    let dir = place.dir("warehouse").join("silver/events/metadata");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    // Their names begin with the number of the version, in five digits.
    let newest: PathBuf = files.filter(|path| path.to_string_lossy().ends_with(".metadata.json")).max().unwrap();
    // Tables are made with compressed metadata.
    let mut unpacked = std::process::Command::new("gzip");
    let unpacked = unpacked.arg("-dc").stdin(std::fs::File::open(newest).unwrap()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&unpacked.stdout).unwrap();
    metadata["current-snapshot-id"].as_i64().unwrap()
}

fn roll_back(place: &Place, snapshot: i64, more: &[&str]) -> Said {
    let mut command = place.command("causeway");
    command.args(["rollback", TABLE, &snapshot.to_string(), "--json"]).args(more);
    program::run(command)
}

fn assert_landed(place: &Place, all: &Account) {
    place.assert_audit_holds();
    assert_eq!(place.oracle(TABLE, &[]), all.expected);
}

#[test]
fn a_table_that_went_back_is_filled_from_kafka_again_as_long_as_the_topic_is_the_same() {
    let _alone = alone();
    let place = Place::local();
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    let first = Fleet::send(&place, 4, 10_000, 1);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    let snapshot = current_snapshot(&place);
    let mut all = first.and(&Fleet::send(&place, 4, 10_000, 2));
    land(&place);
    assert_landed(&place, &all);

    let done = roll_back(&place, snapshot, &[]).ok().json();
    assert_eq!((&done["rows_before"], &done["rows"]), (&json!(all.expected.rows), &json!(first.expected.rows)));
    assert_eq!(done["missing"], json!([]));
    assert_ne!(done["offsets"], json!([]));
    assert_eq!(place.oracle(TABLE, &[]), first.expected);
    assert_eq!(place.audit().code, Some(1), "the table is behind the ledger");
    land(&place);
    assert_landed(&place, &all);

    // More messages than the former topic had: no offset shows that it is another one.
    topics::make_anew(&place);
    let anew = Fleet::send(&place, 4, 60_000, 3);
    let dry = roll_back(&place, snapshot, &["--dry-run"]).ok().json();
    assert_ne!(dry["offsets"], json!([]));
    assert_eq!(dry["missing"], dry["offsets"]);
    let refused = roll_back(&place, snapshot, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(refused.err.contains("give --accept-gap"), "{}", refused.err);
    let follow = Ingest::start_with(&place, &["ingest.on_new_log=follow"]);
    wait_until("rows of the new topic land", || follow.commits(TABLE) > 0);
    place.wait_for_no_lag(&[&follow]);
    follow.0.terminate().ok();
    all = all.and(&anew);
    assert_landed(&place, &all);
}
