//! The reference's recordings.

use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::run::{Lake, Said, fixture};

const BY_NODE: &str = "SELECT node, source, count(*) AS cnt, avg(duration)/1000 AS avg_us FROM events \
                       GROUP BY node, source ORDER BY node, source";

/// What the three nodes recorded: node, source, count, mean microseconds.
const EXPECTED: [(&str, &str, u64, f64); 8] = [
    ("gpu-node-01", "3", 99, 759.008),
    ("gpu-node-01", "5", 101, 769.802),
    ("gpu-node-02", "3", 62, 50_061.249),
    ("gpu-node-02", "4", 40, 121.553),
    ("gpu-node-02", "5", 98, 1_015.055),
    ("gpu-node-03", "3", 58, 50_067.355),
    ("gpu-node-03", "4", 36, 183.242),
    ("gpu-node-03", "5", 106, 1_037.200),
];

fn assert_by_node(csv: &str) {
    let lines: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), EXPECTED.len(), "{csv}");
    for (line, (node, source, count, mean_us)) in lines.iter().zip(EXPECTED) {
        assert_eq!((line[0], line[1], line[2]), (node, source, count.to_string().as_str()), "{csv}");
        assert!((line[3].parse::<f64>().unwrap() - mean_us).abs() < 0.000_5, "{csv}");
    }
}

fn table<'a>(tables: &'a Value, name: &str) -> &'a Value {
    tables["tables"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap()
}

#[test]
fn a_merged_recording_answers_the_references_own_sql_and_importing_it_twice_changes_nothing() {
    let lake = Lake::new();
    let first = lake.import(&["sample-cluster.db"], &["--json"]).ok();
    assert_eq!(first.json()[0]["rows"]["event"], 600);
    assert_eq!(first.json()[0]["nodes"].as_array().unwrap().len(), 3);

    let up = lake.up(&[]);
    assert_by_node(&up.csv(BY_NODE));
    assert_eq!(
        up.csv("SELECT source, count(*) FROM events GROUP BY source ORDER BY source")
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        ["3,219", "4,76", "5,305"]
    );
    let ids = up.csv(
        "SELECT count(DISTINCT id), count(DISTINCT source_id), min(source_id) FROM silver.events e, \
                      (SELECT id FROM events) v WHERE v.id = e.source_id OR v.id = e.event_id",
    );
    assert!(ids.lines().nth(1).unwrap().starts_with("600,600,gpu-node-01:"), "{ids}");
    let counts = up.csv(
        "SELECT (SELECT count(*) FROM stack_traces) AS stack_traces, (SELECT count(*) FROM causal_chains) AS causal_chains, (SELECT count(*) FROM sessions) AS sessions, \
         (SELECT count(*) FROM system_snapshots) AS system_snapshots, (SELECT count(*) FROM process_names) AS process_names, \
         (SELECT count(*) FROM cgroup_metadata) AS cgroup_metadata",
    );
    assert_eq!(counts.lines().nth(1).unwrap(), "9,6,3,5,15,3");
    let before = up.ask(&["tables", "--json"]).ok().json();
    up.stop().ok();

    let again = lake.import(&["sample-cluster.db"], &[]).ok();
    assert!(again.err.contains("already imported, nothing new"), "{}", again.err);
    let up = lake.up(&[]);
    let after = up.ask(&["tables", "--json"]).ok().json();
    for name in ["bronze.messages", "silver.events", "silver.stacks", "gold.chains", "gold.op_minute", "ops.ledger"] {
        assert_eq!(table(&before, name)["rows"], table(&after, name)["rows"], "{name}");
        assert_eq!(table(&before, name)["snapshot_id"], table(&after, name)["snapshot_id"], "{name}");
    }
    up.stop().ok();
    let audit = lake.audit().ok().json();
    assert_eq!(audit["holds"], true);
    assert_eq!(audit["rows"], 600 + 9 + 6 + 3 + 5 + 15 + 3);
}

#[test]
fn the_files_of_single_nodes_give_what_the_merged_one_does_and_overlap_with_it() {
    let lake = Lake::new();
    let files = ["sample-gpu-node-01.db", "sample-gpu-node-02.db", "sample-gpu-node-03.db"];
    lake.import(&files, &[]).ok();
    let merged = lake.import(&["sample-cluster.db"], &["--json"]).ok();
    assert!(merged.json()[0]["new_rows"].as_u64().unwrap() < 100, "{}", merged.out);
    let up = lake.up(&[]);
    assert_by_node(&up.csv(BY_NODE));
    up.stop().ok();
    lake.audit().ok();
}

