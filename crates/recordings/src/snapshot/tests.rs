use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use sqlx::{Connection, SqliteConnection};

use super::*;

/// Makes a database with one table of one row.
async fn made(path: &Path, mode: &str) -> SqliteConnection {
    let mut connection = writer(path).await;
    let sql = format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    sqlx::raw_sql(&sql).execute(&mut connection).await.unwrap();
    connection
}

async fn writer(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// How it was read, and the sum of the rows.
async fn read(path: &Path) -> (Reading, i64) {
    let snapshot = Snapshot::take(path, &Drain::new()).unwrap();
    let mut connection = snapshot.options().connect().await.unwrap();
    let sum = sqlx::query_scalar("SELECT sum(x) FROM t").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    (snapshot.reading, sum)
}

fn refused(path: &Path) -> String {
    Snapshot::take(path, &Drain::new()).unwrap_err().to_string()
}

/// Copies a file as another program does: closing a file in this one would release its locks.
fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Names of the files in a directory.
fn files(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_at_rest_is_read_in_place_and_its_writer_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut tracer = made(&path, "DELETE").await;
    run(&mut tracer, "PRAGMA busy_timeout = 0").await;
    let snapshot = Snapshot::take(&path, &Drain::new()).unwrap();
    assert_eq!(snapshot.reading, Reading::InPlace);
    let locked = sqlx::raw_sql("INSERT INTO t VALUES (2)").execute(&mut tracer).await.unwrap_err();
    assert!(locked.to_string().contains("locked"), "{locked}");
    drop(snapshot);
    run(&mut tracer, "INSERT INTO t VALUES (2)").await;
    assert_eq!(read(&path).await, (Reading::InPlace, 3));
    assert_eq!(files(dir.path()), ["a.db"]);
}

#[tokio::test]
async fn a_file_that_has_taken_the_name_of_the_locked_one_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    for path in [&path, &other] {
        made(path, "DELETE").await.close().await.unwrap();
    }
    let snapshot = Snapshot::take(&path, &Drain::new()).unwrap();
    assert!(snapshot.is_in_its_place());
    std::fs::rename(&other, &path).unwrap();
    assert!(!snapshot.is_in_its_place());
    std::fs::remove_file(&path).unwrap();
    assert!(!snapshot.is_in_its_place());
}

#[tokio::test]
async fn the_journal_of_a_writer_that_died_is_rolled_back_in_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, dead) = (dir.path().join("a.db"), dir.path().join("dead.db"));
    let mut tracer = made(&path, "DELETE").await;
    // So small a cache writes to the file before the transaction ends.
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                INSERT INTO t SELECT 1000000 FROM n";
    run(&mut tracer, &format!("PRAGMA cache_size = 1; BEGIN; UPDATE t SET x = 77; {rows}")).await;
    copy(&path, &dead);
    copy(&dir.path().join("a.db-journal"), &dir.path().join("dead.db-journal"));
    let before = std::fs::read(&dead).unwrap();
    assert_eq!(read(&dead).await, (Reading::RolledBack, 1));
    assert_eq!(std::fs::read(&dead).unwrap(), before, "the file is left as it was");
    assert!(dir.path().join("dead.db-journal").exists());
    // The writer that lives holds its lock.
    let said = refused(&path);
    assert!(said.contains("locked by a program that is writing to it"), "{said}");
    run(&mut tracer, "ROLLBACK").await;
    assert_eq!(read(&path).await.1, 1);
}

#[tokio::test]
async fn a_transaction_that_has_not_reached_the_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut tracer = made(&path, "DELETE").await;
    run(&mut tracer, "BEGIN IMMEDIATE; INSERT INTO t VALUES (10)").await;
    assert_eq!(read(&path).await, (Reading::Copy, 1));
    run(&mut tracer, "COMMIT").await;
    assert_eq!(read(&path).await, (Reading::InPlace, 11));
}

#[tokio::test]
async fn a_journal_that_was_kept_empty_or_zeroed_is_none() {
    for mode in ["TRUNCATE", "PERSIST"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        made(&path, mode).await.close().await.unwrap();
        assert!(dir.path().join("a.db-journal").exists(), "{mode}");
        assert_eq!(read(&path).await, (Reading::InPlace, 1), "{mode}");
    }
}

#[tokio::test]
async fn what_is_committed_in_a_log_is_read_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut tracer = made(&path, "WAL").await;
    run(&mut tracer, "PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (2); BEGIN; INSERT INTO t VALUES (100)")
        .await;
    let before = files(dir.path());
    assert_eq!(read(&path).await, (Reading::Copy, 3));
    assert_eq!(files(dir.path()), before);
    run(&mut tracer, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").await;
    assert_eq!(read(&path).await, (Reading::Copy, 103));
}

