use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use sqlx::sqlite::SqliteConnectOptions;

use super::*;
use crate::keys::Keys;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/ingero").join(name)
}

/// Makes a database of the given statements.
async fn made(dir: &tempfile::TempDir, sql: &str) -> PathBuf {
    let path = dir.path().join("made.db");
    let _ = std::fs::remove_file(&path);
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}

const INFO: &str = "CREATE TABLE schema_info (key TEXT, value TEXT);";
/// Columns without types, so that a cell keeps the type it was given.
const EVENTS: &str = "CREATE TABLE schema_info (key TEXT, value TEXT); CREATE TABLE events (id, timestamp, pid, tid, source, op, \
                      duration, arg0, arg1, ret_code, stack_hash, rank, comm, node);";
const T0: i64 = 1_780_000_000_000_000_000;

async fn refused(path: &Path) -> String {
    match Database::open(path, &Drain::new()).await {
        Err(error) => service_kit::run::in_a_line(&error),
        Ok(_) => panic!("{} was taken", path.display()),
    }
}

fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

async fn reads(path: &Path, name: &str) -> Vec<Read> {
    let mut database = Database::open(path, &Drain::new()).await.unwrap();
    let mut reads = Vec::new();
    let keep = |read| {
        reads.push(read);
        Ok::<_, IngeroError>(())
    };
    database.for_each(table(name), keep).await.unwrap();
    database.close().await;
    reads
}

/// Rows by node and kind, with the ids of their streams.
async fn survey(path: &Path, node: Option<&str>) -> BTreeMap<(String, RecordKind), Vec<String>> {
    let mut database = Database::open(path, &Drain::new()).await.unwrap();
    let mut survey = Survey::default();
    let mut rows = Vec::new();
    for table in TABLES {
        let note = |read: Read| {
            let row = read.row.unwrap();
            survey.note(table, &row);
            rows.push((table, row));
            Ok::<_, IngeroError>(())
        };
        database.for_each(table, note).await.unwrap();
    }
    database.close().await;
    let (nodes, mut keys) = (survey.finish(node).unwrap(), Keys::default());
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (table, row) in rows {
        let node = nodes.node_of(table, &row).unwrap().to_owned();
        let key = keys.of(table, &row, &node, nodes.session_of_row(table, &row, &node)).unwrap();
        let id = format!("{}/{}/{}", key.stream.boot_id, key.stream.epoch, key.seq);
        found.entry((node, table.kind)).or_default().push(id);
    }
    found
}

fn rows(found: &BTreeMap<(String, RecordKind), Vec<String>>, node: &str, kind: RecordKind) -> usize {
    found.get(&(node.to_owned(), kind)).map_or(0, Vec::len)
}

#[tokio::test]
async fn every_row_of_a_merged_recording_finds_its_node() {
    let found = survey(&fixture("sample-cluster.db"), Some("unused")).await;
    for node in ["gpu-node-01", "gpu-node-02", "gpu-node-03"] {
        assert_eq!(rows(&found, node, RecordKind::Event), 200);
        assert_eq!(rows(&found, node, RecordKind::Session), 1);
        assert_eq!(rows(&found, node, RecordKind::Cgroup), 1);
    }
    let count = |kind| ["1", "2", "3"].map(|n| rows(&found, &format!("gpu-node-0{n}"), kind));
    assert_eq!(count(RecordKind::System), [1, 2, 2]);
    assert_eq!(count(RecordKind::Chain), [4, 1, 1]);
    assert_eq!(count(RecordKind::Stack).iter().sum::<usize>(), 9);
    // What was seen while a session ran belongs to it. Nodes 1 and 2 both had a pid 96; merging kept that of node 1.
    assert_eq!(count(RecordKind::Process), [10, 2, 3]);
    assert!(found.keys().all(|(node, _)| node.starts_with("gpu-node-0")), "{found:?}");
}

#[tokio::test]
async fn the_same_rows_have_the_same_identity_in_whichever_file_they_are() {
    let merged = survey(&fixture("sample-cluster.db"), None).await;
    let mut ids = std::collections::BTreeSet::new();
    for n in 1..=3 {
        let single = survey(&fixture(&format!("sample-gpu-node-0{n}.db")), None).await;
        let node = format!("gpu-node-0{n}");
        for kind in [RecordKind::Event, RecordKind::Session, RecordKind::System, RecordKind::Chain, RecordKind::Cgroup]
        {
            let key = (node.clone(), kind);
            assert_eq!(single.get(&key), merged.get(&key), "{key:?}");
        }
        ids.extend(single.into_values().flatten());
    }
    let all = merged.values().flatten().count();
    ids.extend(merged.into_values().flatten());
    // Merging kept one process of each number, and one stack of each hash.
    assert_eq!(ids.len(), all + 2);
}

