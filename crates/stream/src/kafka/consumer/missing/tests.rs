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

/// The end of a partition that is written to moves on, and what did not come by then stays the same.
#[test]
fn a_partition_is_stuck_when_a_message_that_is_there_does_not_come() {
    let (mut missing, began) = (Missing::default(), Instant::now());
    let look = |missing: &mut Missing, next, stable, now| {
        let ends = BTreeMap::from([(at(0), End { stable, high: stable, next: stable })]);
        missing.look_at_ends([(&at(0), NextOffset(next))].into_iter(), &ends, now);
    };
    look(&mut missing, 5, 10, began);
    let later = began + STUCK_FOR;
    look(&mut missing, 5, 20, later);
    assert_eq!(missing.take_stuck(later), BTreeSet::new(), "it is not known whether there is a message");
    missing.stretches.insert(at(0), Stretch::of(range(0, 5, 10), [7]));
    assert_eq!(missing.take_stuck(later), BTreeSet::from([at(0)]));
    assert_eq!(missing.take_stuck(later), BTreeSet::new(), "it was just fetched anew");
    assert_eq!(missing.take_stuck(later + STUCK_FOR), BTreeSet::new(), "a slow answer gets more time");
    assert_eq!(missing.take_stuck(later + 2 * STUCK_FOR), BTreeSet::from([at(0)]));
    look(&mut missing, 8, 20, later);
    assert_eq!(missing.take_stuck(later + 9 * STUCK_FOR), BTreeSet::new(), "it has moved");
}

/// The client's report of the end is as old as its last fetch, which may be of a former assignment.
#[test]
fn a_partition_is_stuck_when_no_fetch_follows_its_start() {
    let (mut missing, began) = (Missing::default(), Instant::now());
    let look = |missing: &mut Missing, stable: i64, now| {
        let ends = BTreeMap::from([(at(0), End { stable, high: stable, next: stable })]);
        missing.look_at_ends([(&at(0), NextOffset(5))].into_iter(), &ends, now);
    };
    missing.start(&at(0), NextOffset(10), began);
    missing.start(&at(1), NextOffset(10), began);
    let later = began + STUCK_FOR;
    look(&mut missing, 3, began);
    look(&mut missing, 3, later);
    assert_eq!(missing.next_range(later), Some(range(0, 5, 10)), "there is something to be read");
    assert_eq!(missing.take_stuck(later), BTreeSet::from([at(0)]), "partition 1 is paused");
    assert_eq!(missing.take_stuck(later), BTreeSet::new());
    let much_later = later + 9 * STUCK_FOR;
    look(&mut missing, 10, much_later);
    assert_eq!(missing.take_stuck(much_later), BTreeSet::new(), "it is fetched");
}

#[test]
fn a_partition_that_is_stuck_is_fetched_anew_from_its_next_offset_on() {
    let (mut source, began) = (member(), Instant::now());
    let range = range(0, 5, 10);
    source.missing.stretches.insert(at(0), Stretch::of(range.clone(), [7]));
    source.missing.stalled.insert(at(0), Stalled { range, since: began, refetch: Backoff::begin(began) });
    for (now, expected) in [(began, vec![]), (began + STUCK_FOR, vec![(0, rdkafka::Offset::Offset(5))])] {
        source.fetch_stuck_anew(now).unwrap();
        let assigned = source.consumer.assignment().unwrap();
        let found: Vec<_> = assigned.elements().iter().map(|e| (e.partition(), e.offset())).collect();
        assert_eq!(found, expected);
    }
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
