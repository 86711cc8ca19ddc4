use arrow::array::RecordBatch;
use bytes::Bytes;
use proptest::prelude::*;

use super::{DAYS_MAX, EncodeError, Header, HeaderDraft, NAME_BYTES_MAX, ROWS_MAX, WireError, decode, peek};
use crate::batch::{Event, EventRows, MeasuredDuration, ProcessInfo, Rows, Value};
use crate::clock::Beacon;
use crate::kind::{Field, FieldType, Place, RecordKind};
use crate::loss::LossCounters;
use crate::stream::Stream;

mod golden;
mod hostile;
mod versions;

const DAY_NS: i64 = 24 * 3_600 * 1_000_000_000;

/// Number of the first row of every message here.
const FIRST_SEQ: i64 = 41;

fn encode(draft: &HeaderDraft, batch: &RecordBatch) -> Result<Bytes, EncodeError> {
    super::encode(draft, FIRST_SEQ, batch)
}

fn header(kind: RecordKind) -> HeaderDraft {
    HeaderDraft {
        kind,
        cluster: "prod".into(),
        node: "gpu-node-01".into(),
        boot_id: "9f8a7c6e-1111-2222-3333-444455556666".into(),
        epoch: 3,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 1_000, wall_ns: 1_763_000_000_000_000_000, error_ns: 150 },
        losses: LossCounters { emitted: 10, ring_drop: 1, shed: 2, sampled_out: 3, spool_drop: 4 },
        agent: "causeway-agent 0.1.0".into(),
    }
}

fn duration(i: i64) -> MeasuredDuration {
    MeasuredDuration { ns: i * i % 10_007, weight: if i % 5 == 0 { 100.0 } else { 1.0 } }
}

fn events(n: i64) -> RecordBatch {
    let mut rows = EventRows::new();
    for i in 0..n {
        let process = ProcessInfo { rank: Some(2), job_id: Some("llama"), cgroup_id: 77, ..ProcessInfo::default() };
        rows.push(&Event {
            boot_ns: 5_000 + i * 731 - (i % 7) * 1_000,
            source: 1,
            op: 3 + (i % 3) as i32,
            duration: (i % 4 != 3).then(|| duration(i)),
            pid: 4_000,
            tid: 4_000 + (i % 2) as i32,
            comm: Some(if i % 2 == 0 { "python3" } else { "pt_main_thread" }),
            process,
            bytes: (i % 5 == 0).then_some(i << 10),
            sample_weight: 1.0,
            source_id: (i % 11 == 0).then_some("gpu-node-01:17"),
            ..Event::default()
        });
    }
    rows.finish().unwrap()
}

fn stated(header: &HeaderDraft, batch: &RecordBatch) -> Header {
    decode(&encode(header, batch).unwrap()).unwrap().header
}

#[test]
fn a_message_reads_back_as_it_was_written() {
    let (header, batch) = (header(RecordKind::Event), events(5_000));
    let decoded = decode(&encode(&header, &batch).unwrap()).unwrap();
    assert_eq!(decoded.batch, batch);
    assert_eq!(decoded.header.rows, 5_000);
    assert_eq!((decoded.header.first_seq, decoded.header.end_seq()), (FIRST_SEQ, FIRST_SEQ + 5_000));
    assert_eq!(decoded.header.draft(), header);
}

#[test]
fn the_header_states_the_span_of_the_rows() {
    let stated_again = stated(&header(RecordKind::Event), &events(3));
    assert_eq!((stated_again.rows, stated_again.first_boot_ns, stated_again.last_boot_ns), (3, 4_462, 5_000));
}

#[test]
fn a_message_without_rows_carries_its_losses() {
    let stated_again = stated(&header(RecordKind::Event), &events(0));
    assert_eq!((stated_again.rows, stated_again.losses.emitted), (0, 10));
}

/// Rows of a kind with a value of its own in every cell, and every nullable cell empty in every third row.
fn rows_of(kind: RecordKind, n: i64) -> RecordBatch {
    let mut rows = Rows::new(kind);
    for row in 0..n {
        let fields = kind.fields().filter(|field| field.place == Place::Row);
        let filled = fields.filter(|field| !(field.nullable && row % 3 == 2));
        let cell = |field: &Field| {
            let number = i64::from(field.id) * 1_000 + row;
            let value = match field.kind {
                FieldType::Int | FieldType::Long | FieldType::Rising | FieldType::Timestamp => Value::Long(number),
                FieldType::Float | FieldType::Double => Value::Double(number as f64),
                FieldType::Word | FieldType::Id | FieldType::Text => {
                    Value::Text(format!("{} \u{b5} {number}", field.name))
                }
            };
            (field.name, value)
        };
        rows.push(filled.map(cell)).unwrap();
    }
    rows.finish().unwrap()
}

#[test]
fn every_kind_round_trips() {
    for kind in RecordKind::ALL {
        let batch = rows_of(kind, 7);
        let decoded = decode(&encode(&header(kind), &batch).unwrap()).unwrap();
        assert_eq!(decoded.batch, batch, "{kind:?}");
    }
}

