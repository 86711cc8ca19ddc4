//! Laws that hold over all tables.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{concat_batches, sum};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use event_schema::batch::{Event, EventRows, MeasuredDuration};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{Message, TopicPartition};
use event_schema::sketch::Sketch;
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{HeaderDraft, encode};
use proptest::prelude::*;

use super::{all, find};
use crate::arrival::Arrival;
use crate::seen::Seen;

mod refined;

const ARRIVED_US: i64 = 1_763_000_000_000_000;

fn message(offset: i64, first_seq: i64, durations: &[i64]) -> Message {
    weighted_message(offset, first_seq, durations, 1.0)
}

fn weighted_message(offset: i64, first_seq: i64, durations: &[i64], sample_weight: f32) -> Message {
    let mut rows = EventRows::new();
    for (i, duration_ns) in durations.iter().enumerate() {
        let i = i64::try_from(i).unwrap();
        let event = Event {
            boot_ns: (first_seq + i) * 1_000_000_000,
            duration: Some(MeasuredDuration::of_each(*duration_ns)),
            pid: 7 + (i % 2) as i32,
            bytes: Some(1 << (i % 4)),
            sample_weight,
            ..Event::default()
        };
        rows.push(&event.with_op(Op::CudaLaunchKernel));
    }
    let draft = draft_of(durations.len() as u64 + 2);
    raw(offset, encode(&draft, first_seq, &rows.finish().unwrap()).unwrap())
}

/// The header of a message of events whose makers say that two more were lost.
fn draft_of(emitted: u64) -> HeaderDraft {
    HeaderDraft {
        kind: RecordKind::Event,
        cluster: "c".into(),
        node: "n1".into(),
        boot_id: "0123456789".into(),
        epoch: 1,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: 1_763_000_000_000_000_000, error_ns: 9 },
        losses: LossCounters { emitted, ring_drop: 2, ..LossCounters::default() },
        agent: "test".into(),
    }
}

fn raw(offset: i64, payload: Bytes) -> Message {
    let at = TopicPartition::new(topics::EVENTS, 0);
    Message {
        at,
        offset,
        timestamp_ms: 1_763_000_000_000,
        key: Some(Bytes::from_static(b"n1")),
        payload,
        headers: vec![],
    }
}

fn arrivals(messages: Vec<Message>) -> Vec<Arrival> {
    let mut seen = Seen::new();
    messages.into_iter().map(|m| Arrival::decode(m, ARRIVED_US).admit(&mut seen)).collect()
}

fn rows_of(namespace: &str, name: &str, arrivals: &[Arrival]) -> RecordBatch {
    let table = find(namespace, name).unwrap();
    let batches = table.rows(&arrivals.iter().collect::<Vec<_>>()).unwrap();
    concat_batches(&table.def.arrow_schema(), &batches).unwrap()
}

fn longs<'a>(batch: &'a RecordBatch, name: &str) -> &'a arrow::array::Int64Array {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>()
}

#[test]
fn ids_and_names_of_columns_are_unique_and_what_is_named_exists() {
    for table in all() {
        let def = &table.def;
        let ids: HashSet<_> = def.columns.iter().map(|c| c.id).collect();
        let names: HashSet<_> = def.columns.iter().map(|c| c.name).collect();
        assert_eq!((ids.len(), names.len()), (def.columns.len(), def.columns.len()), "{}", def.name);
        assert!(def.sort.iter().all(|s| names.contains(s)), "{}", def.name);
        if let crate::def::Partition::Day(column) = def.partition {
            assert!(names.contains(column), "{}", def.name);
        }
    }
}

#[test]
fn a_message_sent_twice_lands_once_and_both_are_in_the_ledger() {
    let arrivals = arrivals(vec![message(0, 10, &[1, 2, 3]), message(1, 10, &[1, 2, 3]), message(2, 13, &[4])]);
    let events = rows_of("silver", "events", &arrivals);
    assert_eq!(longs(&events, "seq").values(), &[10, 11, 12, 13]);
    let ids: Vec<_> = events.column_by_name("event_id").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["n1:01234567:10", "n1:01234567:11", "n1:01234567:12", "n1:01234567:13"]);
    assert_eq!(rows_of("bronze", "messages", &arrivals).num_rows(), 3);
    let ledger = rows_of("ops", "ledger", &arrivals);
    assert_eq!(longs(&ledger, "landed_rows").values(), &[3, 0, 1]);
    assert_eq!(longs(&ledger, "duplicate_rows").values(), &[0, 3, 0]);
    assert_eq!(longs(&ledger, "emitted").values(), &[5, 0, 3], "losses of a repetition count once");
}

