//! Recordings that are not as a tracer left them, made for the purpose.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::bench::{Bench, T0, block_on, change, copy, events, open, session};
use crate::run::{Said, causeway};

/// Begins a transaction that is too large for the cache, so that part of it is in the file.
async fn spill(connection: &mut SqliteConnection) {
    let sql = format!(
        "PRAGMA cache_size = 5; BEGIN; DELETE FROM events WHERE id <= 900; UPDATE events SET duration = 888888888; {}",
        events("a", 7001..=10_000)
    );
    sqlx::raw_sql(&sql).execute(connection).await.unwrap();
}

#[test]
fn a_transaction_that_its_tracer_did_not_finish_is_never_imported() {
    let bench = Bench::new();
    let path = bench.made("live.db", &(session("a") + &events("a", 1..=2000)));
    let dead = bench.path("dead.db");
    block_on(async {
        let mut tracer = open(&path).await;
        spill(&mut tracer).await;
        copy(&path, &dead);
        copy(&bench.path("live.db-journal"), &bench.path("dead.db-journal"));
        let busy = bench.import(&[&path], &[]);
        assert_eq!(busy.code, 1, "{}", busy.err);
        assert!(busy.err.contains("live.db is locked by a program that is writing to it"), "{}", busy.err);
        sqlx::raw_sql("ROLLBACK").execute(&mut tracer).await.unwrap();
        tracer.close().await.unwrap();
    });
    let report = bench.report(&dead);
    assert_eq!((&report["rows"]["event"], &report["new_rows"]), (&json!(2000), &json!(2001)));
    assert!(report["notes"][0].as_str().unwrap().contains("was rolled back"), "{report}");
    assert_eq!(bench.report(&path)["new_rows"], 0);
    let up = bench.lake.up(&[]);
    assert_eq!(up.csv("SELECT count(*), max(duration) FROM events").lines().nth(1), Some("2000,2100"));
}

#[test]
fn a_recording_is_read_beside_its_log_and_its_directory_is_left_as_it_was() {
    let bench = Bench::new();
    let path = bench.made("wal.db", "PRAGMA user_version = 10");
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    block_on(async {
        let mut tracer = open(&path).await;
        sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").execute(&mut tracer).await.unwrap();
        sqlx::raw_sql(&(events("a", 1..=3) + "BEGIN;" + &events("a", 4..=9))).execute(&mut tracer).await.unwrap();
        for name in ["wal.db", "wal.db-wal"] {
            std::fs::create_dir_all(bench.path("copy")).unwrap();
            copy(&bench.path(name), &bench.path("copy").join(name));
        }
        let before = names();
        assert_eq!(bench.report(&path)["new_rows"], 3, "the tracer lives");
        assert_eq!(names(), before);
        tracer.close().await.unwrap();
    });
    let copy = bench.path("copy").join("wal.db");
    assert_eq!(bench.report(&copy)["new_rows"], 0, "its tracer died");
    assert_eq!(std::fs::read_dir(bench.path("copy")).unwrap().count(), 2);
}

#[test]
fn a_directory_for_copies_that_is_not_there_is_named_with_what_it_needs() {
    let bench = Bench::new();
    let path = bench.made("wal.db", &events("a", 1..=3));
    change(&path, "PRAGMA journal_mode = WAL");
    let bytes = std::fs::metadata(&path).unwrap().len();
    let absent = bench.path("absent/x");
    let mut command = causeway(&["import", "--data"]);
    command.arg(bench.lake.path()).arg(&path).env("TMPDIR", &absent);
    let said = Said::of(command.output().unwrap());
    assert_eq!(said.code, 1, "{}", said.err);
    let expected = format!("cannot be copied to {}: it needs {bytes} bytes there", absent.display());
    assert!(said.err.contains(&expected), "{}", said.err);
}