#[tokio::test]
async fn a_log_whose_tracer_died_is_read_and_nothing_is_made_beside_it() {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    let mut tracer = made(&path, "WAL").await;
    run(&mut tracer, "PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (2)").await;
    // As the name of a file may be, and without the index of the log.
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 ?#%.db");
    let copied = left.path().join(name);
    copy(&path, &copied);
    copy(&with_ending(&path, Beside::Log), &with_ending(&copied, Beside::Log));
    let before = files(left.path());
    assert_eq!(read(&copied).await, (Reading::Copy, 3));
    assert_eq!(files(left.path()), before);
    // Without its log it is what the last checkpoint left.
    std::fs::remove_file(with_ending(&copied, Beside::Log)).unwrap();
    assert_eq!(Snapshot::take(&copied, &Drain::new()).unwrap().reading, Reading::Copy);
    assert_eq!(files(left.path()).len(), 1);
}

#[tokio::test]
async fn a_copy_ends_when_the_import_is_to_end_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    made(&path, "WAL").await.close().await.unwrap();
    let drain = Drain::new();
    drain.cancel();
    let ended = Snapshot::take(&path, &drain).unwrap_err();
    assert!(matches!(ended, SnapshotError::Interrupted { .. }), "{ended}");
}

#[test]
fn a_copy_can_be_read_by_its_owner_alone() {
    let dir = PrivateDir::make().unwrap();
    assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_log_or_journal_that_is_deleted_before_it_is_copied_is_a_change_and_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    made(&path, "WAL").await.close().await.unwrap();
    let drain = Drain::new();
    let file = open_regular(&path, &path).unwrap();
    let source = Source { shown: &path, real: path.clone(), file, drain: &drain };
    let header = form::read_header(&path, &source.file).unwrap();
    // Seen a moment ago, and gone.
    assert!(source.copy(header, true, false).unwrap().is_none(), "journal");
    assert!(source.copy(header, false, true).unwrap().is_none(), "log");
    assert!(source.copy(header, false, false).unwrap().is_some());
}

#[tokio::test]
async fn a_checkpoint_waits_while_a_log_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let mut tracer = made(&path, "WAL").await;
    run(&mut tracer, "PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (2)").await;
    let index = File::open(with_ending(&path, Beside::LogIndex)).unwrap();
    assert_eq!(locks::hold_log(&index, &Drain::new()).unwrap(), Locked::Held);
    let checkpoint = || sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(PASSIVE)");
    assert_eq!(checkpoint().fetch_one(&mut tracer).await.unwrap().0, 1, "busy");
    drop(index);
    assert_eq!(checkpoint().fetch_one(&mut tracer).await.unwrap().0, 0);
}

#[tokio::test]
async fn a_name_that_is_not_utf8_and_a_link_are_read_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("a.db");
    made(&plain, "DELETE").await.close().await.unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
    std::fs::rename(&plain, &odd).unwrap();
    assert_eq!(read(&odd).await, (Reading::InPlace, 1));
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&odd, &link).unwrap();
    assert_eq!(read(&link).await, (Reading::InPlace, 1));
    let nowhere = dir.path().join("nowhere.db");
    std::os::unix::fs::symlink(dir.path().join("absent"), &nowhere).unwrap();
    assert!(refused(&nowhere).contains("nowhere.db cannot be read"));
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, socket) = (dir.path().join("pipe"), dir.path().join("socket"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(refused(&pipe).contains("pipe is a named pipe, not a regular file"), "{}", refused(&pipe));
    assert!(refused(&socket).contains("socket is a socket, not a regular file"), "{}", refused(&socket));
    assert!(refused(Path::new("/dev/zero")).contains("is a character device"));
    let said = refused(dir.path());
    assert!(said.contains("is a directory: name the recordings in it, such as") && said.contains("*.db"), "{said}");
}

#[test]
fn a_file_of_another_kind_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (b"  {\"traceEvents\": []}", "is a JSON file: traces and JSON lines are not imported"),
        (b"\xef\xbb\xbf[1]", "is a JSON file"),
        (b"PAR1....", "is a Parquet file"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip: decompress it"),
        (b"\x28\xb5\x2f\xfd....", "is compressed with zstd"),
        (b"\x37\x7f\x06\x82....", "is the write-ahead log of a database: import the database it lies beside"),
        (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", "is the rollback journal of a database"),
        (b"SQLite format 3\0 and no more", "is not an SQLite file"),
    ];
    for (content, expected) in cases {
        std::fs::write(&path, content).unwrap();
        assert!(refused(&path).contains(expected), "{}", refused(&path));
    }
    // As an encrypted database looks.
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&path, noise).unwrap();
    assert!(
        refused(&path)
            .contains("is not an SQLite file: expected a database that `ingero trace` recorded (SQLite, not encrypted")
    );
}

#[tokio::test]
async fn a_truncated_file_is_named_with_both_sizes() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let path = dir.path().join(mode);
        let mut tracer = made(&path, mode).await;
        run(&mut tracer, "INSERT INTO t VALUES (zeroblob(50000))").await;
        tracer.close().await.unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole / 2).unwrap();
        let sizes = format!("announces {whole} bytes, the file has {}", whole / 2);
        assert!(refused(&path).contains("is truncated") && refused(&path).contains(&sizes), "{}", refused(&path));
    }
}