#[test]
fn an_import_beside_a_running_lake_is_landed_by_it() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    assert_eq!(up.csv("SELECT count(*) FROM events").lines().nth(1), Some("0"));
    lake.import(&["sample-cluster.db"], &[]).ok();
    assert_by_node(&up.csv(BY_NODE));
    up.stop().ok();
    lake.audit().ok();
}

#[test]
fn an_older_recording_without_nodes_takes_the_name_that_is_given() {
    let lake = Lake::new();
    lake.import(&["pytorch-dataloader-starvation.db"], &["--node", "gpu-7", "--cluster", "lab"]).ok();
    let up = lake.up(&[]);
    let csv = up.csv("SELECT node, cluster, count(*), min(timestamp), max(timestamp) FROM events GROUP BY 1, 2");
    assert_eq!(csv.lines().nth(1), Some("gpu-7,lab,3807,1774015573210657601,1774015650149333856"));
    let aggregates = up.csv("SELECT sum(count), sum(stored) FROM event_aggregates WHERE source = 3 AND op = 1");
    assert_eq!(aggregates.lines().nth(1), Some("191835,3713"));
    let chains = up.csv("SELECT severity, count(*) FROM causal_chains GROUP BY severity ORDER BY severity");
    assert_eq!(chains.lines().skip(1).collect::<Vec<_>>(), ["HIGH,120", "MEDIUM,196"]);
}

#[test]
fn every_format_and_the_footer_come_out_where_they_belong() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let sql = "SELECT source, count(*) AS cnt FROM events GROUP BY source ORDER BY source";
    let table = up.ask(&["query", sql]).ok();
    assert_eq!(table.out, "source | cnt\n-------+----\n     3 | 219\n     4 |  76\n     5 | 305\n");
    assert!(table.err.contains("3 rows from 3 node(s)"), "{}", table.err);
    let json = up.ask(&["query", sql, "--json"]).ok();
    assert_eq!(json.json()[0], serde_json::json!({ "source": 3, "cnt": 219 }));
    assert!(json.err.contains("3 rows from 3 node(s)"), "{}", json.err);
    let lines = up.ask(&["query", sql, "--format", "ndjson"]).ok();
    assert_eq!(lines.out.lines().count(), 3);
    let arrow = up.ask(&["query", sql, "--format", "arrow"]).ok();
    assert!(arrow.out.len() > 100);

    let narrowed = up.ask(&["query", sql, "--nodes", "gpu-node-02:8080,gpu-node-03", "--format", "csv"]).ok();
    assert_eq!(narrowed.out.replace("\r\n", "\n"), "source,cnt\n3,120\n4,76\n5,204\n");
    let limited = up.ask(&["query", "SELECT * FROM events", "--limit", "2"]).ok();
    assert!(limited.err.contains("2 rows") && limited.err.contains("raise --limit"), "{}", limited.err);
    let nodes = up.ask(&["nodes", "--json"]).ok().json();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 3);
    up.ask(&["status"]).ok();
    let chains = up.ask(&["explain", "--from", "2026-01-01T00:00:00Z"]).ok();
    assert!(chains.out.starts_with("FLEET CAUSAL CHAINS - 6 chain(s) from 3 node(s)\n"), "{}", chains.out);
    let narrowed = up.ask(&["explain", "--from", "2026-01-01T00:00:00Z", "--nodes", "gpu-node-02:8080"]).ok();
    assert!(narrowed.out.starts_with("FLEET CAUSAL CHAINS - 1 chain(s) from 1 node(s)\n"), "{}", narrowed.out);
    assert!(
        narrowed.out.contains("[MEDIUM] [gpu-node-02] cuMemAlloc p99=51.501448ms (410.6x p50)"),
        "{}",
        narrowed.out
    );
}