#[test]
fn a_recording_that_grew_adds_what_is_new_of_every_table() {
    let bench = Bench::new();
    let one_of_each = |i: i64| {
        format!(
            "INSERT INTO causal_chains VALUES ('a:k{i}', {T0} + {i}, 'LOW', 's', 'r', 'a'); INSERT INTO process_names VALUES ({i}, 'train', {T0}); \
             INSERT INTO stack_traces VALUES (-{i}, '[]', ''); INSERT INTO cgroup_metadata (cgroup_id) VALUES ({i}); \
             INSERT INTO system_snapshots (timestamp) VALUES ({T0} + {i}); \
             INSERT INTO event_aggregates VALUES ({T0}, 1, 1, {i}, 1, 1, 1, 1, 1, 1);"
        )
    };
    for (name, begun) in [("with.db", session("a")), ("without.db", String::new())] {
        let path = bench.made(name, &(begun + &events("a", 1..=4) + &one_of_each(1) + &one_of_each(2)));
        let first = bench.report(&path);
        // The second file has the rows of the first but for its session.
        change(&path, &(events("a", 5..=5) + &one_of_each(3) + "UPDATE process_names SET seen_at = seen_at + 5;"));
        let grown = bench.report(&path);
        assert_eq!(grown["rows"]["event"], 5, "{grown}");
        assert_eq!(bench.report(&path)["new_rows"], 0);
        if name == "with.db" {
            assert_eq!((&first["new_rows"], &grown["new_rows"]), (&json!(1 + 4 + 12), &json!(1 + 6)), "{grown}");
        } else {
            // Without a session its events, processes and aggregates have other keys; everything else is there.
            assert_eq!((&first["new_rows"], &grown["new_rows"]), (&json!(4 + 2 + 2), &json!(1 + 1 + 1)), "{grown}");
        }
    }
}

#[test]
fn a_minute_of_aggregates_that_grew_counts_once() {
    let bench = Bench::new();
    let path = bench.made(
        "a.db",
        &(events("a", 1..=1) + &format!("INSERT INTO event_aggregates VALUES ({T0}, 1, 1, 8, 10, 2, 100, 5, 50, 0);")),
    );
    bench.report(&path);
    change(&path, "UPDATE event_aggregates SET count = 30, stored = 4, sum_dur = 400, min_dur = 3, max_dur = 90");
    assert_eq!(bench.report(&path)["new_rows"], 1);
    let up = bench.lake.up(&[]);
    let csv = up.csv(
        "SELECT sum(count), sum(stored), sum(sum_dur), min(min_dur), max(max_dur) FROM event_aggregates WHERE pid = 8",
    );
    assert_eq!(csv.lines().nth(1), Some("30,4,400,3,90"));
}

#[test]
fn the_name_of_a_file_is_part_of_nothing() {
    let bench = Bench::new();
    let path = bench.made("a.db", &(session("") + &events("", 1..=4)));
    let copy = bench.path("b.db");
    std::fs::copy(&path, &copy).unwrap();
    let first = bench.report(&path);
    let node = first["nodes"][0].as_str().unwrap();
    assert!(node.starts_with("recording-"), "{first}");
    assert!(first["notes"][0].as_str().unwrap().contains("it names no node"), "{first}");
    assert_eq!(bench.report(&copy)["new_rows"], 0);
    // Another host's recording under the same name.
    std::fs::create_dir(bench.path("other")).unwrap();
    let other = bench.made(
        "other/a.db",
        &(session("").replace("node)", "node, kernel)").replace("'')", "'', '6.2')") + &events("", 1..=4)),
    );
    let second = bench.report(&other);
    assert_eq!(second["new_rows"], 5, "{second}");
    assert_ne!(second["nodes"], first["nodes"]);
    assert_eq!(bench.rows(), 10);
}

#[test]
fn two_hosts_that_recorded_at_the_same_time_under_one_name_are_not_taken_for_one() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("other")).unwrap();
    for (first, second, node) in [("a.db", "other/a.db", ""), ("named.db", "other/named.db", "gpu")] {
        let first = bench.made(first, &(session(node) + &events(node, 1..=4)));
        let second = bench.made(second, &(session(node) + &events(node, 1..=6) + "UPDATE events SET pid = 8;"));
        // Both in one command, then each again, then grown.
        let reports = bench.import(&[&first, &second], &["--json"]).ok().json();
        assert_eq!((&reports[0]["new_rows"], &reports[1]["new_rows"]), (&json!(5), &json!(6)), "{reports}");
        change(&second, &(events(node, 7..=7) + "UPDATE events SET pid = 8;"));
        assert_eq!(bench.report(&first)["new_rows"], 0);
        assert_eq!(bench.report(&second)["new_rows"], 1);
        assert_eq!(bench.report(&second)["new_rows"], 0);
    }
    // Without a session too, and a third host.
    for (name, pid, new) in [("x.db", 1, 3), ("y.db", 2, 3), ("z.db", 3, 3)] {
        let path = bench.made(name, &(events("x", 1..=3) + &format!("UPDATE events SET pid = {pid};")));
        assert_eq!(bench.report(&path)["new_rows"], new, "{name}");
        assert_eq!(bench.report(&path)["new_rows"], 0, "{name}");
    }
    let up = bench.lake.up(&[]);
    assert_eq!(up.csv("SELECT count(*), count(DISTINCT event_id) FROM events").lines().nth(1), Some("31,31"));
}

