//! Recordings of several nodes in one file, whose tables do not all say which row is of which node.

use serde_json::json;

use crate::bench::{Bench, T0, events, session};

/// Two nodes that were recorded at the same time. Process 8 made events on `b` only, process 7 on both.
fn fleet() -> String {
    let of_b = events("b", 101..=104) + "UPDATE events SET pid = 8 WHERE id > 102;";
    session("a") + &session("b") + &events("a", 1..=4) + &of_b
}

#[test]
fn a_row_that_may_be_of_several_nodes_is_left_out_and_counted() {
    let bench = Bench::new();
    let rows = format!(
        "INSERT INTO process_names VALUES (7, 'both', {T0}), (8, 'of-b', {T0}), (9, 'of none', {T0}); \
         INSERT INTO event_aggregates VALUES ({T0}, 1, 1, 8, 10, 2, 100, 5, 50, 0), ({T0}, 1, 1, 7, 10, 2, 100, 5, 50, 0); \
         INSERT INTO stack_traces VALUES (5, '[]', '[{{}}]'); UPDATE events SET stack_hash = 5; \
         INSERT INTO system_snapshots (timestamp, cpu_pct) VALUES ({T0}, 50);"
    );
    let path = bench.made("fleet.db", &(fleet() + &rows));
    let report = bench.report(&path);
    assert_eq!((&report["new_rows"], &report["skipped_rows"]), (&json!(2 + 8 + 1 + 1 + 1), &json!(4)), "{report}");
    let notes = report["notes"].to_string();
    for table in
        ["1 row of table `event_aggregates`", "2 rows of table `process_names`", "1 row of table `system_snapshots`"]
    {
        assert!(
            notes.contains(&format!("{table} left out: it is not known which of the recording's nodes")),
            "{notes}"
        );
    }
    assert_eq!(bench.report(&path)["new_rows"], 0);
    let up = bench.lake.up(&[]);
    assert_eq!(up.csv("SELECT node, pid, name FROM process_names"), "node,pid,name\nb,8,of-b\n");
    assert_eq!(up.csv("SELECT node, count FROM event_aggregates WHERE stored IS NOT NULL"), "node,count\nb,10\n");
    assert_eq!(up.csv("SELECT count(*) FROM system_snapshots").lines().nth(1), Some("0"));
    assert_eq!(up.csv("SELECT hash, frames FROM stack_traces"), "hash,frames\n5,[{}]\n");
}

#[test]
fn the_time_of_a_row_names_its_node_where_one_was_recorded_then() {
    let bench = Bench::new();
    let later = T0 + 3_600_000_000_000;
    // Node `b` has no session: its events say when it was recorded.
    let of_b =
        format!("{} UPDATE events SET timestamp = timestamp + 3600000000000 WHERE node = 'b';", events("b", 101..=104));
    let rows = format!(
        "INSERT INTO system_snapshots (timestamp, cpu_pct) VALUES ({T0}, 50), ({later} + 102500, 60); \
         INSERT INTO process_names VALUES (7, 'train', {T0} + 5);"
    );
    let path = bench.made("fleet.db", &(session("a") + &events("a", 1..=4) + &of_b + &rows));
    assert_eq!(bench.report(&path)["skipped_rows"], 0);
    let up = bench.lake.up(&[]);
    let csv = up.csv("SELECT node, cpu_pct FROM system_snapshots ORDER BY node");
    assert_eq!(csv, "node,cpu_pct\na,50.0\nb,60.0\n");
    assert_eq!(up.csv("SELECT node FROM process_names"), "node\na\n");
}
