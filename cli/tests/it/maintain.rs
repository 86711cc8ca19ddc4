//! Data files are merged: on demand, and by `up` beside everything else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::{Bench, events, session};
use crate::run::{Said, TIME_LIMIT, Up, causeway, run};

/// A lake with so many commits of events of one day, each a file.
fn imported(commits: i64) -> Bench {
    let bench = Bench::new();
    for i in 0..commits {
        let node = format!("n{i}");
        bench.report(&bench.made(&format!("{node}.db"), &(session(&node) + &events(&node, 1..=10))));
    }
    bench
}

fn tables(bench: &Bench, args: &[&str]) -> Said {
    let mut command = causeway(&["tables"]);
    // The files have just been committed: without it their day would not be over for an hour.
    command.args(args).args(["--set", "compactor.quiet=0s", "--data"]).arg(bench.lake.path());
    Said::of(command.output().unwrap())
}

#[test]
fn a_plan_says_what_would_be_merged_and_maintain_does_it() {
    let bench = imported(3);
    let rows = bench.rows();
    let plan = tables(&bench, &["silver.events", "--plan", "--json"]).ok().json();
    assert_eq!(plan["health"]["files"], 3, "{plan}");
    let task = &plan["tasks"][0];
    assert_eq!(
        (&task["day"], &task["rows"], &task["files_after"]),
        (&json!("2026-05-28"), &json!(30), &json!(1)),
        "{plan}"
    );
    assert_eq!((&task["why"], task["files"].as_array().unwrap().len()), (&json!("the day is over"), 3), "{plan}");
    let text = tables(&bench, &["silver.events", "--plan"]).ok().out;
    assert!(text.starts_with("silver.events: 3 files, ") && text.contains("the day is over"), "{text}");
    assert_eq!(tables(&bench, &["silver.events", "--plan", "--json"]).ok().json(), plan, "a plan changes nothing");

    let done = tables(&bench, &["silver.events", "--maintain", "--json"]).ok().json();
    assert_eq!((&done["replaced"], &done["failed"], &done["left"]), (&json!(1), &json!(0), &json!(0)), "{done}");
    assert_eq!((&done["before"]["files"], &done["after"]["files"]), (&json!(3), &json!(1)), "{done}");
    let text = tables(&bench, &["silver.events", "--maintain"]).ok().out;
    assert!(text.contains("after   silver.events: 1 files") && text.ends_with("0 commits\n"), "{text}");
    let text = tables(&bench, &["silver.events", "--plan"]).ok().out;
    assert!(text.ends_with("nothing is to be done\n"), "{text}");
    assert_eq!(bench.rows(), rows, "the audit holds");
}

#[test]
fn what_is_no_table_or_no_lake_is_named() {
    let bench = Bench::new();
    let absent = tables(&bench, &["silver.events", "--plan"]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("there is no lake at"), "{}", absent.err);
    assert!(!bench.lake.path().exists());
    let bench = imported(1);
    for name in ["events", "silver.nothing"] {
        let unknown = tables(&bench, &[name, "--maintain"]);
        assert_eq!(unknown.code, 2);
        assert!(unknown.err.contains(&format!("there is no table `{name}` to maintain")), "{}", unknown.err);
    }
    let without = run(&["tables", "--plan"]);
    assert_eq!(without.code, 2, "a plan is of one table");
}

/// How many data files `silver.events` has.
fn files(up: &Up) -> Value {
    let document = up.ask(&["tables", "--json"]).ok().json();
    let tables = document["tables"].as_array().unwrap();
    tables.iter().find(|table| table["name"] == "silver.events").unwrap()["files"].clone()
}

#[test]
fn up_merges_files_unless_it_is_not_to() {
    let bench = imported(3);
    let up = bench.lake.up(&["--no-compactor"]);
    assert_eq!(files(&up), 3);
    up.stop().ok();
    let up = bench.lake.up(&["--set", "compactor.quiet=0s"]);
    let deadline = Instant::now() + TIME_LIMIT;
    while files(&up) != 1 {
        assert!(Instant::now() < deadline, "{} files", files(&up));
        std::thread::sleep(Duration::from_millis(100));
    }
    up.stop().ok();
    bench.rows();
}
