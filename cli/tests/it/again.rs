//! Recordings that are imported again after something in them has changed, and what the lake shows of both.

use serde_json::json;

use crate::bench::{Bench, T0, change, events, session};

#[test]
fn events_that_their_tracer_wrote_anew_do_not_land_the_session_again() {
    let bench = Bench::new();
    let path = bench.made("a.db", &(session("a") + &events("a", 1..=10)));
    bench.report(&path);
    change(&path, &(events("a", 11..=11) + "UPDATE events SET duration = 9, comm = 'renamed' WHERE id IN (3, 4);"));
    let report = bench.report(&path);
    assert_eq!((&report["new_rows"], &report["changed_events"]), (&json!(1), &json!(2)), "{report}");
    let note = "2 of 10 events that had landed before hold something else now and stay as they landed";
    assert!(report["notes"].to_string().contains(note), "{report}");
    assert_eq!(bench.rows(), 12);
}

#[test]
fn the_only_event_of_a_session_does_not_land_again_when_its_tracer_has_written_it_anew() {
    let bench = Bench::new();
    let path = bench.made("a.db", &(session("a") + &events("a", 1..=1) + "UPDATE events SET duration = 0, comm = '';"));
    bench.report(&path);
    change(&path, &(events("a", 2..=6) + "UPDATE events SET duration = 9, comm = 'train';"));
    let report = bench.report(&path);
    assert_eq!((&report["new_rows"], &report["changed_events"]), (&json!(5), &json!(1)), "{report}");
    assert_eq!(bench.report(&path)["new_rows"], 0);
    assert_eq!(bench.rows(), 7);
}

#[test]
fn a_small_file_of_another_host_is_found_however_much_has_landed() {
    let bench = Bench::new();
    bench.report(&bench.made("large.db", &(session("a") + &events("a", 1..=200_500))));
    for id in 1..=2 {
        let other = session("a") + &events("a", id..=id) + "UPDATE events SET pid = 8;";
        let report = bench.report(&bench.made(&format!("small-{id}.db"), &other));
        assert_eq!(report["new_rows"], 1, "{id}");
        let note = "the events of 1 session have the numbers of other events that landed";
        assert!(report["notes"].to_string().contains(note), "{report}");
    }
}