#[test]
fn as_many_equal_rows_as_a_message_may_carry_round_trip() {
    let mut rows = EventRows::new();
    (0..ROWS_MAX).for_each(|_| rows.push(&Event { comm: Some("idle"), sample_weight: 1.0, ..Event::default() }));
    let batch = rows.finish().unwrap();
    let message = encode(&header(RecordKind::Event), &batch).unwrap();
    assert_eq!(decode(&message).unwrap().batch, batch, "packed to {} bytes", message.len());
}

#[test]
fn rows_of_another_kind_are_refused() {
    assert!(encode(&header(RecordKind::Stack), &events(1)).is_err());
}

#[test]
fn a_name_that_is_too_long_is_refused_by_name() {
    let long = HeaderDraft { node: "n".repeat(NAME_BYTES_MAX + 1), ..header(RecordKind::Event) };
    let refused = encode(&long, &events(1)).unwrap_err().to_string();
    assert!(refused.contains("`node`"), "{refused}");
}

#[test]
fn what_the_decoder_would_refuse_is_not_made() {
    let valid = header(RecordKind::Event);
    let nameless = HeaderDraft { node: String::new(), ..valid.clone() };
    assert!(matches!(encode(&nameless, &events(1)), Err(EncodeError::NoNode)));
    let before_all = HeaderDraft { epoch: -1, ..valid.clone() };
    assert!(matches!(encode(&before_all, &events(1)), Err(EncodeError::BadField { field: "epoch", value: -1 })));
    for (first_seq, is_made) in [(-1, false), (0, true), (i64::MAX - 3, true), (i64::MAX - 2, false)] {
        match super::encode(&valid, first_seq, &events(3)) {
            Ok(message) => assert!(is_made && decode(&message).is_ok(), "{first_seq}"),
            Err(EncodeError::BadField { field: "first_seq", value }) => assert!(!is_made && value == first_seq),
            Err(other) => panic!("{first_seq}: {other}"),
        }
    }
}

#[test]
fn an_unknown_version_is_named() {
    let mut bytes = encode(&header(RecordKind::Event), &events(1)).unwrap().to_vec();
    bytes[4] = 9;
    assert!(matches!(decode(&bytes), Err(WireError::UnknownVersion { version: 9 })));
}

#[test]
fn a_stream_that_this_build_does_not_know_is_refused_by_number() {
    let mut unknown = encode(&header(RecordKind::Event), &events(1)).unwrap().to_vec();
    unknown[24..28].copy_from_slice(&9_i32.to_le_bytes());
    let checksum = crc32c::crc32c(&unknown[12..]);
    unknown[8..12].copy_from_slice(&checksum.to_le_bytes());
    let refused = decode(&unknown).unwrap_err();
    assert!(matches!(refused, WireError::BadField { field: "stream", value: 9 }), "{refused}");
}

#[test]
fn one_flipped_bit_anywhere_is_noticed() {
    let message = encode(&header(RecordKind::Event), &events(40)).unwrap();
    for at in 0..message.len() {
        let mut damaged = message.to_vec();
        damaged[at] ^= 1 << (at % 8);
        assert!(decode(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    let message = encode(&header(RecordKind::Event), &events(40)).unwrap();
    for end in 0..message.len() {
        assert!(peek(&message[..end]).is_err(), "{end} bytes");
    }
}

/// A table keeps a file per day: one message must not make thousands.
#[test]
fn a_message_that_spans_years_is_neither_made_nor_read() {
    let spanning = |days: i64| {
        let mut rows = EventRows::new();
        for boot_ns in [0, days * DAY_NS] {
            rows.push(&Event { boot_ns, ..Event::default() });
        }
        encode(&header(RecordKind::Event), &rows.finish().unwrap())
    };
    let longest = spanning(DAYS_MAX).unwrap();
    assert!(decode(&longest).is_ok());
    assert!(matches!(spanning(DAYS_MAX + 1), Err(EncodeError::TooLong { .. })));
    let mut lying = longest.to_vec();
    // The header's last time, a day later than allowed.
    let at = longest.windows(8).position(|bytes| bytes == (DAYS_MAX * DAY_NS).to_le_bytes()).unwrap();
    lying[at..at + 8].copy_from_slice(&((DAYS_MAX + 1) * DAY_NS).to_le_bytes());
    let checksum = crc32c::crc32c(&lying[12..]);
    lying[8..12].copy_from_slice(&checksum.to_le_bytes());
    let refused = decode(&lying).unwrap_err();
    assert!(matches!(refused, WireError::BadField { field: "last_boot_ns", .. }), "{refused}");
}

proptest! {
    #[test]
    fn any_event_round_trips(
        start in any::<i64>(), later in prop::collection::vec(0..DAYS_MAX * DAY_NS, 0..60), source in any::<i32>(), arg in any::<i64>(), word in ".{0,20}",
    ) {
        let mut rows = EventRows::new();
        for boot_ns in later.into_iter().map(|later| start.saturating_add(later)) {
            rows.push(&Event { boot_ns, source, arg0: arg, comm: Some(&word), sample_weight: 2.5, ..Event::default() });
        }
        let batch = rows.finish().unwrap();
        let decoded = decode(&encode(&header(RecordKind::Event), &batch).unwrap()).unwrap();
        prop_assert_eq!(decoded.batch, batch);
    }
}