#[tokio::test]
async fn a_recording_without_nodes_takes_the_name_that_is_given_or_one_of_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture("pytorch-dataloader-starvation.db");
    let renamed = dir.path().join("other.db");
    std::fs::copy(&path, &renamed).unwrap();
    let by_content = survey(&path, None).await;
    assert_eq!(by_content, survey(&renamed, None).await);
    let (node, _) = by_content.keys().next().unwrap();
    assert!(node.starts_with("recording-") && node.len() == "recording-".len() + 8, "{node}");
    assert_eq!(rows(&by_content, node, RecordKind::Event), 3807);
    let by_name = survey(&path, Some("gpu-7")).await;
    assert_eq!(rows(&by_name, "gpu-7", RecordKind::Chain), 316);
    assert_eq!(rows(&by_name, "gpu-7", RecordKind::System), 40);
    assert_eq!(rows(&by_name, "gpu-7", RecordKind::Aggregate), 51);
}

#[tokio::test]
async fn rows_without_a_node_belong_to_the_only_node_of_the_file() {
    let found = survey(&fixture("sample-gpu-node-01.db"), Some("x9")).await;
    assert!(found.keys().all(|(node, _)| node == "gpu-node-01"), "{found:?}");
}

#[tokio::test]
async fn another_programs_database_is_named_with_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        refused(&made(&dir, "CREATE TABLE events (id TEXT, timestamp INT); CREATE TABLE cats (name TEXT);").await)
            .await;
    assert!(error.contains("it has no column `events.pid`, column `events.tid`"), "{error}");
    assert!(error.contains("table `schema_info`"), "{error}");
    let error = refused(&made(&dir, &format!("{EVENTS} CREATE TABLE process_names (name TEXT)")).await).await;
    assert!(error.contains("it has no column `process_names.pid`"), "{error}");
}

#[tokio::test]
async fn a_version_that_is_not_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for version in [11, 2_000_000_000, -1] {
        let error = refused(&made(&dir, &format!("{EVENTS} PRAGMA user_version = {version};")).await).await;
        assert!(error.contains(&format!("has user_version {version}; versions from 0 to 10 are known")), "{error}");
    }
    for version in ["99", "0.11", "1.0", "zero", ""] {
        let sql = format!("{EVENTS} INSERT INTO schema_info VALUES ('version', '{version}')");
        let error = refused(&made(&dir, &sql).await).await;
        assert!(error.contains(&format!("schema has version {version:?}; versions up to 0.10 are known")), "{error}");
    }
    for version in ["0.8", "0.10", " 0.9 ", "0.9.1"] {
        let sql = format!("{EVENTS} INSERT INTO schema_info VALUES ('version', '{version}')");
        assert_eq!(Database::open(&made(&dir, &sql).await, &Drain::new()).await.unwrap().version, version);
    }
}

