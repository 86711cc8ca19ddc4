//! Which ranges are read a second time, and what becomes of messages behind them; no broker is there.

use bytes::Bytes;

use super::*;
use crate::kafka::KafkaConfig;
use crate::kafka::context::Context;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("events", partition)
}

fn range(partition: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(at(partition), start, end)
}

fn message(partition: i32, offset: i64) -> Message {
    let (key, payload, headers) = (None, Bytes::new(), Vec::new());
    Message { at: at(partition), offset, timestamp_ms: 0, key, payload, headers }
}

fn config() -> KafkaConfig {
    KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() }
}

/// Message 10 of a partition came where 5 was expected.
fn behind(partition: i32, ask_at: Instant) -> Behind {
    Behind { missing: range(partition, 5, 10), message: message(partition, 10), is_stopped: true, ask_at }
}

fn begin(missing: &mut Missing, range: OffsetRange) {
    missing.readings.push_back(Reading::begin(&config(), range).unwrap());
}

#[test]
fn what_waits_longest_is_read_first_and_few_ranges_are_read_at_a_time() {
    let (mut missing, now) = (Missing::default(), Instant::now());
    for (partition, secs) in [(0, 4), (1, 3), (2, 2), (3, 1)] {
        missing.keep(behind(partition, now + Duration::from_secs(secs)));
    }
    let due = now + Duration::from_secs(3);
    assert_eq!(missing.next_range(now), None);
    for partition in [3, 2] {
        let next = missing.next_range(due).unwrap();
        assert_eq!(next.at, at(partition));
        begin(&mut missing, next);
    }
    assert_eq!(missing.next_range(due), None, "{READINGS} are under way");
    missing.readings.pop_front();
    missing.put_off(&range(3, 5, 10), due);
    assert_eq!(missing.next_range(due).unwrap().at, at(1), "one that failed comes later");
}

#[test]
fn offsets_at_an_end_are_read_once_they_have_stalled_and_no_longer_when_a_message_has_come() {
    let (mut missing, began) = (Missing::default(), Instant::now());
    let ends = BTreeMap::from([(at(0), End { stable: 10, high: 12, next: 10 })]);
    let look =
        |missing: &mut Missing, next, now| missing.look_at_ends([(&at(0), NextOffset(next))].into_iter(), &ends, now);
    look(&mut missing, 5, began);
    assert_eq!(missing.next_range(began), None);
    let later = began + STALLED_FOR;
    look(&mut missing, 5, later);
    assert_eq!(missing.next_range(later), Some(range(0, 5, 10)));
    begin(&mut missing, range(0, 5, 10));
    missing.retire();
    assert!(missing.is_reading());
    look(&mut missing, 6, later);
    missing.retire();
    assert!(!missing.is_reading(), "nothing waits for it");
    assert_eq!(missing.next_range(later), None);
    look(&mut missing, 10, later + STALLED_FOR);
    assert_eq!(missing.stalled, BTreeMap::new(), "read to its end");
}

#[test]
fn a_partition_that_is_revoked_is_read_a_second_time_no_longer() {
    let (mut missing, now) = (Missing::default(), Instant::now());
    missing.keep(behind(0, now));
    missing.keep(behind(1, now));
    begin(&mut missing, range(0, 5, 10));
    begin(&mut missing, range(1, 5, 10));
    missing.forget(&at(0));
    let left: Vec<_> = missing.readings.iter().map(|reading| reading.range().at.partition).collect();
    assert_eq!(left, [1]);
}

/// A member that reads partitions 0 and 1, each from offset 5 on.
fn member() -> KafkaSource {
    let consumer = config().consumer().create_with_context(Context::default()).unwrap();
    let mut source = KafkaSource::of(consumer, config());
    for partition in [0, 1] {
        source.sequencer.assign(at(partition), NextOffset(5));
    }
    source
}

#[test]
fn a_message_comes_behind_offsets_that_are_known_to_hold_none_and_other_partitions_do_not_wait() {
    let mut source = member();
    source.keep_back(range(0, 5, 10), message(0, 10));
    source.missing.stretches.insert(at(1), Stretch::of(range(1, 5, 20), [10]));
    source.keep_back(range(1, 5, 10), message(1, 10));
    assert_eq!(source.pass_missing().unwrap(), Some(SourceEvent::Skipped(range(1, 5, 10))));
    assert_eq!(source.pass_missing().unwrap(), Some(SourceEvent::Messages(vec![message(1, 10)])));
    assert_eq!(source.pass_missing().unwrap(), None, "partition 0 is read a second time");
    assert_eq!(source.sequencer.expected(&at(1)), Some(NextOffset(11)));
    assert_eq!(source.sequencer.expected(&at(0)), Some(NextOffset(5)));
}

#[test]
fn a_reading_that_is_not_answered_is_reported_until_its_partition_is_gone() {
    let (mut source, now) = (member(), Instant::now());
    source.keep_back(range(0, 5, 10), message(0, 10));
    assert_eq!(source.held_up(), None);
    source.wait_for(&range(0, 5, 10), "no broker gives them", now);
    let reason = source.held_up().unwrap();
    assert!(reason.contains("events/0:5-10") && reason.contains("no broker gives them"), "{reason}");
    source.missing.forget(&at(0));
    assert_eq!(source.held_up(), None);
}
