//! `gold.op_minute`: partial aggregates per minute and the columns that dashboards group by. A minute may have many
//! rows, one per commit in which events of it came (ADR 16). Counts and sums add, minima and maxima combine, sketches
//! merge, in any order.

mod fold;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Int32Array, Int64Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::ArrowPrimitiveType;
use arrow::error::ArrowError;
use event_schema::kind::RecordKind;
use event_schema::sketch::Sketch;
use event_schema::wire::Header;

use crate::arrival::Arrival;
use crate::columns::{binary, int, long, timestamp, words};
use crate::def::{ColumnType, Partition, TableDef, TableName, column};

pub use fold::{Conserved, Difference, fold};
/// Version of [`rows`] ([`crate::registry::Table::refine_version`]).
pub const REFINE_VERSION: u32 = 1;

const MINUTE_US: i64 = 60_000_000;

pub fn def() -> TableDef {
    use ColumnType::{Binary, Int, Long, String, Timestamptz};
    TableDef {
        name: TableName { namespace: "gold", name: "op_minute" },
        doc: "partial aggregates of operations per minute; rows of one key merge",
        columns: vec![
            column(1, "minute", Timestamptz, "start of the minute"),
            column(2, "cluster", String, "cluster of the node").word(),
            column(3, "node", String, "node").word(),
            column(4, "rank", Int, "rank of the process").optional(),
            column(5, "pid", Int, "process"),
            column(6, "source", Int, "where it was observed"),
            column(7, "op", Int, "what happened"),
            column(8, "size_class", Int, "0 without bytes, else 1 + floor(log2(bytes))"),
            column(9, "count", Long, "events, each counted with its sample weight"),
            column(10, "sum_duration_ns", Long, "sum of measured durations, each times its weight; null without any")
                .optional(),
            column(11, "min_duration_ns", Long, "shortest measured; null without any").optional(),
            column(12, "max_duration_ns", Long, "longest measured; null without any").optional(),
            column(13, "sum_bytes", Long, "sum of bytes"),
            column(14, "sketch", Binary, "mergeable quantile sketch of measured durations, 1 % relative error").plain(),
            column(
                15,
                "timed",
                Long,
                "events that the measured durations stand for; sum_duration_ns / timed is their mean",
            ),
        ],
        partition: Partition::Day("minute"),
        sort: &["node", "minute"],
        tiers: false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    /// Which (cluster, node) of this batch.
    origin: usize,
    minute_us: i64,
    rank: Option<i32>,
    pid: i32,
    source: i32,
    op: i32,
    size_class: i32,
}

#[derive(Debug, Clone, Default)]
struct Total {
    count: u64,
    sum_bytes: i64,
    /// Of the events with a duration; absent while there is none.
    durations: Option<Durations>,
    sketch: Sketch,
}

#[derive(Debug, Clone, Copy)]
struct Durations {
    /// Events that the durations stand for.
    timed: u64,
    sum_ns: i64,
    min_ns: i64,
    max_ns: i64,
}

impl Total {
    fn add_event(&mut self, bytes: i64, weight: u64) {
        self.count = self.count.saturating_add(weight);
        self.sum_bytes = self.sum_bytes.saturating_add(times(bytes, weight));
    }

    fn add_duration(&mut self, ns: i64, weight: u64) {
        // The first duration is the minimum and the maximum; 0 as a start would be a minimum that was never measured.
        let sum = self.durations.get_or_insert(Durations { timed: 0, sum_ns: 0, min_ns: ns, max_ns: ns });
        sum.timed = sum.timed.saturating_add(weight);
        sum.sum_ns = sum.sum_ns.saturating_add(times(ns, weight));
        sum.min_ns = sum.min_ns.min(ns);
        sum.max_ns = sum.max_ns.max(ns);
        self.sketch.add(ns, weight);
    }

    fn duration(&self, of: fn(&Durations) -> i64) -> Option<i64> {
        self.durations.as_ref().map(of)
    }
}

fn times(value: i64, weight: u64) -> i64 {
    value.saturating_mul(i64::try_from(weight).unwrap_or(i64::MAX))
}

/// Aggregates of the events among the arrivals: one batch, ordered by its key.
///
/// # Errors
/// Only if a decoded batch does not have the schema of events, which the codec rules out.
pub fn rows(arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut origins: Vec<(&str, &str)> = Vec::new();
    let mut totals: HashMap<Key, Total> = HashMap::new();
    let events = arrivals.iter().filter(|a| a.header().is_some_and(|h| h.kind == RecordKind::Event));
    for (header, batch, _) in events.flat_map(|arrival| arrival.slices()) {
        // An index in the key and not two strings: a key is made and hashed for every row.
        let origin = (header.cluster.as_str(), header.node.as_str());
        let at = origins.iter().position(|o| *o == origin).unwrap_or_else(|| {
            origins.push(origin);
            origins.len() - 1
        });
        Measures::of(&batch)?.add_to(&mut totals, at, header);
    }
    if totals.is_empty() {
        return Ok(Vec::new());
    }
    // In a fixed order: a hash map has a random one, and the same batch must give the same rows on every attempt.
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_unstable_by_key(|(key, _)| (origins[key.origin].1, *key));
    Ok(Vec::from([batch(&origins, &totals)?]))
}

/// The columns of an event batch that are aggregated.
struct Measures<'a> {
    boot_ns: &'a Int64Array,
    source: &'a Int32Array,
    op: &'a Int32Array,
    duration_ns: &'a Int64Array,
    pid: &'a Int32Array,
    rank: &'a Int32Array,
    bytes: &'a Int64Array,
    weight: &'a Float32Array,
    duration_weight: &'a Float32Array,
}

