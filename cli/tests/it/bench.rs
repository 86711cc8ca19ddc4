//! A lake and recordings that are made for the purpose.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::run::{Lake, Said, causeway};

pub(crate) const T0: i64 = 1_780_000_000_000_000_000;

const TABLES: &str = "
    CREATE TABLE events (id INTEGER PRIMARY KEY, timestamp INTEGER, pid INTEGER, tid INTEGER, source INTEGER, op INTEGER, duration INTEGER,
        gpu_id INTEGER DEFAULT 0, arg0 INTEGER DEFAULT 0, arg1 INTEGER DEFAULT 0, ret_code INTEGER DEFAULT 0, stack_hash INTEGER DEFAULT 0,
        node TEXT DEFAULT '', rank INTEGER, local_rank INTEGER, world_size INTEGER, cgroup_id INTEGER DEFAULT 0, comm TEXT DEFAULT '');
    CREATE TABLE stack_traces (hash INTEGER PRIMARY KEY, ips TEXT, frames TEXT DEFAULT '');
    CREATE TABLE causal_chains (id TEXT PRIMARY KEY, detected_at INTEGER, severity TEXT, summary TEXT, root_cause TEXT, node TEXT DEFAULT '');
    CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE system_snapshots (id INTEGER PRIMARY KEY, timestamp INTEGER UNIQUE, cpu_pct REAL, mem_pct REAL, mem_avail INTEGER,
        swap_mb INTEGER, load_avg REAL);
    CREATE TABLE sessions (id INTEGER PRIMARY KEY, started_at INTEGER, stopped_at INTEGER DEFAULT 0, kernel TEXT DEFAULT '', node TEXT DEFAULT '');
    CREATE TABLE process_names (pid INTEGER PRIMARY KEY, name TEXT, seen_at INTEGER DEFAULT 0);
    CREATE TABLE event_aggregates (bucket INTEGER, source INTEGER, op INTEGER, pid INTEGER, count INTEGER, stored INTEGER, sum_dur INTEGER,
        min_dur INTEGER, max_dur INTEGER, sum_arg0 INTEGER, PRIMARY KEY (bucket, source, op, pid));
    CREATE TABLE cgroup_metadata (cgroup_id INTEGER PRIMARY KEY, container_id TEXT DEFAULT '', cgroup_path TEXT DEFAULT '');
    INSERT INTO schema_info VALUES ('version', '0.9'), ('timestamp_unit', 'nanoseconds (Unix epoch)');";

/// Runs SQL on a file, making it when absent.
pub(crate) fn change(path: &Path, sql: &str) {
    block_on(async {
        let mut connection = open(path).await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

pub(crate) async fn open(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// SQL that adds events of a node, with these numbers.
pub(crate) fn events(node: &str, numbers: std::ops::RangeInclusive<i64>) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         INSERT INTO events (id, timestamp, pid, tid, source, op, duration, node, comm) \
         SELECT i, {T0} + i * 1000, 7, 7, 1, 1, 100 + i, '{node}', 'train' FROM n;",
        numbers.start(),
        numbers.end()
    )
}

pub(crate) fn session(node: &str) -> String {
    format!(
        "INSERT INTO sessions (started_at, stopped_at, node) VALUES ({}, {}, '{node}');",
        T0 - 1_000_000_000,
        T0 + 10_000_000_000
    )
}

/// Copies a file as another program does: closing a file in this one would release its locks.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// A directory with a lake and recordings.
pub(crate) struct Bench {
    pub(crate) lake: Lake,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { lake: Lake::new(), dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A recording of these rows.
    pub(crate) fn made(&self, name: &str, sql: &str) -> PathBuf {
        let path = self.path(name);
        change(&path, &format!("BEGIN; {TABLES} {sql}; COMMIT;"));
        path
    }

    pub(crate) fn import(&self, files: &[&Path], more: &[&str]) -> Said {
        let mut command = causeway(&["import", "--data"]);
        command.arg(self.lake.path()).args(more).args(files);
        Said::of(command.output().unwrap())
    }

    /// What the import of one file says as JSON.
    #[track_caller]
    pub(crate) fn report(&self, file: &Path) -> Value {
        self.import(&[file], &["--json"]).ok().json()[0].clone()
    }

    /// Rows in the lake, all of which the audit finds in order.
    #[track_caller]
    pub(crate) fn rows(&self) -> Value {
        self.lake.audit().ok().json()["rows"].clone()
    }
}
