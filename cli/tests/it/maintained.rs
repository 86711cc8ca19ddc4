//! A lake whose tables other programs maintain, as the audit, the queries and the next import see it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::bench::{Bench, events, session};

/// Tables that every import fills.
const TABLES: [&str; 3] = ["bronze.messages", "silver.events", "ops.ledger"];

/// A lake with imports of these nodes, each with five events. Every import is a commit of each table.
fn imported(nodes: &[&str]) -> Bench {
    let bench = Bench::new();
    for node in nodes {
        import(&bench, node);
    }
    bench
}

fn import(bench: &Bench, node: &str) {
    bench.report(&bench.made(&format!("{node}.db"), &(session(node) + &events(node, 1..=5))));
}

/// Five events, and the row of the node.
const ROWS_OF_IMPORT: u64 = 5 + 1;

fn infra(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/dev").join(name)
}

/// Runs statements in Spark; each must succeed.
fn spark(bench: &Bench, statements: &[String]) {
    let mut spark = Command::new("bash");
    spark.arg(infra("spark.sh")).arg("sql").arg(bench.lake.path().join("catalog.sqlite"));
    spark.arg(bench.lake.path().join("warehouse")).env("TMPDIR", bench.dir.path());
    let log = bench.path("spark.log");
    let mut child =
        spark.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap()).spawn().unwrap();
    // Few bytes: the pipe takes all of them before Spark reads one.
    child.stdin.take().unwrap().write_all((statements.join("\n") + "\n").as_bytes()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let done = out.lines().filter(|line| *line == "done").count();
    assert_eq!(done, statements.len(), "{out}\n{}", std::fs::read_to_string(&log).unwrap());
}

/// Runs Python with `catalog`, PyIceberg's view of the lake.
fn pyiceberg(bench: &Bench, script: &str) {
    let cache = std::env::var("CAUSEWAY_CACHE");
    let cache = cache.unwrap_or_else(|_| format!("{}/.cache/causeway", std::env::var("HOME").unwrap()));
    let open =
        "import sys\nfrom pyiceberg.catalog.sql import SqlCatalog\ncatalog = SqlCatalog('causeway', uri=sys.argv[1])\n";
    let uri = format!("sqlite:///{}", bench.lake.path().join("catalog.sqlite").display());
    let mut python = Command::new(Path::new(&cache).join("venv/bin/python"));
    let output = python.args(["-c", &format!("{open}{script}"), &uri]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Gives every file below a directory an age of ten days.
fn age(dir: &Path) {
    let then = SystemTime::now() - Duration::from_hours(240);
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            age(&entry.path());
        } else {
            File::options().write(true).open(entry.path()).unwrap().set_modified(then).unwrap();
        }
    }
}

#[test]
fn tables_that_spark_maintains_pass_the_audit_and_are_filled_further() {
    let bench = imported(&["a", "b", "c"]);
    let orphan = bench.lake.path().join("warehouse/silver/events/data/orphan.parquet");
    std::fs::write(&orphan, "nothing names this").unwrap();
    age(&bench.lake.path().join("warehouse"));
    let mut statements = Vec::new();
    for table in TABLES {
        let on = format!("(table => '{table}'");
        for call in [
            format!("rewrite_data_files{on}, strategy => 'sort', options => map('rewrite-all', 'true'))"),
            format!("rewrite_manifests{on})"),
            format!("rewrite_position_delete_files{on})"),
            format!("expire_snapshots{on}, older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)"),
            format!("remove_orphan_files{on})"),
        ] {
            statements.push(format!("CALL causeway.system.{call}"));
        }
    }
    spark(&bench, &statements);
    assert!(!orphan.exists());

    let audit = bench.lake.audit().ok().json();
    assert_eq!(audit["rows"], 3 * ROWS_OF_IMPORT);
    let of_spark = audit["files"]["without_checksum"].as_u64().unwrap();
    assert!(of_spark >= TABLES.len() as u64, "files that Spark wrote: {audit}");
    import(&bench, "d");
    assert_eq!(bench.rows(), 4 * ROWS_OF_IMPORT);
    // What has landed is known again, from the ledger that Spark rewrote.
    let again = bench.report(&bench.path("a.db"));
    assert_eq!(bench.rows(), 4 * ROWS_OF_IMPORT, "{again}");
    let up = bench.lake.up(&[]);
    assert_eq!(
        up.csv("SELECT node, count(*) AS n FROM events GROUP BY node ORDER BY node"),
        "node,n\na,5\nb,5\nc,5\nd,5\n"
    );
    up.stop().ok();
}

#[test]
fn tables_that_pyiceberg_rewrote_and_expired_pass_the_audit_and_are_filled_further() {
    let bench = imported(&["a", "b", "c", "d"]);
    let list = format!("for name in {TABLES:?}:\n    table = catalog.load_table(name)\n    ");
    pyiceberg(&bench, &format!("{list}table.overwrite(table.scan().to_arrow())"));
    assert_eq!(bench.rows(), 4 * ROWS_OF_IMPORT);
    import(&bench, "e");
    assert_eq!(bench.rows(), 5 * ROWS_OF_IMPORT);

    // One in the middle, and then all but the current one.
    let second = "sorted(table.metadata.snapshots, key=lambda s: s.sequence_number)[1].snapshot_id";
    pyiceberg(&bench, &format!("{list}table.maintenance.expire_snapshots().by_id({second}).commit()"));
    assert_eq!(bench.rows(), 5 * ROWS_OF_IMPORT);
    pyiceberg(
        &bench,
        &format!(
            "from datetime import datetime, timedelta\nlater = datetime.now() + timedelta(days=1)\n\
             {list}table.maintenance.expire_snapshots().older_than(later).commit()"
        ),
    );
    import(&bench, "f");
    assert_eq!(bench.rows(), 6 * ROWS_OF_IMPORT);
}

#[test]
fn rows_that_pyiceberg_deleted_are_reported_by_the_audit() {
    let bench = imported(&["a", "b"]);
    pyiceberg(&bench, "catalog.load_table('silver.events').delete(\"node == 'a' and seq == 2\")");
    let audit = bench.lake.audit();
    assert_eq!(audit.code, 1, "{}", audit.out);
    let laws = audit.json()["laws"].clone();
    let broken: Vec<_> = laws.as_array().unwrap().iter().filter(|law| law["holds"] == false).collect();
    assert_eq!(broken[0]["law"], "rows", "{laws}");
    import(&bench, "c");
    assert_eq!(bench.lake.audit().code, 1, "the next import does not hide it");
}
