//! `ops.ledger`: one row per message of the log: what it announced, what landed, what was lost before it. From this table alone
//! follow the audit, completeness, and the memory of what was seen before (recovery).

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use event_schema::loss::LossCounters;
use event_schema::wire::Header;

use crate::arrival::{Arrival, Skipped};
use crate::columns::{int, long, micros, same_int, same_long, same_word, timestamp, words};
use crate::coordinates;
use crate::def::{Column, ColumnType, Encoding, Partition, TableDef, TableName, column};

/// `status` of a message whose rows landed (perhaps none were new).
pub const LANDED: &str = "landed";
/// `status` of a message that could not be decoded.
pub const DEAD_LETTER: &str = "dead_letter";
/// `status` of offsets at which the log holds no message.
pub const SKIPPED: &str = "skipped";
/// `status` of a message that belongs to another partition: the copy of it that was written there has its rows.
pub const FORWARDED: &str = "forwarded";

pub fn def() -> TableDef {
    use ColumnType::{Int, Long, String, Timestamptz};
    let delta = |c: Column| Column { encoding: Encoding::Delta, ..c };
    let word = |c: Column| Column { dictionary: true, ..c };
    TableDef {
        name: TableName { namespace: "ops", name: "ledger" },
        doc: "the accounting of every message: announced, landed, duplicate, lost",
        columns: Vec::from_iter(coordinates::columns().into_iter().chain([
            word(column(
                5,
                "status",
                String,
                "`landed`, `dead_letter`, `skipped`, or `forwarded` to the partition it belongs to",
            )),
            word(Column {
                required: false,
                ..column(
                    6,
                    "cause",
                    String,
                    "why it is a dead letter; the partition it was forwarded to, as log/partition",
                )
            }),
            word(column(7, "cluster", String, "cluster of the node; empty for a dead letter")),
            word(column(8, "node", String, "node that made it; empty for a dead letter")),
            word(column(9, "boot_id", String, "boot of the node")),
            column(10, "epoch", Long, "run of the agent"),
            column(11, "stream", Int, "stream of the batch"),
            word(column(12, "kind", String, "kind of its records")),
            delta(column(13, "first_seq", Long, "sequence number of its first row")),
            delta(column(14, "rows", Long, "rows the header announced")),
            delta(column(15, "landed_rows", Long, "rows that were new and landed")),
            delta(column(
                16,
                "duplicate_rows",
                Long,
                "rows another message carried: an earlier one, or the forwarded copy",
            )),
            delta(column(17, "first_ts", Timestamptz, "wall time of its earliest row")),
            delta(column(18, "last_ts", Timestamptz, "wall time of its latest row")),
            column(19, "clock_error_ns", Long, "bound of the error of those times"),
            column(20, "emitted", Long, "records the probes made since the batch before; 0 for a duplicate message"),
            column(21, "ring_drop", Long, "of those, dropped in the kernel ring"),
            column(22, "shed", Long, "of those, shed under overload"),
            column(23, "sampled_out", Long, "of those, left out on purpose"),
            column(24, "spool_drop", Long, "of those, dropped at a full spool"),
            delta(column(25, "payload_bytes", Long, "size of the message")),
            word(column(26, "agent", String, "program that made it")),
            column(27, "ingested_at", Timestamptz, "when ingest read it first"),
            delta(column(
                28,
                "skipped_offsets",
                Long,
                "of a row that is `skipped`, how many offsets from its own on hold no message: markers and aborted messages of \
                 transactions, or compacted away; 0 of a message",
            )),
        ])),
        partition: Partition::Day("ingested_at"),
        sort: coordinates::SORT,
    }
}

