//! Bad input: a clear message, the right exit code, and nothing written.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::run::{Lake, Said, causeway, fixture, run};

fn import(lake: &Lake, file: &std::path::Path) -> Said {
    let mut command = causeway(&["import", "--data"]);
    command.arg(lake.path()).arg(file);
    Said::of(command.output().unwrap())
}

#[test]
fn a_file_that_cannot_be_imported_leaves_no_trace() {
    let lake = Lake::new();
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("sample-gpu-node-01.db")).unwrap();
    let (text, cut) = (dir.path().join("notes.txt"), dir.path().join("cut.db"));
    fs::write(&text, "not a database").unwrap();
    fs::write(&cut, &whole[..100_000]).unwrap();
    for (file, message) in [(&text, "is not an SQLite file"), (&cut, "is truncated")] {
        let said = import(&lake, file);
        assert_eq!(said.code, 1);
        assert!(said.err.contains(message) && said.err.contains(file.to_str().unwrap()), "{}", said.err);
        assert!(!lake.path().exists());
    }
    // A bad file does not hide a good one.
    let said = lake.import(&["LICENSE", "sample-cluster.db"], &[]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("641 new rows") && said.err.contains("LICENSE is not an SQLite file"), "{}", said.err);
}

#[test]
fn a_lake_that_is_not_there_is_said_to_be_absent() {
    let lake = Lake::new();
    let said = lake.audit();
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no lake at"), "{}", said.err);
}

