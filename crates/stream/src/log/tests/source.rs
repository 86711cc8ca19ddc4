//! The spool directory behind the [`Source`] trait.

use std::time::Duration;

use super::*;
use crate::source::{Source, SourceError, SourceEvent, fingerprint};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(10);

fn assigned(source: &mut LogSource) -> Vec<TopicPartition> {
    match source.poll(LONG, 1 << 20).unwrap() {
        SourceEvent::Assigned(partitions) => partitions,
        other => panic!("{other:?}"),
    }
}

fn offsets(event: SourceEvent) -> Vec<(i32, i64)> {
    match event {
        SourceEvent::Messages(messages) => messages.iter().map(|m| (m.at.partition, m.offset)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partition_made_while_running_is_assigned_and_read_from_the_tables_position() {
    let root = TempDir::new().unwrap();
    let mut source = LogSource::new(root.path(), ["events"]);
    assert_eq!(source.poll(SHORT, 1 << 20).unwrap(), SourceEvent::Idle);
    fill(&mut open(&root, MANUAL), 5);
    assert_eq!(assigned(&mut source), [tp()]);
    assert_eq!(source.poll(SHORT, 1 << 20).unwrap(), SourceEvent::Idle, "nothing before start");
    source.start(&[(tp(), NextOffset(3))]).unwrap();
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(0, 3), (0, 4)]);
    source.start(&[(tp(), NextOffset(4))]).unwrap();
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(0, 4)]);
}

#[test]
fn a_paused_partition_rests_and_others_go_on() {
    let root = TempDir::new().unwrap();
    let (mut a, mut b) = (open(&root, MANUAL), claim_partition(root.path(), "events", MANUAL).unwrap());
    let mut source = LogSource::new(root.path(), ["events"]);
    let partitions = assigned(&mut source);
    source.start(&partitions.iter().map(|at| (at.clone(), NextOffset(0))).collect::<Vec<_>>()).unwrap();
    source.pause(&[tp()]).unwrap();
    fill(&mut a, 1);
    fill(&mut b, 1);
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(1, 0)]);
    source.resume(&[tp()]).unwrap();
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(0, 0)]);
}

#[test]
fn a_position_outside_the_log_is_named_as_retention_or_truncation() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    writer.delete_below(NextOffset(10)).unwrap();
    let mut source = LogSource::new(root.path(), ["events"]);
    assigned(&mut source);
    assert!(matches!(source.start(&[(tp(), NextOffset(0))]), Err(SourceError::Retention { .. })));
    assert!(matches!(source.start(&[(tp(), NextOffset(21))]), Err(SourceError::Truncated { .. })));
    let other = TopicPartition::new("events", 9);
    assert!(matches!(source.start(&[(other, NextOffset(0))]), Err(SourceError::NotAssigned(_))));
}

/// After a kill between append and sync, or a power cut that took the newest mark.
#[test]
fn records_above_the_mark_count_for_a_tables_position_and_not_for_what_can_be_read() {
    let root = TempDir::new().unwrap();
    let mark = partition_dir(root.path(), &tp()).join("high-watermark");
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 3);
    let older = fs::read(&mark).unwrap();
    fill(&mut writer, 2);
    drop(writer);
    fs::write(&mark, older).unwrap();
    let mut source = LogSource::new(root.path(), ["events"]);
    assigned(&mut source);
    let readable = Watermarks { low: NextOffset(0), high: NextOffset(3) };
    assert_eq!((source.watermarks(&tp()).unwrap(), source.end(&tp()).unwrap()), (readable, NextOffset(5)));
    assert!(matches!(source.start(&[(tp(), NextOffset(6))]), Err(SourceError::Truncated { .. })));
    source.start(&[(tp(), NextOffset(5))]).expect("a position the table may have is in the log");
    assert_eq!(source.poll(SHORT, 1 << 20).unwrap(), SourceEvent::Idle);
    source.start(&[(tp(), NextOffset(0))]).unwrap();
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(source.poll(SHORT, 1 << 20).unwrap(), SourceEvent::Idle);
    assert_eq!((source.watermarks(&tp()).unwrap(), source.end(&tp()).unwrap()), (readable, NextOffset(5)));
}

#[test]
fn what_the_reader_reports_is_what_the_writer_deletes() {
    let root = TempDir::new().unwrap();
    let mut writer = open(&root, MANUAL);
    fill(&mut writer, 20);
    let mut source = LogSource::new(root.path(), ["events"]);
    assigned(&mut source);
    source.start(&[(tp(), NextOffset(0))]).unwrap();
    while source.poll(SHORT, 1 << 20).unwrap() != SourceEvent::Idle {}
    assert_eq!(writer.delete_landed().unwrap(), 0, "nothing reported, nothing deleted");
    source.report(&[(tp(), NextOffset(20))]).unwrap();
    assert!(writer.delete_landed().unwrap() > 0);
    fill(&mut writer, 1);
    assert_eq!(offsets(source.poll(LONG, 1 << 20).unwrap()), [(0, 20)]);
}

#[test]
fn identity_and_fingerprint_tell_a_log_made_anew() {
    let root = TempDir::new().unwrap();
    fill(&mut open(&root, MANUAL), 3);
    let mut source = LogSource::new(root.path(), ["events"]);
    let (identity, mark) = (source.identity(&tp()).unwrap(), source.fingerprint(&tp(), NextOffset(2)).unwrap());
    assert_eq!(source.fingerprint(&tp(), NextOffset(0)).unwrap(), None);
    let message = LogReader::open(root.path(), &tp(), NextOffset(1)).unwrap().read(1).unwrap().remove(0);
    assert_eq!(mark, Some(fingerprint(&message)));
    fs::remove_dir_all(root.path().join("events")).unwrap();
    fill(&mut open(&root, MANUAL), 3);
    assert_ne!(source.identity(&tp()).unwrap(), identity);
}
