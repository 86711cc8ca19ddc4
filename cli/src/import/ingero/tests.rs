use std::collections::BTreeMap;

use event_schema::kind::RecordKind;
use sqlx::sqlite::SqliteConnectOptions;

use super::*;
use crate::import::parcel::{Fingerprint, ParcelKey, Part};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ingero").join(name)
}

/// Makes a database of the given statements.
async fn made(dir: &tempfile::TempDir, sql: &str) -> PathBuf {
    let path = dir.path().join("made.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}

const EVENTS: &str = "CREATE TABLE events (id INTEGER PRIMARY KEY, timestamp INT, pid INT, tid INT, source INT, op INT, \
    duration INT, arg0 INT, arg1 INT, ret_code INT, stack_hash INT); CREATE TABLE schema_info (key TEXT, value TEXT);";

async fn refused(path: &Path) -> String {
    Database::open(path).await.unwrap_err().to_string()
}

/// Rows by node and kind, and the identity of each parcel.
async fn survey(path: &Path, node: Option<&str>) -> BTreeMap<ParcelKey, (u64, String)> {
    let mut database = Database::open(path).await.unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let nodes = Nodes::of(&mut database, node, &stem).await.unwrap();
    let mut parcels: BTreeMap<ParcelKey, Fingerprint> = BTreeMap::new();
    for table in TABLES {
        let each = |_, row: Row| {
            let (key, _) = nodes.place(table, &row);
            parcels.entry(key).or_default().add(&row.cells);
            Ok::<_, IngeroError>(())
        };
        database.for_each(table, each).await.unwrap();
    }
    database.close().await;
    let named = |(key, print): (ParcelKey, Fingerprint)| (key.clone(), (print.rows, print.boot_id(&key)));
    parcels.into_iter().map(named).collect()
}

fn rows(parcels: &BTreeMap<ParcelKey, (u64, String)>, node: &str, kind: RecordKind) -> u64 {
    parcels.iter().filter(|(key, _)| key.node == node && key.kind == kind).map(|(_, (rows, _))| rows).sum()
}

#[tokio::test]
async fn every_row_of_a_merged_recording_finds_its_node() {
    let parcels = survey(&fixture("sample-cluster.db"), None).await;
    for node in ["gpu-node-01", "gpu-node-02", "gpu-node-03"] {
        assert_eq!(rows(&parcels, node, RecordKind::Event), 200);
        assert_eq!(rows(&parcels, node, RecordKind::Session), 1);
        assert_eq!(rows(&parcels, node, RecordKind::Cgroup), 1);
    }
    let count = |kind| ["1", "2", "3"].map(|n| rows(&parcels, &format!("gpu-node-0{n}"), kind));
    assert_eq!(count(RecordKind::System), [1, 2, 2]);
    assert_eq!(count(RecordKind::Chain), [4, 1, 1]);
    assert_eq!(count(RecordKind::Stack).iter().sum::<u64>(), 9);
    // What was seen while a session ran belongs to it. Nodes 1 and 2 both had a pid 96; merging kept that of node 1.
    assert_eq!(count(RecordKind::Process), [10, 2, 3]);
    assert!(parcels.keys().all(|key| key.node.starts_with("gpu-node-0")), "{parcels:?}");
}

#[tokio::test]
async fn the_same_rows_have_the_same_identity_in_whichever_file_they_are() {
    let merged = survey(&fixture("sample-cluster.db"), None).await;
    for n in 1..=3 {
        let single = survey(&fixture(&format!("sample-gpu-node-0{n}.db")), None).await;
        let node = format!("gpu-node-0{n}");
        let events = |of: &BTreeMap<ParcelKey, (u64, String)>| {
            let of_node = of.iter().filter(|(key, _)| key.node == node && key.kind == RecordKind::Event);
            of_node.map(|(key, found)| (key.part, found.clone())).collect::<Vec<_>>()
        };
        assert_eq!(events(&single), events(&merged));
        assert!(matches!(events(&single)[..], [(Part::Session(_), _)]), "{single:?}");
    }
    let ids: std::collections::BTreeSet<_> = merged.values().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), merged.len(), "every parcel has an identity of its own");
}