#[test]
fn a_file_with_a_row_that_no_message_can_carry_sends_nothing_and_hides_nothing() {
    let bench = Bench::new();
    let rows = session("a") + &events("a", 1..=4);
    let column = "printf('%.*c', 15000000, 'x')";
    let chain = format!(
        "ALTER TABLE causal_chains ADD COLUMN explanation TEXT; ALTER TABLE causal_chains ADD COLUMN recommendations TEXT; \
         INSERT INTO causal_chains VALUES ('a:k1', {T0}, {column}, {column}, {column}, 'a', {column}, {column});"
    );
    let bad = bench.made("bad.db", &(rows.clone() + &chain));
    let good = bench.made("good.db", &rows);
    let said = bench.import(&[&bad, &good], &["--json"]);
    assert_eq!(said.code, 1);
    let reports = said.json();
    let error = reports[0]["error"].as_str().unwrap();
    for expected in
        ["row 1 (id = the text \"a:k1\") of table `causal_chains`", "expected at most 7 MiB in all cells of a row"]
    {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(reports[1]["new_rows"], 5, "{reports}");
    let skipped = bench.import(&[&bad], &["--json", "--skip-bad-rows"]).ok().json();
    assert_eq!((&skipped[0]["new_rows"], &skipped[0]["skipped_rows"]), (&json!(0), &json!(1)), "{skipped}");
    assert_eq!(bench.rows(), 5);
}

#[test]
fn a_table_with_a_computed_column_is_refused_before_it_is_computed() {
    let bench = Bench::new();
    // A check of the table would evaluate it, and fail.
    let failing = "ALTER TABLE events ADD COLUMN failing INTEGER AS (abs(-9223372036854775807 - 1 + 0 * pid));";
    let path = bench.made("failing.db", &(events("a", 1..=4) + failing));
    let said = bench.import(&[&path], &[]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("column `failing` of table `events` of") && said.err.contains("is computed"),
        "{}",
        said.err
    );
    // Also the column that names the node, and a table that only says which version the file has.
    let path = bench.made("node.db", "ALTER TABLE process_names ADD COLUMN node TEXT AS ('x');");
    assert!(bench.import(&[&path], &[]).err.contains("column `node` of table `process_names` of"));
    let path = bench.made("info.db", "ALTER TABLE schema_info ADD COLUMN more TEXT AS ('x');");
    assert!(bench.import(&[&path], &[]).err.contains("column `more` of table `schema_info` of"));
}

#[test]
fn a_recording_that_only_an_event_could_name_needs_a_name() {
    let bench = Bench::new();
    let path = bench.made("a.db", &events("", 1..=4));
    let said = bench.import(&[&path], &[]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("names no node, and has no session to name one after: name its node with --node"),
        "{}",
        said.err
    );
    let named = || bench.import(&[&path], &["--node", "n", "--json"]).ok().json()[0]["new_rows"].clone();
    assert_eq!(named(), 4);
    change(&path, &("DELETE FROM events WHERE id < 3;".to_owned() + &events("", 5..=5)));
    assert_eq!(named(), 1);
}

#[test]
fn a_stack_that_was_resolved_later_and_a_container_that_was_found_later_are_shown() {
    let bench = Bench::new();
    let sql = "INSERT INTO stack_traces VALUES (5, '[1]', ''), (6, '[2]', ''); INSERT INTO cgroup_metadata VALUES (9, '', '/a');";
    let path = bench.made("a.db", &(session("a") + &events("a", 1..=1) + sql));
    bench.report(&path);
    change(
        &path,
        "UPDATE stack_traces SET frames = '[\"main\"]' WHERE hash = 5; UPDATE cgroup_metadata SET container_id = 'c9';",
    );
    assert_eq!(bench.report(&path)["new_rows"], 2);
    let up = bench.lake.up(&[]);
    let frames = up.csv("SELECT hash, coalesce(frames, 'none') AS frames FROM stack_traces ORDER BY hash");
    assert_eq!(frames, "hash,frames\n5,\"[\"\"main\"\"]\"\n6,none\n");
    let cgroups = up.csv("SELECT node, cgroup_id, container_id, cgroup_path FROM cgroup_metadata");
    assert_eq!(cgroups, "node,cgroup_id,container_id,cgroup_path\na,9,c9,/a\n");
}

#[test]
fn a_minute_counts_once_for_whichever_cluster_and_once_for_each_recording_of_it() {
    let bench = Bench::new();
    let aggregate = format!("INSERT INTO event_aggregates VALUES ({T0}, 1, 1, 8, 10, 2, 100, 5, 50, 0);");
    let begin = |after: i64| {
        format!(
            "INSERT INTO sessions (started_at, stopped_at, node) VALUES ({T0} + {after}, {T0} + {after} + 1000000000, 'a');"
        )
    };
    let first = bench.made("first.db", &(begin(1) + &events("a", 1..=1) + &aggregate));
    bench.report(&first);
    change(&first, "UPDATE event_aggregates SET count = 30, stored = 4, sum_dur = 400, min_dur = 3, max_dur = 90");
    bench.import(&[&first], &["--cluster", "west"]).ok();
    // The tracer was started again within the minute, with a new file.
    let second = bench.made("second.db", &(begin(20_000_000_000) + &events("a", 1..=1) + &aggregate));
    let west = || bench.import(&[&second], &["--cluster", "west", "--json"]).ok().json()[0]["new_rows"].clone();
    assert_eq!((west(), west()), (json!(3), json!(0)));
    // A node of the same name elsewhere.
    let third = bench.made("third.db", &(begin(40_000_000_000) + &events("a", 1..=1) + &aggregate));
    bench.import(&[&third], &["--cluster", "east"]).ok();
    let up = bench.lake.up(&[]);
    let of_pid = "cluster, count, stored, sum_dur, min_dur, max_dur, timed FROM event_aggregates WHERE pid = 8";
    let csv = up.csv(&format!("SELECT {of_pid} ORDER BY cluster"));
    assert_eq!(csv.lines().skip(1).collect::<Vec<_>>(), ["east,10,2,100,5,50,10", "west,40,6,500,3,90,40"]);
}
