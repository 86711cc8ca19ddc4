//! `ops.ledger`: one row per message of the log: what it announced, what landed, what was lost before it. The audit,
//! completeness, and the recovery of what was seen before rest on this table.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use event_schema::loss::LossCounters;
use event_schema::wire::Header;

use crate::arrival::{Arrival, Skipped};
use crate::columns::{int, long, micros, same_int, same_long, same_word, timestamp, words};
use crate::coordinates;
use crate::def::{ColumnType, Partition, TableDef, TableName, column};

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
    TableDef {
        name: TableName { namespace: "ops", name: "ledger" },
        doc: "the accounting of every message: announced, landed, duplicate, lost",
        columns: Vec::from_iter(coordinates::columns().into_iter().chain([
            column(
                5,
                "status",
                String,
                "`landed`, `dead_letter`, `skipped`, or `forwarded` to the partition it belongs to",
            )
            .word(),
            column(6, "cause", String, "why it is a dead letter; the partition it was forwarded to, as log/partition")
                .word()
                .optional(),
            column(7, "cluster", String, "cluster of the node; empty for a dead letter").word(),
            column(8, "node", String, "node that made it; empty for a dead letter").word(),
            column(9, "boot_id", String, "boot of the node").word(),
            column(10, "epoch", Long, "run of the agent"),
            column(11, "stream", Int, "stream of the batch"),
            column(12, "kind", String, "kind of its records").word(),
            column(13, "first_seq", Long, "sequence number of its first row").delta(),
            column(14, "rows", Long, "rows the header announced").delta(),
            column(15, "landed_rows", Long, "rows that were new and landed").delta(),
            column(
                16,
                "duplicate_rows",
                Long,
                "rows another message carried: an earlier one, or the forwarded copy",
            )
            .delta(),
            column(17, "first_ts", Timestamptz, "wall time of its earliest row").delta(),
            column(18, "last_ts", Timestamptz, "wall time of its latest row").delta(),
            column(19, "clock_error_ns", Long, "bound of the error of those times"),
            column(20, "emitted", Long, "records the probes made since the batch before; 0 for a duplicate message"),
            column(21, "ring_drop", Long, "of those, dropped in the kernel ring"),
            column(22, "shed", Long, "of those, shed under overload"),
            column(23, "sampled_out", Long, "of those, left out on purpose"),
            column(24, "spool_drop", Long, "of those, dropped at a full spool"),
            column(25, "payload_bytes", Long, "size of the message").delta(),
            column(26, "agent", String, "program that made it").word(),
            column(27, "ingested_at", Timestamptz, "when ingest read it first"),
            column(
                28,
                "skipped_offsets",
                Long,
                "of a row that is `skipped`, how many offsets from its own on hold no message: markers and aborted messages of \
                 transactions, or compacted away; 0 of a message",
            )
            .delta(),
        ])),
        partition: Partition::Day("ingested_at"),
        sort: coordinates::SORT,
        tiers: false,
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
    let columns = coordinates::values(arrivals.iter().map(|arrival| &arrival.message)).into_iter().chain([
        words(entries.iter().map(|e| Some(e.status()))),
        words(entries.iter().map(|e| e.cause()).collect::<Vec<_>>().iter().map(Option::as_deref)),
        names(&entries, |h| &h.cluster),
        names(&entries, |h| &h.node),
        names(&entries, |h| &h.boot_id),
        numbers(&entries, |h| h.epoch),
        int(entries.iter().map(|e| e.header.map_or(0, |h| h.stream.number()))),
        names(&entries, |h| h.kind.name()),
        numbers(&entries, |h| h.first_seq),
        numbers(&entries, |h| i64::from(h.rows)),
        long(entries.iter().map(|e| count(e.arrival.fresh_rows()))),
        long(entries.iter().map(|e| e.header.map_or(0, |h| i64::from(h.rows)) - count(e.arrival.fresh_rows()))),
        // From the header, whose times were compared with the rows when it was decoded. They span all rows, the
        // repeated ones included.
        times(&entries, |h| h.first_boot_ns),
        times(&entries, |h| h.last_boot_ns),
        numbers(&entries, |h| h.beacon.error_ns),
        losses(&entries, |l| l.emitted),
        losses(&entries, |l| l.ring_drop),
        losses(&entries, |l| l.shed),
        losses(&entries, |l| l.sampled_out),
        losses(&entries, |l| l.spool_drop),
        long(entries.iter().map(|e| i64::try_from(e.arrival.message.payload.len()).unwrap_or(i64::MAX))),
        names(&entries, |h| &h.agent),
        timestamp(entries.iter().map(|e| e.arrival.arrived_us)),
        same_long(0, entries.len()),
    ]);
    Ok(Vec::from([RecordBatch::try_new(def().arrow_schema(), columns.collect())?]))
}

