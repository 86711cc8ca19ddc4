//! What lies beside a table's files that nothing needs.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use crate::bench::{Bench, events, session};
use crate::run::{Said, causeway, run};

const TABLE: &str = "silver.events";

fn orphans(bench: &Bench, more: &[&str]) -> Said {
    let mut command = causeway(&["tables", TABLE, "--orphans", "--data"]);
    command.arg(bench.lake.path()).args(more);
    Said::of(command.output().unwrap())
}

/// A file whose name has no time, written in 1970.
fn leave(path: &Path) {
    fs::write(path, "x").unwrap();
    File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

#[test]
fn orphans_are_listed_and_removed_only_when_that_is_asked_for() {
    let bench = Bench::new();
    bench.report(&bench.made("a.db", &(session("a") + &events("a", 1..=5))));
    let rows = bench.rows();
    let data = bench.lake.path().join("warehouse/silver/events/data");
    let [lost, notes] = ["lost.parquet", "notes.txt"].map(|name| data.join(name));
    leave(&lost);
    leave(&notes);

    let dry = orphans(&bench, &["--json"]).ok().json();
    assert_eq!((dry["found"]["orphans"].as_array().unwrap().len(), &dry["removed"]), (1, &json!(null)), "{dry}");
    assert!(dry["found"]["orphans"][0]["location"].as_str().unwrap().ends_with("/data/lost.parquet"), "{dry}");
    assert_eq!(dry["found"]["unknown"], json!(1), "{dry}");
    assert!(lost.exists());
    let text = orphans(&bench, &[]).ok().out;
    assert!(text.ends_with("1 orphans of 1 B; --remove removes them\n"), "{text}");

    let done = orphans(&bench, &["--remove", "--json"]).ok().json();
    assert_eq!((&done["removed"]["removed"], &done["removed"]["damaged"]), (&json!(1), &json!([])), "{done}");
    assert!(!lost.exists() && notes.exists());
    assert_eq!(orphans(&bench, &["--json"]).ok().json()["found"]["orphans"], json!([]));
    assert_eq!(bench.rows(), rows);
}

#[test]
fn a_command_line_that_could_cost_a_file_is_refused() {
    let bench = Bench::new();
    bench.report(&bench.made("a.db", &(session("a") + &events("a", 1..=5))));
    for (more, part) in [
        (&["--older-than", "1h"][..], "orphans must be 86400 s old at least, not 3600 s"),
        (&["--older-than", "3"][..], "write an age as 36h or 3d"),
    ] {
        let refused = orphans(&bench, more);
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    for line in [&["tables", "--orphans"][..], &["tables", TABLE, "--remove"][..]] {
        assert_eq!(run(line).code, 2, "{line:?}");
    }
}