#[test]
fn a_command_on_a_lake_that_is_there_makes_none_where_its_address_is_mistyped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let root = dir.path().display();
    let text =
        format!("[catalog]\nuri = 'sqlite:///{root}/typo/catalog.sqlite'\n[store]\nwarehouse = '{root}/warehouse'\n");
    fs::write(&file, text).unwrap();
    for command in [&["audit"][..], &["rollback", "silver.events", "1"]] {
        let said = run(&[command, &["--config", file.to_str().unwrap()]].concat());
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("there is no catalog") && said.err.contains("typo"), "{}", said.err);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["c.toml"]);
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_do() {
    let said = run(&["--server", "http://127.0.0.1:1", "query", "SELECT 1"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no server answers at http://127.0.0.1:1: start one with `causeway up`"), "{}", said.err);
    let said = run(&["--server", "nonsense", "nodes"]);
    assert_eq!(said.code, 2);
}

#[test]
fn a_bad_configuration_is_refused_with_every_problem_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "[ingest]\nmemory = '1KiB'\ncommit_intervall = '1s'\n[quary]\n[query]\nrows = 0\n").unwrap();
    let said = run(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(said.code, 2);
    for problem in [
        "c.toml:2:10: ingest.memory",
        "c.toml:3:1: ingest.commit_intervall is not known; did you mean `commit_interval`?",
        "c.toml:4:2: quary is not known; did you mean `query`?",
        "c.toml:6:8: query.rows must be at least 1",
    ] {
        assert!(said.err.contains(problem), "{problem}: {}", said.err);
    }
    let said = run(&["config", "check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!((said.code, &said.json()["valid"]), (2, &serde_json::Value::Bool(false)));
    fs::write(&file, "[node]\ncluster = 'lab'\n[kafka]\nbrokers = 'k:9092'\n").unwrap();
    let said = run(&["config", "show", "--config", file.to_str().unwrap()]).ok();
    assert!(said.out.contains("cluster = \"lab\"  # ") && said.out.contains("c.toml:2:11"), "{}", said.out);
}

#[test]
fn a_bad_statement_is_placed_in_the_users_own_text() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let said = up.ask(&["query", "SELECT nodee FROM events"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("nodee") && said.err.contains("line 1, column 8"), "{}", said.err);
    let narrowed = up.ask(&["query", "SELECT nodee FROM events", "--nodes", "a"]);
    assert!(narrowed.err.contains("line 1, column 8"), "{}", narrowed.err);
    let recursive = "/* with */ WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) \
                     SELECT max(n) AS n, max(c) AS c FROM r, (SELECT count(*) AS c FROM events) AS e -- end";
    let said = up.ask(&["query", recursive, "--nodes", "a", "--since", "1h", "--format", "csv"]).ok();
    assert!(said.out.ends_with("\r\n3,0\r\n"), "{}", said.out);
    let said = up.ask(&["query", "SELECT 1 AS \"\u{1b}[31mred\", chr(27) || '[2J' AS clear"]).ok();
    assert!(!said.out.contains('\u{1b}') && said.out.contains("[31mred"), "{}", said.out);
    let said = up.ask(&["query", "DELETE FROM events"]);
    assert_eq!(said.code, 1);
    let said = up.ask(&["query", ";"]);
    assert_eq!(said.code, 2);
}

#[test]
fn an_answer_that_broke_off_is_told_with_its_reason() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let late = "SELECT 1 / (value - 900000) AS x FROM generate_series(1, 1000000)";
    for format in ["csv", "ndjson", "json", "arrow", "parquet"] {
        let said = up.ask(&["query", late, "--format", format, "--limit", "all"]);
        assert_eq!(said.code, 1, "{format}");
        assert!(said.err.contains("division by zero"), "{format}: {}", said.err);
    }
}

#[test]
fn a_plan_can_be_narrowed_as_its_statement_can() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let narrow = ["--nodes", "gpu-node-02", "--since", "2026-01-01T00:00:00Z", "--format", "csv"];
    let ask = |sql: &str| up.ask(&[&["query", sql], &narrow[..]].concat());
    let plan = ask("EXPLAIN SELECT count(*) FROM events").ok();
    assert!(plan.out.contains("gpu-node-02"), "{}", plan.out);
    assert!(ask("explain analyze\nSELECT count(*) FROM events").ok().out.contains("output_rows"));
    assert!(ask("DESCRIBE events").ok().out.contains("duration"));
    let wrong = ask("EXPLAIN SELECT nodee FROM events");
    assert!(wrong.err.contains("line 1, column 16"), "{}", wrong.err);
}

#[test]
fn a_node_that_nobody_has_heard_of_makes_an_answer_incomplete() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let sql = "SELECT count(*) AS n FROM \"silver\".\"events\"";
    let known = up.ask(&["query", sql, "--nodes", "gpu-node-01", "--strict", "--format", "csv"]).ok();
    assert_eq!(known.out, "n\r\n200\r\n");
    assert!(known.err.contains("rows from 1 node(s)"), "{}", known.err);
    for command in [vec!["query", sql], vec!["explain", "--since", "365d"]] {
        let unknown = up.ask(&[&command[..], &["--nodes", "gpu-node-01,nope", "--strict"]].concat());
        assert_eq!(unknown.code, 3, "{}", unknown.err);
        assert!(unknown.err.contains("1 of 2 node(s) missing: nope"), "{}", unknown.err);
    }
    assert_eq!(up.ask(&["explain", "--since", "5x"]).code, 2);
    assert_eq!(up.ask(&["query", sql, "--since", "soon"]).code, 2);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_query_at_the_server_too() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let endless = "SELECT * FROM generate_series(1, 10000000)";
    let mut query = up.command(&["query", endless, "--format", "csv", "--limit", "all"]);
    let mut child = query.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert!(child.wait().unwrap().success());
    for _ in 0..300 {
        if up.metrics().contains("causeway_query_queries_total{outcome=\"Cancelled\"} 1") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{}", up.metrics());
}

#[test]
fn usage_version_and_completion() {
    assert_eq!(run(&["fly"]).code, 2);
    let version = run(&["--version"]).ok();
    assert!(version.out.starts_with("causeway 0."), "{}", version.out);
    let script = run(&["completion", "bash"]).ok();
    assert!(script.out.contains("_causeway"));
}

#[test]
fn a_snapshot_and_a_time_are_two_ways_to_say_one_thing() {
    let lake = Lake::new();
    lake.import(&["sample-gpu-node-01.db"], &[]).ok();
    let up = lake.up(&[]);
    let tables = up.ask(&["tables", "silver.events", "--json"]).ok().json();
    let snapshot = tables["snapshot_id"].to_string();
    let sql = "SELECT count(*) FROM events";
    let now = up.csv(sql);
    let then = up.ask(&["query", sql, "--snapshot", &snapshot, "--format", "csv"]).ok();
    assert_eq!(then.out.replace("\r\n", "\n"), now);
    let unknown = up.ask(&["query", sql, "--snapshot", "5"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("no table of the statement has snapshot 5"), "{}", unknown.err);
    assert_eq!(up.ask(&["query", sql, "--snapshot", "5", "--at", "1h"]).code, 2);
}

#[test]
fn the_doctor_asks_the_store_itself() {
    let lake = Lake::new();
    lake.import(&["sample-gpu-node-01.db"], &[]).ok();
    let data = lake.path();
    let store = |said: &Said| said.json().as_array().unwrap().iter().find(|check| check["name"] == "store").cloned();
    let said = run(&["doctor", "--json", "--data", data.to_str().unwrap()]);
    let found = store(&said).unwrap();
    assert_eq!(found["verdict"], "works", "{found}");
    assert!(
        found["found"].as_str().unwrap().contains("/metadata/") || found["found"].as_str().unwrap().contains("/data/")
    );
}
