//! What an agent has left in its spool, decoded and held against the ledger.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use event_schema::catalog::Source;
use event_schema::identity::first_seq;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::TopicPartition;
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{self, Decoded};
use stream::log::LogReader;

/// All messages of both topics.
pub(crate) fn read(dir: &Path) -> Vec<Decoded> {
    let mut messages = Vec::new();
    for topic in topics::READ {
        let mut reader = LogReader::resume(dir, &TopicPartition::new(topic, 0)).unwrap();
        let read = reader.read(usize::MAX).unwrap();
        messages.extend(read.iter().map(|message| wire::decode(&message.payload).unwrap()));
    }
    messages
}

/// Per epoch and stream: numbers are contiguous, and emitted = rows + losses. Returns the sum over the event streams.
pub(crate) fn check_ledger(messages: &[Decoded], epoch: i64) -> (u64, LossCounters) {
    let mut next: BTreeMap<Stream, i64> = BTreeMap::new();
    let (mut rows, mut reported) = (0, LossCounters::default());
    for Decoded { header, batch, .. } in messages.iter().filter(|message| message.header.epoch == epoch) {
        let next = next.entry(header.stream).or_insert_with(|| first_seq(epoch, header.stream).unwrap());
        assert_eq!(header.first_seq, *next, "epoch {epoch}, stream {}", header.stream);
        *next += batch.num_rows() as i64;
        if header.kind == RecordKind::Event {
            rows += batch.num_rows() as u64;
            reported += header.losses;
        }
    }
    assert_eq!(reported.emitted, rows + reported.lost(), "epoch {epoch}");
    (rows, reported)
}

/// One row of the columns that tests look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) source: i32,
    pub(crate) op: i32,
    pub(crate) pid: i32,
    pub(crate) rank: Option<i32>,
    pub(crate) job_id: Option<String>,
    pub(crate) arg0: i64,
    pub(crate) arg1: i64,
    pub(crate) bytes: Option<i64>,
}

pub(crate) fn rows(messages: &[Decoded]) -> Vec<Row> {
    let mut rows = Vec::new();
    for Decoded { batch, .. } in messages.iter().filter(|message| message.header.kind == RecordKind::Event) {
        let column = |name| batch.column_by_name(name).unwrap();
        let int = |name| column(name).as_primitive::<Int32Type>();
        let long = |name| column(name).as_primitive::<Int64Type>();
        let (source, op, pid, rank) = (int("source"), int("op"), int("pid"), int("rank"));
        let (arg0, arg1, bytes) = (long("arg0"), long("arg1"), long("bytes"));
        let job = column("job_id").as_dictionary::<Int32Type>();
        let words = job.values().as_string::<i32>();
        for i in 0..batch.num_rows() {
            rows.push(Row {
                source: source.value(i),
                op: op.value(i),
                pid: pid.value(i),
                rank: rank.is_valid(i).then(|| rank.value(i)),
                job_id: job.key(i).map(|key| words.value(key).to_owned()),
                arg0: arg0.value(i),
                arg1: arg1.value(i),
                bytes: bytes.is_valid(i).then(|| bytes.value(i)),
            });
        }
    }
    rows
}

/// Rows of calls into the probed libraries, per source and operation.
pub(crate) fn calls(rows: &[Row]) -> BTreeMap<(i32, i32), u64> {
    let sources = [Source::Cuda, Source::Driver, Source::Nccl].map(Source::number);
    let mut calls = BTreeMap::new();
    for row in rows.iter().filter(|row| sources.contains(&row.source)) {
        *calls.entry((row.source, row.op)).or_default() += 1;
    }
    calls
}
