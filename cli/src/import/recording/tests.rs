//! A file that is damaged while it is imported.

use std::os::unix::fs::FileExt;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::embedded::DataDir;

/// SQL for a recording of an event, and of more stacks than SQLite keeps in its cache.
const RECORDING: &str = "
    CREATE TABLE schema_info (key TEXT, value TEXT);
    CREATE TABLE events (id INTEGER PRIMARY KEY, timestamp, pid, tid, source, op, duration, arg0, arg1, ret_code, stack_hash, rank, comm, node);
    CREATE TABLE stack_traces (hash INTEGER PRIMARY KEY, ips TEXT, frames TEXT);
    INSERT INTO events VALUES (1, 1780000000000000000, 7, 7, 1, 1, 5, 0, 0, 0, 0, NULL, 'train', '');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO stack_traces SELECT i, '[]', hex(randomblob(1500)) FROM n;";

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_cannot_be_read_a_second_time_it_is_said_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(RECORDING).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (drain, mut seen, mut progress) = (Drain::new(), Seen::new(), Progress::new());
    let lake = DataDir::create(&dir.path().join("lake")).unwrap();
    let mut destination = Destination::embedded(lake, &drain).await.unwrap();
    let wishes = Wishes { node: Some("n"), cluster: "default", skip_bad_rows: false };
    let recording = Recording::survey(&path, wishes, &mut progress, &drain).await.unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xff; usize::try_from(bytes / 2).unwrap()], bytes / 2).unwrap();
    let Err(error) = recording.send(wishes, &mut seen, &mut destination, &mut progress, &drain).await else {
        panic!("it was sent");
    };
    let RecordingError::InPart { sent, .. } = &error else { panic!("{error:?}") };
    assert!((1..3000).contains(sent), "{error}");
    let said = service_kit::run::in_a_line(&error);
    assert!(said.contains("nothing lands twice") && said.contains("`stack_traces`"), "{said}");
}
