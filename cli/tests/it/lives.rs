//! `causeway up` from start to end.

use std::time::Instant;

use crate::run::{Lake, TIME_LIMIT, run};

#[test]
fn a_simulated_fleet_is_answered_live_and_everything_has_landed_when_it_ends() {
    let lake = Lake::new();
    let up = lake.up(&["--simulate", "nodes=3,ranks=2,rate=600"]);
    let began = Instant::now();
    loop {
        let csv = up.csv("SELECT count(DISTINCT node) AS nodes, count(*) AS events FROM events");
        if csv.lines().nth(1).is_some_and(|line| line.starts_with("3,")) {
            break;
        }
        assert!(began.elapsed() < TIME_LIMIT, "{csv}");
    }
    let ended = up.stop().ok();
    assert!(ended.err.contains("everything in the spool has landed"), "{}", ended.err);
    let audit = lake.audit().ok().json();
    assert_eq!(audit["holds"], true);
    assert!(audit["rows"].as_u64().unwrap() > 0);
}

#[test]
fn a_second_up_on_the_same_directory_is_refused() {
    let lake = Lake::new();
    let _up = lake.up(&[]);
    let dir = lake.path();
    let second = run(&["up", "--no-agent", "--listen", "127.0.0.1:0", "--data", dir.to_str().unwrap()]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains("another `causeway up` or import is running on"), "{}", second.err);
}

#[test]
fn a_damaged_data_file_is_named_by_the_audit_and_by_the_query() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let file = data_file(&lake.path().join("warehouse/silver/events"));
    std::fs::write(&file, b"not parquet at all, but long enough to have a footer").unwrap();
    let audit = lake.audit();
    assert_eq!(audit.code, 1);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(audit.out.contains(name), "{} {}", audit.out, audit.err);
    let up = lake.up(&[]);
    let query = up.ask(&["query", "SELECT sum(duration) FROM events"]);
    assert_eq!(query.code, 1);
    assert!(query.err.contains(name), "{}", query.err);
}

fn data_file(dir: &std::path::Path) -> std::path::PathBuf {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                return path;
            }
        }
    }
    panic!("no data file under {}", dir.display());
}