/// One row per range of offsets at which the log holds no message.
///
/// # Errors
/// Only on a disagreement between this function and [`def`].
pub fn skip_rows(skipped: &[Skipped]) -> Result<RecordBatch, ArrowError> {
    let schema = def().arrow_schema();
    let columns = schema.fields().iter().map(|field| skip_column(field, skipped));
    RecordBatch::try_new(Arc::clone(&schema), columns.collect())
}

/// What skipped offsets do not have is 0, empty or null.
fn skip_column(field: &Field, skipped: &[Skipped]) -> ArrayRef {
    let ranges = skipped.iter().map(|skipped| &skipped.range);
    match field.name().as_str() {
        "log_name" => words(ranges.map(|range| Some(&*range.at.topic))),
        "log_partition" => int(ranges.map(|range| range.at.partition)),
        "log_offset" => long(ranges.map(|range| range.start)),
        "status" => same_word(SKIPPED, skipped.len()),
        "skipped_offsets" => long(ranges.map(|range| count(range.len()))),
        // The log has no time for an offset without a message: that of passing it stands in, which also chooses the day
        // of the partition.
        "log_ts" | "ingested_at" => timestamp(skipped.iter().map(|skipped| skipped.arrived_us)),
        // By type and not by name: a column that is added later needs no entry here.
        _ => match field.data_type() {
            DataType::Int32 => same_int(0, skipped.len()),
            DataType::Int64 => same_long(0, skipped.len()),
            DataType::Timestamp(..) => timestamp(skipped.iter().map(|_| 0)),
            _ if field.is_nullable() => words(skipped.iter().map(|_| None)),
            _ => same_word("", skipped.len()),
        },
    }
}

struct Entry<'a> {
    arrival: &'a Arrival,
    header: Option<&'a Header>,
    /// What was emitted as these rows, and what was lost before them. A repetition adds nothing; of a message that was
    /// sent in two halves before, the rest adds its rows and no losses, which the first half reported.
    losses: LossCounters,
}

impl<'a> Entry<'a> {
    fn of(arrival: &'a Arrival) -> Self {
        let header = arrival.header();
        // Losses lie in front of the first row.
        let is_first_new = arrival.fresh.first().is_some_and(|range| range.start == 0);
        // `emitted` of a header includes its rows; without them it is what was emitted and lost before the first.
        let before = header.filter(|_| is_first_new).map_or_else(LossCounters::default, |h| LossCounters {
            emitted: h.losses.emitted.saturating_sub(u64::from(h.rows)),
            ..h.losses
        });
        // With the new rows only, so that the sum over all messages counts each row once and the ledger closes.
        let losses = LossCounters { emitted: before.emitted.saturating_add(arrival.fresh_rows()), ..before };
        Self { arrival, header, losses }
    }

    fn status(&self) -> &'static str {
        match (&self.arrival.outcome, &self.arrival.forwarded_to) {
            (Err(_), _) => DEAD_LETTER,
            // No row of it is fresh, so that its losses are counted at its home alone.
            (Ok(_), Some(_)) => FORWARDED,
            (Ok(_), None) => LANDED,
        }
    }

    fn cause(&self) -> Option<Cow<'a, str>> {
        // One column for both, since a message is a dead letter or forwarded, never both.
        let rejected = self.arrival.outcome.as_ref().err().map(|rejection| Cow::Borrowed(rejection.cause));
        rejected.or_else(|| self.arrival.forwarded_to.as_ref().map(|home| Cow::Owned(home.to_string())))
    }
}

/// 0 for a dead letter, which has no header.
fn numbers(entries: &[Entry<'_>], of: fn(&Header) -> i64) -> ArrayRef {
    long(entries.iter().map(|e| e.header.map_or(0, of)))
}

/// Empty for a dead letter, which has no header.
fn names(entries: &[Entry<'_>], of: fn(&Header) -> &str) -> ArrayRef {
    words(entries.iter().map(|e| Some(e.header.map_or("", of))))
}

/// Wall times of boot times of the headers.
fn times(entries: &[Entry<'_>], boot_ns_of: fn(&Header) -> i64) -> ArrayRef {
    let wall_ns = entries.iter().map(|e| e.header.map_or(0, |h| h.beacon.wall_ns_of(boot_ns_of(h))));
    timestamp(wall_ns.map(micros))
}

fn losses(entries: &[Entry<'_>], of: fn(&LossCounters) -> u64) -> ArrayRef {
    long(entries.iter().map(|e| count(of(&e.losses))))
}

fn count(n: u64) -> i64 {
    // Iceberg has no unsigned type. Counters of a header are not trusted, so that they may be larger.
    i64::try_from(n).unwrap_or(i64::MAX)
}
