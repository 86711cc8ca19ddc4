//! The spool log between processes: a writer killed at random moments beside a reader that never sees a change of mind.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use event_schema::position::{NextOffset, TopicPartition};
use stream::log::{Appended, Fsync, LogOptions, LogReader, LogWriter};
use tempfile::TempDir;

const WRITER_DIR: &str = "CAUSEWAY_TEST_LOG_WRITER";

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, max_bytes: 1 << 30, fsync: Fsync::Interval(Duration::from_millis(3)) }
}

fn at() -> TopicPartition {
    TopicPartition::new("events", 0)
}

fn payload(offset: i64) -> Vec<u8> {
    (0..100 + offset % 700).map(|i| (offset * 7 + i) as u8).collect()
}

/// Not a test by itself: what the killed process runs. Prints what it may count on.
#[test]
fn writer_process() {
    let Ok(dir) = std::env::var(WRITER_DIR) else { return };
    let mut writer = LogWriter::open(dir.as_ref(), &at(), options()).unwrap();
    loop {
        let next = writer.watermarks().high.0;
        assert_eq!(writer.append(Some(b"k"), &payload(next), next).unwrap(), Appended::At(next));
        if next % 64 == 0 {
            writer.sync().unwrap();
            println!("synced {}", next + 1);
        }
    }
}

fn start_writer(dir: &TempDir) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["log::writer_process", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(WRITER_DIR, dir.path()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_writer_killed_thirty_times_keeps_every_synced_record_and_its_reader_sees_one_history() {
    let dir = TempDir::new().unwrap();
    let mut reader = LogReader::open(dir.path(), &at(), NextOffset(0)).unwrap();
    let (mut read, mut promised) = (0, 0);
    for round in 0..30 {
        let mut child = start_writer(&dir);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut synced = lines.filter_map(|line| line.strip_prefix("synced ").and_then(|n| n.parse::<i64>().ok()));
        for _ in 0..=round % 7 {
            promised = synced.next().expect("the writer goes on until it is killed");
            read += check(&mut reader);
        }
        child.kill().unwrap();
        promised = synced.last().unwrap_or(promised);
        child.wait().unwrap();
        read += check(&mut reader);
        assert!(read >= promised, "{promised} records were promised, {read} are there");
    }
    let writer = LogWriter::open(dir.path(), &at(), options()).unwrap();
    read += check(&mut reader);
    assert_eq!(NextOffset(read), writer.watermarks().high);
    println!("{read} records through 30 kills");
}

/// Reads what is there and checks each record; returns how many.
fn check(reader: &mut LogReader) -> i64 {
    let mut count = 0;
    loop {
        let messages = reader.read(50_000).unwrap();
        if messages.is_empty() {
            return count;
        }
        for message in messages {
            assert_eq!((&message.payload[..], message.timestamp_ms), (&payload(message.offset)[..], message.offset));
            count += 1;
        }
    }
}
