//! A file that is damaged while it is imported, and files that are imported twice, into a destination in memory.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use event_schema::kind::RecordKind;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tables::seen::Seen;

use super::*;
use crate::compare::{Landed, Sample};
use crate::destination::{Destination, DestinationError};

/// SQL for a recording of an event, and of more stacks than SQLite keeps in its cache.
const RECORDING: &str = "
    CREATE TABLE schema_info (key TEXT, value TEXT);
    CREATE TABLE events (id INTEGER PRIMARY KEY, timestamp, pid, tid, source, op, duration, arg0, arg1, ret_code, stack_hash, rank, comm, node);
    CREATE TABLE stack_traces (hash INTEGER PRIMARY KEY, ips TEXT, frames TEXT);
    INSERT INTO events VALUES (1, 1780000000000000000, 7, 7, 1, 1, 5, 0, 0, 0, 0, NULL, 'train', '');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO stack_traces SELECT i, '[]', hex(randomblob(1500)) FROM n;";

const OPTIONS: Options<'static> = Options { node: Some("n"), cluster: "default", skip_bad_rows: false };

/// A destination that keeps the kinds of its messages.
#[derive(Debug, Clone, Default)]
struct InMemory(Arc<Mutex<Vec<RecordKind>>>);

#[async_trait]
impl Destination for InMemory {
    async fn landed(&mut self) -> Result<Seen, DestinationError> {
        Ok(Seen::new())
    }

    fn send(&mut self, kind: RecordKind, _node: &str, _message: &Bytes) -> Result<(), DestinationError> {
        self.0.lock().unwrap().push(kind);
        Ok(())
    }

    async fn land(&mut self, _drain: &Drain) -> Result<(), DestinationError> {
        Ok(())
    }

    async fn landed_events(&mut self, _sample: &Sample) -> Result<Landed, DestinationError> {
        Ok(Landed::unknown())
    }

    fn keep(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }

    async fn finish(&mut self, _drain: &Drain) -> Result<(), DestinationError> {
        Ok(())
    }
}

/// Counts rows by step.
#[derive(Debug, Default)]
struct Counted {
    read: u64,
    imported: u64,
}

impl Progress for Counted {
    fn row(&mut self, _path: &Path, step: Step, _table: &'static str) {
        match step {
            Step::Reading => self.read += 1,
            Step::Importing => self.imported += 1,
        }
    }
}

async fn recording(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("a.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(RECORDING).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_cannot_be_read_a_second_time_it_is_said_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = recording(&dir).await;
    let drain = Drain::new();
    let mut target = Target::open(Box::new(InMemory::default())).await.unwrap();
    let recording = Recording::survey(&path, OPTIONS, &mut (), &drain).await.unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xff; usize::try_from(bytes / 2).unwrap()], bytes / 2).unwrap();
    let Err(error) = recording.send(&mut target, &mut (), &drain).await else {
        panic!("it was sent");
    };
    let RecordingError::InPart { sent, .. } = &error else { panic!("{error:?}") };
    assert!((1..3000).contains(sent), "{error}");
    let said = service_kit::run::in_a_line(&error);
    assert!(said.contains("nothing lands twice") && said.contains("`stack_traces`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_task_imports_a_file_once_and_counts_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = recording(&dir).await;
    let destination = InMemory::default();
    let messages = Arc::clone(&destination.0);
    let task = tokio::spawn(async move {
        let drain = Drain::new();
        let mut target = Target::open(Box::new(destination)).await?;
        let mut progress = Counted::default();
        let mut new_rows = Vec::new();
        for _ in 0..2 {
            let recording = Recording::survey(&path, OPTIONS, &mut progress, &drain).await?;
            new_rows.push(recording.send(&mut target, &mut progress, &drain).await?.new_rows);
        }
        target.finish(&drain).await?;
        Ok::<_, RecordingError>((new_rows, progress))
    });
    let (new_rows, progress) = task.await.unwrap().unwrap();
    assert_eq!(new_rows, [3001, 0]);
    assert_eq!((progress.read, progress.imported), (6002, 6002));
    let messages = messages.lock().unwrap();
    assert!(messages.contains(&RecordKind::Stack) && messages.contains(&RecordKind::Event), "{messages:?}");
}