#[tokio::test]
async fn a_unit_that_is_not_nanoseconds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (key, unit, what) in [
        ("timestamp_unit", "microseconds (Unix epoch)", "timestamp unit is \"microseconds (Unix epoch)\""),
        ("duration_unit", "ms", "duration unit is \"ms\""),
    ] {
        let sql = format!("{EVENTS} INSERT INTO schema_info VALUES ('{key}', '{unit}')");
        let error = refused(&made(&dir, &sql).await).await;
        assert!(error.contains(what) && error.contains("only nanoseconds are read"), "{error}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_stored_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let endless = "CREATE VIEW events AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, \
                   i AS timestamp, 1 AS pid, 1 AS tid, 1 AS source, 1 AS op, 1 AS duration, 0 AS arg0, 0 AS arg1, 0 AS stack_hash FROM n";
    let error = refused(&made(&dir, &format!("{INFO} {endless}")).await).await;
    assert!(error.contains("`events` of") && error.contains("is a view"), "{error}");
    let view = "CREATE VIEW system_snapshots AS SELECT 1 AS timestamp";
    let error = refused(&made(&dir, &format!("{EVENTS} {view}")).await).await;
    assert!(error.contains("`system_snapshots` of") && error.contains("is a view"), "{error}");
    let computed = EVENTS.replace("duration,", "duration GENERATED ALWAYS AS (pid * 2),");
    let error = refused(&made(&dir, &computed).await).await;
    assert!(error.contains("column `duration` of table `events`") && error.contains("is computed"), "{error}");
}

#[tokio::test]
async fn other_ways_to_store_a_table_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let sql = format!(
        "{} INSERT INTO EVENTS VALUES (1, {T0}, 1, 1, 1, 1, 1, 0, 0, 0, 0, NULL, NULL, NULL); \
         CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END; CREATE INDEX i ON events (pid + tid);",
        EVENTS.replace("events (id,", "EVENTS (ID INTEGER PRIMARY KEY,").replace("node);", "node) WITHOUT ROWID;")
    );
    let read = reads(&made(&dir, &sql).await, "events").await;
    assert_eq!(read.len(), 1);
    assert!(read[0].row.is_ok(), "{read:?}");
}

#[tokio::test]
async fn a_damaged_page_is_named_with_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..5000).map(|i| format!("({i},{T0}+{i},1,1,1,1,1,0,0,0,0,NULL,NULL,'n')")).collect();
    let path = made(&dir, &format!("{EVENTS} INSERT INTO events VALUES {}", values.join(","))).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 64].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let error = refused(&path).await;
    assert!(error.contains("table `events`") && error.contains("is damaged"), "{error}");
    let sql =
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE events (' WHERE name = 'events';";
    let error = refused(&made(&dir, &format!("{EVENTS} {sql}")).await).await;
    assert!(
        error.contains("table `sqlite_schema` of") && error.contains("is damaged (malformed database schema"),
        "{error}"
    );
    assert!(!error.contains("code:"), "{error}");
}

/// The first row of `events` with these cells.
async fn first(dir: &tempfile::TempDir, cells: &[(&str, &str)]) -> Read {
    let mut row: BTreeMap<&str, String> =
        ["id", "pid", "tid", "source", "op", "duration"].map(|c| (c, "1".to_owned())).into();
    row.extend([("arg0", "0"), ("arg1", "0"), ("stack_hash", "0")].map(|(c, v)| (c, v.to_owned())));
    row.insert("timestamp", T0.to_string());
    row.extend(cells.iter().map(|(column, value)| (*column, (*value).to_owned())));
    let columns: Vec<&str> = row.keys().copied().collect();
    let values: Vec<&str> = row.values().map(String::as_str).collect();
    let sql = format!("{EVENTS} INSERT INTO events ({}) VALUES ({})", columns.join(","), values.join(","));
    reads(&made(dir, &sql).await, "events").await.remove(0)
}

#[tokio::test]
async fn a_cell_without_which_there_is_no_row_is_named_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    for (column, value, expected) in [
        ("pid", "x'00'", "holds a BLOB"),
        ("pid", "NULL", "holds NULL: expected an integer"),
        ("pid", "1099511627776", "holds 1099511627776: expected an integer of 32 bits"),
        ("tid", "-5", "holds -5: expected an integer of 32 bits that is not negative"),
        ("op", "1.5", "holds 1.5"),
        ("timestamp", "-9223372036854775808", "holds -9223372036854775808, which is 1677-09-21T00:12:43Z"),
        ("timestamp", "9223372036854775807", "which is 2262-04-11T23:47:16Z: expected unix nanoseconds"),
        ("timestamp", "1.78e18", "holds 1.78e18: expected unix nanoseconds"),
        ("timestamp", "'yesterday'", "holds the text \"yesterday\""),
        ("arg0", "zeroblob(20000000)", "holds a BLOB, or a text of more than 16 MiB"),
        ("node", "x'6162'", "column `node` holds a BLOB"),
    ] {
        let read = first(&dir, &[("id", "42"), (column, value)]).await;
        let error = read.row.unwrap_err().to_string();
        assert!(error.contains(&format!("column `{column}`")) && error.contains(expected), "{error}");
        assert_eq!(read.name, "row 1 (id = 42)");
    }
    let long = format!("'{}'", "n".repeat(300));
    let error = first(&dir, &[("node", &long)]).await.row.unwrap_err().to_string();
    assert!(error.contains("column `node`") && error.contains("at most 256 bytes") && error.len() < 200, "{error}");
}