/// One row per arrival, in order.
///
/// # Errors
/// Only on a disagreement between this function and [`def`].
pub fn rows(arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
    if arrivals.is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry<'_>> = arrivals.iter().map(|arrival| Entry::of(arrival)).collect();
    let message = |f: fn(&Entry<'_>) -> i64| long(entries.iter().map(f));
    let header = |f: fn(&Header) -> i64| long(entries.iter().map(|e| e.header.map_or(0, f)));
    let name = |f: fn(&Header) -> &str| words(entries.iter().map(|e| Some(e.header.map_or("", f))));
    let time = |f: fn(&Header) -> i64| {
        timestamp(entries.iter().map(|e| micros(e.header.map_or(0, |h| h.beacon.wall_ns_of(f(h))))))
    };
    let loss = |f: fn(&LossCounters) -> u64| long(entries.iter().map(|e| count(f(&e.losses))));
    let columns = coordinates::values(arrivals.iter().map(|arrival| &arrival.message)).into_iter().chain([
        words(entries.iter().map(|e| Some(e.status()))),
        words(entries.iter().map(|e| e.cause()).collect::<Vec<_>>().iter().map(Option::as_deref)),
        name(|h| &h.cluster),
        name(|h| &h.node),
        name(|h| &h.boot_id),
        header(|h| h.epoch),
        int(entries.iter().map(|e| e.header.map_or(0, |h| h.stream.number()))),
        name(|h| h.kind.name()),
        header(|h| h.first_seq),
        header(|h| i64::from(h.rows)),
        message(|e| count(e.arrival.fresh_rows())),
        message(|e| e.header.map_or(0, |h| i64::from(h.rows)) - count(e.arrival.fresh_rows())),
        time(|h| h.first_boot_ns),
        time(|h| h.last_boot_ns),
        header(|h| h.beacon.error_ns),
        loss(|l| l.emitted),
        loss(|l| l.ring_drop),
        loss(|l| l.shed),
        loss(|l| l.sampled_out),
        loss(|l| l.spool_drop),
        message(|e| i64::try_from(e.arrival.message.payload.len()).unwrap_or(i64::MAX)),
        name(|h| &h.agent),
        timestamp(entries.iter().map(|e| e.arrival.arrived_us)),
        message(|_| 0),
    ]);
    Ok(Vec::from([RecordBatch::try_new(def().arrow_schema(), columns.collect())?]))
}

/// One row per range of offsets at which the log holds no message.
///
/// # Errors
/// Only on a disagreement between this function and [`def`].
pub fn skip_rows(skipped: &[Skipped]) -> Result<RecordBatch, ArrowError> {
    let schema = def().arrow_schema();
    let ranges = || skipped.iter().map(|skipped| &skipped.range);
    let column = |field: &Arc<Field>| match field.name().as_str() {
        "log_name" => words(ranges().map(|range| Some(&*range.at.topic))),
        "log_partition" => int(ranges().map(|range| range.at.partition)),
        "log_offset" => long(ranges().map(|range| range.start)),
        "status" => same_word(SKIPPED, skipped.len()),
        "skipped_offsets" => long(ranges().map(|range| count(range.len()))),
        "log_ts" | "ingested_at" => timestamp(skipped.iter().map(|skipped| skipped.arrived_us)),
        _ => match field.data_type() {
            DataType::Int32 => same_int(0, skipped.len()),
            DataType::Int64 => same_long(0, skipped.len()),
            DataType::Timestamp(..) => timestamp(skipped.iter().map(|_| 0)),
            _ if field.is_nullable() => words(skipped.iter().map(|_| None)),
            _ => same_word("", skipped.len()),
        },
    };
    RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect())
}

struct Entry<'a> {
    arrival: &'a Arrival,
    header: Option<&'a Header>,
    /// What was emitted as these rows, and what was lost before them. A repetition adds nothing; of a message that was sent in
    /// two halves before, the rest adds its rows and no losses, which the first half reported.
    losses: LossCounters,
}

impl<'a> Entry<'a> {
    fn of(arrival: &'a Arrival) -> Self {
        let header = arrival.header();
        // Losses lie in front of the first row.
        let is_first_new = arrival.fresh.first().is_some_and(|range| range.start == 0);
        let before = header.filter(|_| is_first_new).map_or_else(LossCounters::default, |h| LossCounters {
            emitted: h.losses.emitted.saturating_sub(u64::from(h.rows)),
            ..h.losses
        });
        let losses = LossCounters { emitted: before.emitted.saturating_add(arrival.fresh_rows()), ..before };
        Self { arrival, header, losses }
    }

    fn status(&self) -> &'static str {
        match (&self.arrival.outcome, &self.arrival.forwarded_to) {
            (Err(_), _) => DEAD_LETTER,
            (Ok(_), Some(_)) => FORWARDED,
            (Ok(_), None) => LANDED,
        }
    }

    fn cause(&self) -> Option<Cow<'a, str>> {
        let rejected = self.arrival.outcome.as_ref().err().map(|rejection| Cow::Borrowed(rejection.cause));
        rejected.or_else(|| self.arrival.forwarded_to.as_ref().map(|home| Cow::Owned(home.to_string())))
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
