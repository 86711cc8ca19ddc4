//! `ops.dlq`: messages that could not be decoded, with the cause and the bytes. The bytes go to the dead-letter
//! topic as well.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::arrival::Arrival;
use crate::columns::{binary, text, timestamp, words};
use crate::coordinates;
use crate::def::{ColumnType, Partition, TableDef, TableName, column};

pub fn def() -> TableDef {
    use ColumnType::{Binary, String, Timestamptz};
    TableDef {
        name: TableName { namespace: "ops", name: "dlq" },
        doc: "messages that could not be decoded",
        columns: Vec::from_iter(coordinates::columns().into_iter().chain([
            column(5, "cause", String, "short stable word for the reason").word(),
            column(6, "detail", String, "the reason in full"),
            column(7, "key", Binary, "key of the message").optional(),
            column(8, "payload", Binary, "value of the message, untouched").plain(),
            column(9, "ingested_at", Timestamptz, "when ingest read it first"),
        ])),
        partition: Partition::Day("ingested_at"),
        sort: coordinates::SORT,
        tiers: false,
    }
}

/// One row per rejected arrival.
///
/// # Errors
/// Only on a disagreement between this function and [`def`].
pub fn rows(arrivals: &[&Arrival]) -> Result<Vec<RecordBatch>, ArrowError> {
    let rejected: Vec<_> = arrivals.iter().filter_map(|a| a.outcome.as_ref().err().map(|r| (*a, r))).collect();
    if rejected.is_empty() {
        return Ok(Vec::new());
    }
    let messages = rejected.iter().map(|(arrival, _)| &arrival.message);
    let columns = coordinates::values(messages.clone()).into_iter().chain([
        words(rejected.iter().map(|(_, r)| Some(r.cause))),
        text(rejected.iter().map(|(_, r)| Some(&r.detail))),
        binary(messages.clone().map(|m| m.key.as_deref())),
        binary(messages.map(|m| Some(&*m.payload))),
        timestamp(rejected.iter().map(|(arrival, _)| arrival.arrived_us)),
    ]);
    Ok(Vec::from([RecordBatch::try_new(def().arrow_schema(), columns.collect())?]))
}