#[test]
fn null_stays_null_on_its_way_into_the_lake() {
    let bench = Bench::new();
    let sql = events("a", 1..=2)
        + &format!("INSERT INTO system_snapshots (timestamp) VALUES ({T0}); UPDATE events SET rank = 0 WHERE id = 2;");
    bench.report(&bench.made("a.db", &sql));
    let up = bench.lake.up(&[]);
    assert_eq!(up.csv("SELECT rank FROM events ORDER BY timestamp").replace("\"\"", ""), "rank\n\n0\n");
    let csv = up.csv("SELECT count(*), count(cpu_pct), count(mem_pct), count(mem_avail), count(swap_mb), count(load_avg) FROM system_snapshots");
    assert_eq!(csv.lines().nth(1), Some("1,0,0,0,0,0"));
}

#[test]
fn a_file_that_is_refused_does_not_keep_the_others_from_being_imported() {
    let bench = Bench::new();
    let good = bench.made("good.db", &events("a", 1..=1));
    let late =
        bench.made("late.db", &(events("b", 1..=4) + "UPDATE events SET timestamp = timestamp / 1000 WHERE id = 3;"));
    let trace = bench.path("trace.json");
    std::fs::write(&trace, "{\"traceEvents\": []}").unwrap();
    let absent = bench.path("absent.db");
    let files = [absent.as_path(), &late, &trace, bench.dir.path(), &good];
    let said = bench.import(&files, &[]);
    assert_eq!(said.code, 1, "{}", said.err);
    for expected in [
        "absent.db cannot be read",
        "row 3 (id = 3) of table `events`",
        "column `timestamp` holds 1780000000000003, which is 1970-01-21T14:26:40Z: expected unix nanoseconds",
        "trace.json is a JSON file",
        "is a directory: name the recordings in it",
        "good.db: 1 new row (1 event row from a; schema 0.9)",
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    let said = bench.import(&files, &["--json"]);
    let reports = said.json();
    assert_eq!((said.code, reports.as_array().unwrap().len()), (1, 5));
    assert!(reports[1]["error"].as_str().unwrap().contains("column `timestamp`"), "{reports}");
    assert_eq!(reports[4]["new_rows"], 0);
    assert_eq!(bench.rows(), 1);
}

#[test]
fn nothing_is_made_when_every_file_is_refused() {
    let bench = Bench::new();
    let pipe = bench.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let said = bench.import(&[&pipe], &[]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("pipe is a named pipe, not a regular file"), "{}", said.err);
    assert!(!bench.lake.path().exists());
}

#[test]
fn rows_and_cells_that_do_not_fit_are_counted() {
    let bench = Bench::new();
    let bad = "UPDATE events SET ret_code = 4294967295 WHERE id IN (2, 3); UPDATE events SET pid = x'00' WHERE id = 4; \
               UPDATE events SET timestamp = -9223372036854775808 WHERE id = 5;";
    let path = bench.made("a.db", &(events("a", 1..=6) + bad));
    let refused = bench.import(&[&path], &[]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("--skip-bad-rows") && refused.err.contains("column `pid` holds a BLOB"),
        "{}",
        refused.err
    );
    let said = bench.import(&[&path], &["--skip-bad-rows"]).ok();
    for expected in [
        "4 new rows",
        "2 cells of column `ret_code` of table `events` do not fit and are NULL: row 2 (id = 2) holds 4294967295",
        "1 row with column `pid` of table `events` was left out",
        "1 row with column `timestamp` of table `events` was left out",
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    let report = bench.import(&[&path], &["--skip-bad-rows", "--json"]).ok().json();
    assert_eq!((&report[0]["skipped_rows"], &report[0]["null_cells"]), (&json!(2), &json!(2)));
}

#[test]
fn names_are_checked_and_what_is_not_used_is_said() {
    let bench = Bench::new();
    let path =
        bench.made("a.db", &(session("a") + &events("a", 1..=2) + "INSERT INTO process_names VALUES (7, 'train', 0);"));
    let long = "n".repeat(300);
    for (flag, name) in [
        ("--node", ""),
        ("--node", "a\u{7}"),
        ("--node", " "),
        ("--node", &long),
        ("--cluster", ""),
        ("--cluster", "x\ny"),
    ] {
        let said = bench.import(&[&path], &[flag, name]);
        assert_eq!(said.code, 2, "{flag} {name:?}: {}", said.err);
    }
    let said = bench.import(&[&path], &["--node", "x9"]).ok();
    assert!(said.err.contains("4 new rows") && said.err.contains("from a;"), "{}", said.err);
    assert!(said.err.contains("--node x9 is not used: the recording names its node `a`"), "{}", said.err);
    let said = bench.import(&[&path], &["--cluster", "west"]).ok();
    assert!(said.err.contains("already imported, nothing new"), "{}", said.err);
    assert!(
        said.err.contains(
            "4 rows were imported before and keep the cluster of that time: --cluster west holds for new rows only"
        ),
        "{}",
        said.err
    );
}

#[test]
fn a_node_whose_name_has_control_characters_is_shown_escaped() {
    let bench = Bench::new();
    let path = bench.made("a\u{7}.db", &events("\u{1b}[2Jboo\nx", 1..=2));
    let said = bench.import(&[&path], &[]).ok();
    assert!(said.err.contains("\\u001b[2Jboo\\nx") && said.err.contains("a\\u0007.db"), "{:?}", said.err);
    assert!(!said.err.contains(['\u{1b}', '\u{7}']), "{:?}", said.err);
}

/// Counts the events of a lake with PyIceberg and DuckDB. The directory is part of a URL.
fn oracle(lake: &std::path::Path) -> std::process::Command {
    let cache = std::env::var("CAUSEWAY_CACHE");
    let cache = cache.unwrap_or_else(|_| format!("{}/.cache/causeway", std::env::var("HOME").unwrap()));
    let mut command = std::process::Command::new(std::path::Path::new(&cache).join("venv/bin/python"));
    command.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/dev/oracle.py"));
    command.args(["--table", "silver.events", "--catalog"]);
    command.arg(format!("sqlite:///{}", lake.join("catalog.sqlite").display()));
    command
}

#[test]
fn root_a_recording_on_a_read_only_mount_is_imported() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let bench = Bench::new();
    let dir = bench.path("mounted");
    std::fs::create_dir(&dir).unwrap();
    // At rest, and in write-ahead mode, where SQLite itself would make files beside it.
    bench.made("mounted/rest.db", &events("a", 1..=4));
    change(&bench.made("mounted/wal.db", &events("b", 1..=4)), "PRAGMA journal_mode = WAL");
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && ! touch \"$1/x\" 2>/dev/null && \
                  exec \"$0\" import --data \"$2\" \"$1/rest.db\" \"$1/wal.db\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "bash", "-c", script, env!("CARGO_BIN_EXE_causeway")]).arg(&dir).arg(bench.lake.path());
    Said::of(command.output().unwrap()).ok();
    assert_eq!(bench.rows(), 8);
}

#[test]
fn a_lake_directory_may_have_any_name_that_is_text() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    let path = bench.made("a.db", &events("a", 1..=4));
    for name in ["what? ever", "l%20x", "100%", "a#b", "q\"'`&+\\;", "caf\u{e9} \u{8bad}"] {
        let lake = dir.path().join(name);
        let import =
            || Said::of(causeway(&["import", "--json", "--data"]).arg(&lake).arg(&path).output().unwrap()).ok().json();
        assert_eq!(import()[0]["new_rows"], 4, "{name}");
        assert_eq!(import()[0]["new_rows"], 0, "{name}");
        assert!(lake.join("catalog.sqlite").exists(), "{name}");
        let audit = Said::of(causeway(&["audit", "--json", "--data"]).arg(&lake).output().unwrap()).ok().json();
        assert_eq!(audit["rows"], 4, "{name}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    // Other readers follow the names that the catalog and the tables hold.
    for name in ["a#b", "l%2520x", "what%3F ever"] {
        let said = Said::of(oracle(&dir.path().join(name)).output().unwrap()).ok();
        assert_eq!(said.json()["pyiceberg"]["count"], 4, "{name}");
    }
    let odd = dir.path().join(OsStr::from_bytes(b"lake\xff"));
    let said = Said::of(causeway(&["import", "--data"]).arg(&odd).arg(&path).output().unwrap());
    assert!(said.code == 1 && said.err.contains("is not UTF-8"), "{}", said.err);
}
