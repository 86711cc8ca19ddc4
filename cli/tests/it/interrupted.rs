//! Imports that end before they are done: what was sent lands once, and what was done is reported.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::bench::{Bench, change, events, session};
use crate::manners::comes_true;
use crate::run::{Said, causeway};

/// SQL for a recording whose messages take some megabytes, also packed. Its stacks are read without a sorter, which would need a
/// larger file than the spool.
fn large() -> String {
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
     INSERT INTO stack_traces SELECT i, '[]', hex(randomblob(2000)) FROM n;"
        .to_owned()
        + &events("b", 1..=1)
}

/// Runs an import that can write no file beyond a size, given in KiB.
fn import_with_small_files(bench: &Bench, files: &[&Path]) -> Said {
    let mut command = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" import --json --data \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_causeway")]).arg(bench.lake.path()).args(files);
    Said::of(command.output().unwrap())
}

#[test]
fn what_an_import_sent_before_it_failed_lands_with_the_next_up_and_is_told() {
    let bench = Bench::new();
    let small = bench.made("small.db", &events("a", 1..=5));
    let large = bench.made("large.db", &large());
    let said = import_with_small_files(&bench, &[&small, &large]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("the spool cannot be written"), "{}", said.err);
    // The file before it is reported.
    let reports = said.json();
    assert_eq!((&reports[0]["new_rows"], reports.as_array().unwrap().len()), (&json!(5), 1), "{reports}");
    let up = bench.lake.up(&[]);
    let stacks = || up.csv("SELECT count(*) FROM stack_traces").lines().nth(1).unwrap().parse::<u64>().unwrap();
    assert!(comes_true(|| stacks() > 0), "nothing landed");
    assert!(stacks() < 3000);
    up.stop().ok();
    bench.import(&[&small, &large], &[]).ok();
    assert_eq!(bench.rows(), 5 + 3000 + 1);
}

#[test]
fn what_a_killed_import_had_appended_lands_before_anything_else_is_sent() {
    let (bench, other) = (Bench::new(), Bench::new());
    let path = bench.made("a.db", &(session("a") + &events("a", 1..=6)));
    // Partition 1 as an import beside `up` leaves it that is killed before it syncs: whole records above the watermark.
    other.report(&path);
    let spool = |bench: &Bench, partition: &str| bench.lake.path().join("spool/causeway.events.v1").join(partition);
    let left = spool(&bench, "1");
    fs::create_dir_all(&left).unwrap();
    for entry in fs::read_dir(spool(&other, "0")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "high-watermark" && entry.file_name() != "landed" {
            fs::copy(entry.path(), left.join(entry.file_name())).unwrap();
        }
    }
    assert_eq!(bench.report(&path)["new_rows"], 0);
    // Another writer holds partition 0, so that the next import opens partition 1.
    fs::create_dir_all(spool(&bench, "0")).unwrap();
    let held = File::create(spool(&bench, "0").join("lock")).unwrap();
    held.lock().unwrap();
    let more = bench.made("b.db", &events("b", 1..=2));
    assert_eq!(bench.report(&more)["new_rows"], 2);
    drop(held);
    assert_eq!(bench.rows(), 9);
}

#[test]
fn an_import_that_is_interrupted_exits_as_shells_do_and_locks_no_file_while_it_waits() {
    let bench = Bench::new();
    let first = bench.made("first.db", &events("a", 1..=1));
    bench.report(&first);
    let path = bench.made("a.db", &events("b", 1..=1));
    let lock = File::options().write(true).open(bench.lake.path().join("import.lock")).unwrap();
    lock.lock().unwrap();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut command = causeway(&["import", "--data"]);
        let mut child = command.arg(bench.lake.path()).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("waiting for another import"), "{line}");
        // Its tracer may go on meanwhile.
        change(&path, "PRAGMA busy_timeout = 0; UPDATE events SET comm = 'still';");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(said.join("\n").contains("interrupted"), "{said:?}");
    }
}

#[test]
fn the_copy_that_a_killed_import_left_is_removed() {
    let bench = Bench::new();
    let path = bench.made("a.db", &events("a", 1..=1));
    let tmp = bench.path("tmp");
    let make = |name: &str| {
        fs::create_dir_all(tmp.join(name)).unwrap();
        fs::write(tmp.join(name).join("recording.db"), "a copy").unwrap();
        tmp.join(name)
    };
    let [stale, held, fresh] = ["causeway-import-stale", "causeway-import-held", "causeway-import-fresh"].map(make);
    let other = make("other");
    for dir in [&stale, &held, &other] {
        assert!(Command::new("touch").args(["-d", "1 hour ago"]).arg(dir).status().unwrap().success());
    }
    let lock = File::open(&held).unwrap();
    lock.lock().unwrap();
    let mut command = causeway(&["import", "--data"]);
    Said::of(command.arg(bench.lake.path()).arg(&path).env("TMPDIR", &tmp).output().unwrap()).ok();
    assert!(!stale.exists());
    assert!(held.exists() && fresh.exists() && other.exists());
}