#[test]
fn recordings_are_found_by_the_commands_people_type_or_by_the_command_they_are_told() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let reported = up.ask(&["explain", "--nodes", "gpu-node-01:8080"]).ok().out;
    assert!(reported.starts_with("FLEET CAUSAL CHAINS - 0 chain(s) from 0 node(s)\n"), "{reported}");
    let hint =
        reported.lines().find(|line| line.starts_with("gpu-node-01 has data from 2026-04-03T12:18:")).expect(&reported);
    let command = hint.split_once(": causeway ").expect(hint).1;
    let found = up.ask(&command.split(' ').collect::<Vec<_>>()).ok().out;
    assert!(found.starts_with("FLEET CAUSAL CHAINS - 4 chain(s) from 1 node(s)\n"), "{command}\n{found}");

    let sql = "SELECT node, count(*) AS n FROM events GROUP BY node ORDER BY node";
    let nodes = "gpu-node-01:8080,gpu-node-02:8080";
    let strict = up.ask(&["query", "--nodes", nodes, sql, "--strict", "--format", "csv"]);
    assert_eq!(
        (strict.code, strict.out.replace("\r\n", "\n").as_str()),
        (0, "node,n\ngpu-node-01,200\ngpu-node-02,200\n"),
        "{}",
        strict.err
    );
    let of_no_node = up.ask(&["query", "SELECT 1", "--strict"]).ok();
    assert_eq!(of_no_node.err, "1 row\n");
    let unknown = up.ask(&["explain", "--nodes", "gpu-node-09", "--since", "400d"]).ok().out;
    assert!(
        unknown.contains("no node is called gpu-node-09; nodes here: gpu-node-01, gpu-node-02, gpu-node-03\n"),
        "{unknown}"
    );
    let job = up.ask(&["stragglers", "--job", "nosuchjob", "--since", "400d"]).ok().out;
    assert!(job.starts_with("none: no process with a rank") && job.contains("no job is called nosuchjob"), "{job}");
}

#[test]
fn equal_chains_of_a_recording_are_shown_once_with_their_count() {
    let lake = Lake::new();
    lake.import(&["pytorch-dataloader-starvation.db"], &["--node", "gpu-7"]).ok();
    let up = lake.up(&[]);
    let shown = up.ask(&["explain", "--since", "400d", "--nodes", "gpu-7"]).ok().out;
    assert!(shown.starts_with("FLEET CAUSAL CHAINS - 316 chain(s) from 1 node(s)\n"), "{shown}");
    assert_eq!(shown.matches("] [gpu-7] ").count(), 8, "{shown}");
    assert!(shown.contains("  Seen: 49 times from 2026-03-20T14:0"), "{shown}");
    assert!(shown.contains("316 chain(s) of 8 kind(s): --all shows every one"), "{shown}");
    let all = up.ask(&["explain", "--since", "400d", "--nodes", "gpu-7", "--all"]).ok().out;
    assert_eq!(all.matches("] [gpu-7] ").count(), 316);
    let document = up.ask(&["explain", "--since", "400d", "--json"]).ok().json();
    assert_eq!(document["chains"].as_array().unwrap().len(), 316);
}

/// Imports one file several times at once; all must end well.
fn import_at_once(lake: &Lake) {
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| lake.import(&["sample-cluster.db"], &[]).ok());
        }
    });
}

#[test]
fn imports_of_one_file_at_the_same_time_land_it_once() {
    let lake = Lake::new();
    import_at_once(&lake);
    let up = lake.up(&[]);
    assert_by_node(&up.csv(BY_NODE));
    up.stop().ok();
    lake.audit().ok();
}

#[test]
fn imports_at_the_same_time_beside_a_running_lake_land_once() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    import_at_once(&lake);
    assert_by_node(&up.csv(BY_NODE));
    up.stop().ok();
    lake.audit().ok();
}

