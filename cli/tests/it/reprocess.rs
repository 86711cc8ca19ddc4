//! Rows of silver and gold that are made again from bronze, by the command.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Bench, events, session};
use crate::run::{Said, causeway};

/// Rows of all tables of records of [`imported`].
const ROWS: u64 = 30 + 20 + 2;

fn reprocess(bench: &Bench, args: &[&str]) -> Said {
    let mut command = causeway(&["reprocess"]);
    command.args(args).arg("--data").arg(bench.lake.path());
    Said::of(command.output().unwrap())
}

fn imported() -> Bench {
    let bench = Bench::new();
    bench.report(&bench.made("a.db", &(session("a") + &events("a", 1..=30))));
    bench.report(&bench.made("b.db", &(session("b") + &events("b", 1..=20))));
    bench
}

fn of_table<'a>(document: &'a Value, table: &str) -> &'a Value {
    document["tables"].as_array().unwrap().iter().find(|report| report["table"] == table).unwrap()
}

/// The events, their aggregates and the nodes.
fn content(bench: &Bench) -> String {
    let up = bench.lake.up(&[]);
    let events = up.csv("SELECT * FROM silver.events ORDER BY event_id");
    let nodes = up.csv("SELECT * FROM silver.nodes ORDER BY node, seq");
    let sums = "node, op, sum(count), sum(sum_duration_ns), max(max_duration_ns), sum(timed)";
    let minutes = up.csv(&format!("SELECT {sums} FROM gold.op_minute GROUP BY node, op ORDER BY node, op"));
    up.stop().ok();
    events + &nodes + &minutes
}

#[test]
fn rows_are_made_again_as_they_were_and_the_audit_agrees() {
    let bench = imported();
    let before = content(&bench);
    let dry = reprocess(&bench, &["--since", "1d", "--dry-run", "--json"]).ok().json();
    let planned = of_table(&dry, "silver.events");
    assert_eq!(
        (&planned["rows"], &planned["former_rows"], &planned["snapshot"]),
        (&json!(50), &json!(50), &Value::Null)
    );
    let done = reprocess(&bench, &["--since", "1d", "--json"]).ok().json();
    let made = of_table(&done, "silver.events");
    for key in
        ["table", "messages", "rows", "ranges", "former_rows", "former_files", "former_versions", "refine_version"]
    {
        assert_eq!(made[key], planned[key], "{key}");
    }
    assert!(made["snapshot"].is_i64(), "{done}");
    assert!(of_table(&done, "gold.op_minute")["snapshot"].is_i64(), "{done}");
    assert_eq!((content(&bench), bench.rows()), (before, json!(ROWS)));

    let later = reprocess(&bench, &["--since", "now"]).ok().out;
    assert!(later.contains("unchanged"), "{later}");
    let one = reprocess(&bench, &["--since", "1d", "--table", "silver.nodes", "--json"]).ok().json();
    assert_eq!((one["tables"].as_array().unwrap().len(), &one["tables"][0]["rows"]), (1, &json!(2)), "{one}");
    assert_eq!(bench.rows(), json!(ROWS));
}

#[test]
fn a_command_that_is_killed_leaves_the_tables_as_they_were_or_wholly_made_again() {
    let bench = imported();
    let before = content(&bench);
    for delay_ms in [5, 15, 30, 45, 60, 80, 100, 130, 170, 220, 300] {
        let mut command = causeway(&["reprocess", "--since", "1d", "--data"]);
        command.arg(bench.lake.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bench.rows(), json!(ROWS), "killed after {delay_ms} ms");
    }
    assert_eq!(content(&bench), before);
}

#[test]
fn rows_are_made_again_while_a_server_lands_others() {
    let bench = imported();
    let up = bench.lake.up(&[]);
    let more = bench.made("c.db", &(session("c") + &events("c", 1..=2_000)));
    let mut command = causeway(&["import", "--data"]);
    command.arg(bench.lake.path()).arg(&more).stdout(Stdio::null());
    let mut import = command.spawn().unwrap();
    for _ in 0..5 {
        reprocess(&bench, &["--since", "1d"]).ok();
    }
    assert!(import.wait().unwrap().success());
    reprocess(&bench, &["--since", "1d"]).ok();
    up.stop().ok();
    assert_eq!(bench.rows(), json!(ROWS + 2_001));
}

#[test]
fn what_cannot_be_made_again_is_named() {
    let bench = imported();
    for (args, part) in [
        (&["--since", "1d", "--table", "ops.ledger"][..], "ops.ledger is no table of silver or gold"),
        (&["--since", "1d", "--table", "events"], "silver.events"),
        (&["--since", "soon"], "`soon` is not a time"),
        (&[], "--since"),
    ] {
        let refused = reprocess(&bench, args);
        assert_eq!(refused.code, 2, "{args:?}: {}", refused.err);
        assert!(refused.err.contains(part), "{args:?}: {}", refused.err);
    }
    assert_eq!(bench.rows(), json!(ROWS));
}