#[test]
fn a_forwarded_message_leaves_no_row_of_its_own_and_the_ledger_tells_where_it_went() {
    let home = TopicPartition::new(topics::EVENTS, 3);
    let arrivals = [Arrival::decode(message(0, 10, &[1, 2, 3]), ARRIVED_US).forward(home)];
    assert_eq!(rows_of("silver", "events", &arrivals).num_rows(), 0);
    assert_eq!(rows_of("gold", "op_minute", &arrivals).num_rows(), 0);
    assert_eq!(rows_of("bronze", "messages", &arrivals).num_rows(), 1);
    let ledger = rows_of("ops", "ledger", &arrivals);
    for (column, value) in [("rows", 3), ("landed_rows", 0), ("duplicate_rows", 3), ("emitted", 0), ("ring_drop", 0)] {
        assert_eq!(longs(&ledger, column).values(), &[value], "{column}");
    }
    let words = ["status", "cause"].map(|name| {
        let word =
            arrow::compute::cast(ledger.column_by_name(name).unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
        word.as_string::<i32>().value(0).to_owned()
    });
    assert_eq!(words, ["forwarded", "causeway.events.v1/3"]);
}

/// What a table weighs nothing of is passed over when it makes its rows.
#[test]
fn what_a_table_makes_rows_of_weighs_something_there() {
    let home = TopicPartition::new(topics::EVENTS, 3);
    let decoded = || Arrival::decode(message(1, 20, &[1]), ARRIVED_US).admit(&mut Seen::new());
    for arrival in [Arrival::decode(raw(0, Bytes::from_static(b"x")), ARRIVED_US), decoded(), decoded().forward(home)] {
        for table in all() {
            let rows = table.rows(&[&arrival]).unwrap();
            let rows: usize = rows.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(table.weigh(&arrival) > 0, rows > 0, "{} of {:?}", table.def.name, arrival.outcome);
        }
    }
}

#[test]
fn a_message_that_only_tells_losses_counts_once() {
    let arrivals = arrivals(vec![message(0, 10, &[1]), message(1, 11, &[]), message(2, 11, &[])]);
    assert_eq!(longs(&rows_of("ops", "ledger", &arrivals), "emitted").values(), &[3, 2, 0]);
    assert_eq!(rows_of("silver", "events", &arrivals).num_rows(), 1);
}

#[test]
fn absurd_weights_and_durations_are_rows_like_others() {
    for weight in [f32::INFINITY, f32::NAN, -1.0, 1e30] {
        let arrivals = arrivals(vec![weighted_message(0, 10, &[i64::MAX, i64::MIN, i64::MAX, 5], weight)]);
        for table in all() {
            table.rows(&arrivals.iter().collect::<Vec<_>>()).unwrap();
        }
    }
}

#[test]
fn a_message_that_overlaps_lands_only_its_new_rows() {
    let arrivals = arrivals(vec![message(0, 10, &[1, 2, 3]), message(1, 8, &[7, 7, 7, 7, 7, 8])]);
    assert_eq!(longs(&rows_of("silver", "events", &arrivals), "seq").values(), &[10, 11, 12, 8, 9, 13]);
}

#[test]
fn losses_that_a_first_half_told_are_not_counted_again_when_the_whole_message_comes() {
    let arrivals =
        arrivals(vec![message(0, 10, &[1, 2]), message(1, 10, &[1, 2, 3, 4]), message(2, 10, &[1, 2, 3, 4])]);
    let ledger = rows_of("ops", "ledger", &arrivals);
    for (column, expected) in [("landed_rows", [2, 2, 0]), ("emitted", [4, 2, 0]), ("ring_drop", [2, 0, 0])] {
        assert_eq!(longs(&ledger, column).values(), &expected, "{column}");
    }
}

#[test]
fn wall_time_is_boot_time_moved_by_the_beacon() {
    let events = rows_of("silver", "events", &arrivals(vec![message(0, 10, &[1])]));
    assert_eq!(longs(&events, "ts_ns").value(0), 1_763_000_010_000_000_000);
    assert_eq!(longs(&events, "boot_ns").value(0), 10_000_000_000);
    assert_eq!(longs(&events, "clock_error_ns").value(0), 9);
}

#[test]
fn a_message_that_does_not_decode_is_kept_whole_in_bronze_and_named_in_the_dlq() {
    let arrivals = arrivals(vec![raw(0, Bytes::from_static(b"garbage!")), message(1, 10, &[1])]);
    let dead = rows_of("ops", "dlq", &arrivals);
    assert_eq!(dead.num_rows(), 1);
    assert_eq!(dead.column_by_name("payload").unwrap().as_binary::<i32>().value(0), b"garbage!");
    let cause = arrow::compute::cast(dead.column_by_name("cause").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
    assert_eq!(cause.as_string::<i32>().value(0), "bad_magic");
    assert_eq!(rows_of("bronze", "messages", &arrivals).num_rows(), 2);
    assert_eq!(rows_of("ops", "ledger", &arrivals).num_rows(), 2);
    assert_eq!(rows_of("silver", "events", &arrivals).num_rows(), 1);
}

#[test]
fn headers_are_kept_in_order_with_repetitions_whatever_their_names() {
    let names = ["b", "a'\"\\\u{7}é", "b"];
    let headers = names.map(|name| (name.to_owned(), Bytes::from_static(b"\x00\xff"))).to_vec();
    let arrival = Arrival::decode(Message { headers, ..raw(0, Bytes::new()) }, ARRIVED_US);
    let rows = rows_of("bronze", "messages", &[arrival]);
    let text = rows.column_by_name("headers").unwrap().as_string::<i32>().value(0);
    let read: Vec<(String, String)> = serde_json::from_str(text).unwrap();
    assert_eq!(read, names.map(|name| (name.to_owned(), "00ff".to_owned())));
}

#[test]
fn an_operation_that_is_not_timed_has_no_durations_and_a_sample_stands_for_the_rest() {
    let timed = |ns, weight| Some(MeasuredDuration { ns, weight });
    let durations = [None, timed(4_000, 3.0), None, timed(1_000, 3.0), None, None];
    let aggregates = |durations: &[Option<MeasuredDuration>]| {
        let mut rows = EventRows::new();
        for duration in durations {
            let event = Event { duration: *duration, sample_weight: 1.0, ..Event::default() };
            rows.push(&event.with_op(Op::CudaLaunchKernel));
        }
        let message = raw(0, encode(&draft_of(0), 0, &rows.finish().unwrap()).unwrap());
        rows_of("gold", "op_minute", &arrivals(vec![message]))
    };
    let (untimed, sampled) = (aggregates(&[None; 4]), aggregates(&durations));
    assert_eq!((longs(&untimed, "count").value(0), longs(&untimed, "timed").value(0)), (4, 0));
    for name in ["sum_duration_ns", "min_duration_ns", "max_duration_ns"] {
        assert!(longs(&untimed, name).is_null(0), "{name}");
    }
    assert_eq!(sketch_of(&untimed, 0).quantile(0.5), None);
    assert_eq!((longs(&sampled, "count").value(0), longs(&sampled, "timed").value(0)), (6, 6));
    assert_eq!(longs(&sampled, "sum_duration_ns").value(0), 3 * 4_000 + 3 * 1_000, "as if each third were timed");
    assert_eq!(longs(&sampled, "min_duration_ns").value(0), 1_000, "not 0");
    assert_eq!(longs(&sampled, "max_duration_ns").value(0), 4_000);
    assert_eq!(sketch_of(&sampled, 0).count(), 6);
}

fn sketch_of(batch: &RecordBatch, row: usize) -> Sketch {
    Sketch::from_bytes(batch.column_by_name("sketch").unwrap().as_binary::<i32>().value(row)).unwrap()
}

/// By minute, pid and size class: count, sum, least, most, sketch.
type Merged = BTreeMap<(i64, i32, i32), (i64, i64, i64, i64, Sketch)>;

/// Merges rows of one key, as a reader would.
fn merged(batches: &[RecordBatch]) -> Merged {
    let mut out = BTreeMap::new();
    for b in batches {
        let minute = b.column_by_name("minute").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let pid = b.column_by_name("pid").unwrap().as_primitive::<Int32Type>();
        let size = b.column_by_name("size_class").unwrap().as_primitive::<Int32Type>();
        for i in 0..b.num_rows() {
            let entry = out.entry((minute.value(i), pid.value(i), size.value(i))).or_insert((
                0,
                0,
                i64::MAX,
                i64::MIN,
                Sketch::new(),
            ));
            entry.0 += longs(b, "count").value(i);
            entry.1 += longs(b, "sum_duration_ns").value(i);
            entry.2 = entry.2.min(longs(b, "min_duration_ns").value(i));
            entry.3 = entry.3.max(longs(b, "max_duration_ns").value(i));
            entry.4.merge(&sketch_of(b, i));
        }
    }
    out
}

proptest! {
    #[test]
    fn aggregates_of_any_split_merge_to_those_of_the_whole(
        batches in prop::collection::vec(prop::collection::vec(0..5_000_000i64, 1..30), 1..6), cut in 0..6usize,
    ) {
        let mut next = 0;
        let messages: Vec<Message> = batches.iter().enumerate().map(|(i, durations)| {
            let m = message(i as i64, next, durations);
            next += durations.len() as i64;
            m
        }).collect();
        let arrivals = arrivals(messages);
        let all: Vec<&Arrival> = arrivals.iter().collect();
        let (left, right) = all.split_at(cut.min(all.len()));
        let table = find("gold", "op_minute").unwrap();
        let whole = table.rows(&all).unwrap();
        let mut parts = table.rows(left).unwrap();
        parts.extend(table.rows(right).unwrap());
        prop_assert_eq!(merged(&whole), merged(&parts));
        let events = rows_of("silver", "events", &arrivals);
        let counted: i64 = whole.iter().filter_map(|b| sum(longs(b, "count"))).sum();
        prop_assert_eq!(counted, events.num_rows() as i64);
        let total: i64 = whole.iter().filter_map(|b| sum(longs(b, "sum_duration_ns"))).sum();
        prop_assert_eq!(total, sum(longs(&events, "duration_ns")).unwrap_or(0));
    }
}