impl<'a> Measures<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            boot_ns: numbers(batch, "boot_ns")?,
            source: numbers(batch, "source")?,
            op: numbers(batch, "op")?,
            duration_ns: numbers(batch, "duration_ns")?,
            pid: numbers(batch, "pid")?,
            rank: numbers(batch, "rank")?,
            bytes: numbers(batch, "bytes")?,
            weight: numbers(batch, "sample_weight")?,
            duration_weight: numbers(batch, "duration_weight")?,
        })
    }

    fn add_to(&self, totals: &mut HashMap<Key, Total>, origin: usize, header: &Header) {
        for i in 0..self.boot_ns.len() {
            let bytes = if self.bytes.is_valid(i) { self.bytes.value(i) } else { 0 };
            // By wall time, so that minutes of different nodes can be added. Floored, as everywhere, also before 1970.
            let ts_us = header.beacon.wall_ns_of(self.boot_ns.value(i)).div_euclid(1_000);
            let key = Key {
                origin,
                minute_us: minute_of(ts_us),
                rank: self.rank.is_valid(i).then(|| self.rank.value(i)),
                pid: self.pid.value(i),
                source: self.source.value(i),
                op: self.op.value(i),
                size_class: size_class(bytes),
            };
            let total = totals.entry(key).or_default();
            total.add_event(bytes, events_of(self.weight.value(i)));
            // A duration that was not measured counts in no sum and no percentile; 0 would draw them down.
            if self.duration_ns.is_valid(i) {
                // Its own weight: a duration may stand for more events than its row, where only a sample of calls is
                // timed.
                total.add_duration(self.duration_ns.value(i), events_of(self.duration_weight.value(i)));
            }
        }
    }
}

fn numbers<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<&'a PrimitiveArray<T>, ArrowError> {
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| ArrowError::SchemaError(format!("a batch of events has no `{name}`")))?;
    column
        .as_primitive_opt()
        .ok_or_else(|| ArrowError::SchemaError(format!("`{name}` of a batch of events has another type")))
}

/// The events that a row of this sample weight stands for, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there is no other conversion of a float: `as` saturates, which is what is wanted"
)]
pub fn events_of(sample_weight: f32) -> u64 {
    // `max` discards a NaN, and the cast saturates: a weight from the wire always gives a count.
    f64::from(sample_weight).round().max(1.0) as u64
}

/// Start of the minute, unix microseconds.
pub fn minute_of(ts_us: i64) -> i64 {
    // `rem_euclid` is not negative, so that times before 1970 go to the minute they lie in.
    ts_us - ts_us.rem_euclid(MINUTE_US)
}

/// 0 without bytes, else 1 + floor(log2(bytes)).
pub fn size_class(bytes: i64) -> i32 {
    // Negative sizes have no `u64`, and 0 has no logarithm: both are class 0.
    u64::try_from(bytes).ok().and_then(u64::checked_ilog2).map_or(0, |log| 1 + log.cast_signed())
}

fn keys(totals: &[(Key, Total)], of: fn(&Key) -> i32) -> ArrayRef {
    int(totals.iter().map(|(key, _)| of(key)))
}

fn sums(totals: &[(Key, Total)], of: fn(&Total) -> i64) -> ArrayRef {
    long(totals.iter().map(|(_, total)| of(total)))
}

/// Null where no event has a duration.
fn durations(totals: &[(Key, Total)], of: fn(&Durations) -> i64) -> ArrayRef {
    Arc::new(totals.iter().map(|(_, total)| total.duration(of)).collect::<Int64Array>())
}

fn batch(origins: &[(&str, &str)], totals: &[(Key, Total)]) -> Result<RecordBatch, ArrowError> {
    let sketches: Vec<Vec<u8>> = totals.iter().map(|(_, t)| t.sketch.to_bytes()).collect();
    RecordBatch::try_new(
        def().arrow_schema(),
        vec![
            timestamp(totals.iter().map(|(k, _)| k.minute_us)),
            words(totals.iter().map(|(k, _)| Some(origins[k.origin].0))),
            words(totals.iter().map(|(k, _)| Some(origins[k.origin].1))),
            Arc::new(totals.iter().map(|(k, _)| k.rank).collect::<Int32Array>()),
            keys(totals, |k| k.pid),
            keys(totals, |k| k.source),
            keys(totals, |k| k.op),
            keys(totals, |k| k.size_class),
            sums(totals, |t| i64::try_from(t.count).unwrap_or(i64::MAX)),
            durations(totals, |d| d.sum_ns),
            durations(totals, |d| d.min_ns),
            durations(totals, |d| d.max_ns),
            sums(totals, |t| t.sum_bytes),
            binary(sketches.iter().map(|s| Some(s.as_slice()))),
            sums(totals, |t| t.durations.map_or(0, |d| i64::try_from(d.timed).unwrap_or(i64::MAX))),
        ],
    )
}