#[tokio::test]
async fn a_recording_without_nodes_takes_the_name_that_is_given_or_the_files() {
    let path = fixture("pytorch-dataloader-starvation.db");
    let by_file = survey(&path, None).await;
    assert_eq!(rows(&by_file, "pytorch-dataloader-starvation", RecordKind::Event), 3807);
    assert_eq!(rows(&by_file, "pytorch-dataloader-starvation", RecordKind::Aggregate), 51);
    let by_name = survey(&path, Some("gpu-7")).await;
    assert_eq!(rows(&by_name, "gpu-7", RecordKind::Chain), 316);
    assert_eq!(rows(&by_name, "gpu-7", RecordKind::System), 40);
}

#[tokio::test]
async fn a_file_that_is_not_sqlite_is_named_with_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for content in ["", "just some text, longer than the header of an SQLite file, ".repeat(3).as_str()] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path).await;
        assert!(
            error.contains("notes.txt is not an SQLite file: expected a database that `ingero trace` recorded"),
            "{error}"
        );
    }
    assert!(refused(&dir.path().join("absent.db")).await.contains("absent.db cannot be read"));
}

#[tokio::test]
async fn a_truncated_file_is_named_with_both_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.db");
    let whole = std::fs::read(fixture("sample-gpu-node-01.db")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = refused(&path).await;
    let sizes = format!("announces {} bytes, the file has {}", whole.len(), whole.len() / 2);
    assert!(error.contains("is truncated") && error.contains(&sizes), "{error}");
}

#[tokio::test]
async fn another_programs_database_is_named_with_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, "CREATE TABLE events (id TEXT, timestamp INT); CREATE TABLE cats (name TEXT);").await;
    let error = refused(&path).await;
    assert!(error.contains("it has no column `events.pid`, column `events.tid`"), "{error}");
    assert!(error.contains("table `schema_info`"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, &format!("{EVENTS} PRAGMA user_version = 11;")).await;
    assert!(refused(&path).await.contains("has user_version 11; versions up to 10 are known"));
}

#[tokio::test]
async fn a_cell_of_the_wrong_type_is_named_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let sql = format!("{EVENTS} INSERT INTO events VALUES (1,1,1,1,1,1,1,0,0,0,0), (2,2,x'00',1,1,1,1,0,0,0,0);");
    let mut database = Database::open(&made(&dir, &sql).await).await.unwrap();
    let events = TABLES.iter().find(|table| table.name == "events").unwrap();
    let error = database.for_each(events, |_, _| Ok::<_, IngeroError>(())).await.unwrap_err();
    assert!(error.to_string().contains("column `pid` of row 2 of table `events`"), "{error}");
}

#[tokio::test]
async fn bytes_come_from_the_arguments_that_hold_them() {
    let dir = tempfile::tempdir().unwrap();
    let sql = format!("{EVENTS} INSERT INTO events VALUES (7,100,1,2,1,4,30,4096,1,0,0), (8,200,1,2,5,1,30,8,1,0,0);");
    let mut database = Database::open(&made(&dir, &sql).await).await.unwrap();
    let events = TABLES.iter().find(|table| table.name == "events").unwrap();
    let mut seen = Vec::new();
    let each = |_, row: Row| {
        let event = event(&row.cells, "x").unwrap();
        seen.push((event.boot_ns, event.duration.map(|duration| duration.ns), event.bytes, event.process.rank));
        Ok::<_, IngeroError>(())
    };
    database.for_each(events, each).await.unwrap();
    assert_eq!(seen, [(100, Some(30), Some(4096), None), (200, Some(30), Some(4096), None)]);
}

#[tokio::test]
async fn rows_still_in_the_write_ahead_log_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, &format!("{EVENTS} PRAGMA journal_mode = WAL;")).await;
    let mut tracer = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql("INSERT INTO events VALUES (1,1,1,1,1,1,1,0,0,0,0)").execute(&mut tracer).await.unwrap();
    let parcels = survey(&path, None).await;
    assert_eq!(rows(&parcels, "made", RecordKind::Event), 1);
    tracer.close().await.unwrap();
}