#[tokio::test]
async fn a_cell_that_may_be_absent_and_does_not_fit_is_null_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    for (column, value) in [
        ("duration", "-1"),
        ("ret_code", "4294967295"),
        ("ret_code", "x''"),
        ("rank", "-1"),
        ("rank", "'zero'"),
        ("comm", "x'61'"),
    ] {
        let read = first(&dir, &[(column, value)]).await;
        let at = table("events").columns.iter().position(|of| of.name == column).unwrap();
        assert_eq!(read.row.unwrap().cells[at], Value::Null, "{column} = {value}");
        assert_eq!(read.nulled.len(), 1, "{column} = {value}");
        assert_eq!(read.nulled[0].column, column);
    }
    let fits = first(&dir, &[("ret_code", "'-7'"), ("rank", "3.0"), ("comm", "12")]).await;
    assert!(fits.nulled.is_empty(), "{fits:?}");
    let event = event(&fits.row.as_ref().unwrap().cells, "1");
    assert_eq!((event.ret_code, event.process.rank, event.comm), (Some(-7), Some(3), Some("12")));
}

#[tokio::test]
async fn null_is_not_zero() {
    let dir = tempfile::tempdir().unwrap();
    let typed = EVENTS.replace("ret_code, stack_hash, rank,", "ret_code INTEGER, stack_hash INTEGER, rank INTEGER,");
    let sql = format!(
        "{typed} INSERT INTO events VALUES (1, {T0}, 1, 1, 1, 1, 1, 0, 0, NULL, 0, NULL, NULL, NULL); \
         CREATE TABLE system_snapshots (id INTEGER PRIMARY KEY, timestamp INTEGER, cpu_pct REAL, mem_pct REAL, mem_avail INTEGER, \
         swap_mb INTEGER, load_avg REAL); INSERT INTO system_snapshots (timestamp) VALUES ({T0})"
    );
    let path = made(&dir, &sql).await;
    let event_row = reads(&path, "events").await.remove(0).row.unwrap();
    let event = event(&event_row.cells, "1");
    assert_eq!((event.process.rank, event.process.world_size, event.ret_code, event.gpu_id), (None, None, None, None));
    let snapshot = reads(&path, "system_snapshots").await.remove(0).row.unwrap();
    assert_eq!(snapshot.cells[1..], [const { Value::Null }; 5]);
}

#[tokio::test]
async fn a_name_that_was_cut_within_a_character_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cut = "CAST(x'e8aeade7bb83e8' AS TEXT)";
    let read = first(&dir, &[("comm", cut), ("node", cut)]).await;
    let row = read.row.unwrap();
    assert_eq!(event(&row.cells, "1").comm, Some("训练\u{fffd}"));
    assert_eq!(row.node.as_deref(), Some("训练\u{fffd}"));
}

#[tokio::test]
async fn bytes_come_from_the_arguments_that_hold_them() {
    let dir = tempfile::tempdir().unwrap();
    let malloc = first(&dir, &[("source", "1"), ("op", "1"), ("arg0", "4096")]).await.row.unwrap();
    let read = first(&dir, &[("source", "5"), ("op", "1"), ("arg0", "8")]).await.row.unwrap();
    assert_eq!([&malloc, &read].map(|row| event(&row.cells, "x").bytes), [Some(4096), Some(4096)]);
}

#[tokio::test]
async fn a_long_query_ends_when_the_import_is_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, EVENTS).await;
    let drain = Drain::new();
    let mut database = Database::open(&path, &drain).await.unwrap();
    // SQLite goes on with it for seconds, on a thread of its own.
    let long =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT count(*) FROM n";
    let asked = database.scalar::<i64>("events", long);
    let signal = async {
        tokio::task::yield_now().await;
        drain.cancel();
    };
    let (found, ()) = futures::join!(asked, signal);
    assert!(matches!(found, Err(IngeroError::Snapshot(SnapshotError::Interrupted { .. }))), "{found:?}");
    let read = database.for_each(table("events"), |_| Ok::<_, IngeroError>(())).await;
    assert!(matches!(read, Err(IngeroError::Snapshot(SnapshotError::Interrupted { .. }))), "{read:?}");
}