/// What the reference itself gives when it replays the rows of this recording.
#[test]
fn explained_by_the_references_rules_a_recording_gives_the_references_chains() {
    let lake = Lake::new();
    lake.import(&["pytorch-dataloader-starvation.db"], &["--node", "gpu-7"]).ok();
    let up = lake.up(&[]);
    let compat = ["explain", "--compat", "--from", "2026-03-20T00:00:00Z", "--to", "2026-03-21T00:00:00Z"];
    let found = up.ask(&[&compat[..], &["--json"]].concat()).ok().json();
    let mut chains: Vec<(&str, &str, f64, f64)> = found["chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| {
            assert_eq!(chain["root_cause"], "high CPU utilization + 7 sched_switch events", "{chain}");
            let number = |key: &str| chain[key].as_f64().unwrap();
            (
                chain["op"].as_str().unwrap(),
                chain["severity"].as_str().unwrap(),
                number("p99_ns") / 1e3,
                number("ratio"),
            )
        })
        .collect();
    chains.sort_by_key(|chain| chain.0);
    let expected = [
        ("cuLaunchKernel", "HIGH", 293.9, 10.8),
        ("cuMemAlloc", "HIGH", 714.3, 3.6),
        ("cudaLaunchKernel", "HIGH", 25_799.9, 352.5),
        ("cudaStreamSync", "HIGH", 93.6, 3.5),
    ];
    assert_eq!(chains.len(), expected.len(), "{chains:?}");
    for (chain, expected) in chains.iter().zip(expected) {
        assert_eq!((chain.0, chain.1), (expected.0, expected.1));
        assert!((chain.2 / expected.2 - 1.0).abs() < 0.01 && (chain.3 / expected.3 - 1.0).abs() < 0.02, "{chain:?}");
    }
    let text = up.ask(&compat).ok().out;
    assert!(text.starts_with("FLEET CAUSAL CHAINS - 4 chain(s) from 1 node(s)\n"), "{text}");
    let headline =
        "[HIGH] [gpu-7] cudaLaunchKernel p99=25.799899ms (352.5x p50) — high CPU utilization + 7 sched_switch events\n";
    assert!(text.contains(headline) && text.contains("[HOST] sched_switch: 7 context switches ("), "{text}");

    let trimmed = Lake::new();
    trimmed.import(&["sample-cluster.db"], &[]).ok();
    let up = trimmed.up(&[]);
    let none = up.ask(&["explain", "--compat", "--from", "2026-01-01T00:00:00Z"]).ok().out;
    assert!(none.starts_with("FLEET CAUSAL CHAINS - 0 chain(s) from 3 node(s)\n"), "{none}");
}

/// A copy of a recording, changed.
fn changed(dir: &tempfile::TempDir, name: &str, sql: &str) -> PathBuf {
    let path = dir.path().join("gpu.db");
    std::fs::copy(fixture(name), &path).unwrap();
    let change = async {
        let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(change);
    path
}

const NUMBER: &str = "CAST(substr(id, length('gpu-node-01:') + 1) AS INTEGER)";

#[test]
fn a_recording_that_has_grown_brings_what_was_added() {
    let (lake, dir) = (Lake::new(), tempfile::tempdir().unwrap());
    let earlier = format!(
        "DELETE FROM events WHERE {NUMBER} > 3600; DELETE FROM causal_chains; UPDATE sessions SET stopped_at = 0;"
    );
    let earlier = changed(&dir, "sample-gpu-node-01.db", &earlier);
    let report = |said: Said| said.ok().json()[0].clone();
    let first = report(lake.import(&[earlier.to_str().unwrap()], &["--json"]));
    assert_eq!((&first["rows"]["event"], &first["rows"]["session"]), (&json!(63), &json!(1)));
    let grown = report(lake.import(&["sample-gpu-node-01.db"], &["--json"]));
    // Events added, the session's end, and four chains.
    assert_eq!((&grown["rows"]["event"], &grown["new_rows"]), (&json!(200), &json!(137 + 1 + 4)));
    // What the tracer pruned is in the lake; what it kept is not new.
    let pruned = format!("DELETE FROM events WHERE {NUMBER} < 3700;");
    let pruned = changed(&dir, "sample-gpu-node-01.db", &pruned);
    assert_eq!(report(lake.import(&[pruned.to_str().unwrap()], &["--json"]))["new_rows"], 0);

    let up = lake.up(&[]);
    let csv = up.csv(
        "SELECT (SELECT count(*) FROM events) AS rows, (SELECT count(DISTINCT id) FROM events) AS ids, \
         (SELECT count(*) FROM sessions) AS sessions, (SELECT min(stopped_at) FROM sessions) AS stopped",
    );
    assert_eq!(csv.lines().nth(1), Some("200,200,1,1775218723430714874"));
    up.stop().ok();
    lake.audit().ok();
}
