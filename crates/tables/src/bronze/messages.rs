//! `bronze.messages`: one row per message of the log, payload untouched. Cheap to write, and everything else can be
//! made from it again, also after Kafka's retention has deleted the message.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::arrival::Arrival;
use crate::columns::{binary, text, timestamp, words};
use crate::coordinates;
use crate::def::{ColumnType, Partition, TableDef, TableName, column};

pub fn def() -> TableDef {
    use ColumnType::{Binary, String, Timestamptz};
    TableDef {
        name: TableName { namespace: "bronze", name: "messages" },
        doc: "messages of the log exactly as received",
        columns: Vec::from_iter(coordinates::columns().into_iter().chain([
            column(5, "key", Binary, "key of the message").optional(),
            column(6, "payload", Binary, "value of the message, untouched").plain(),
            column(7, "headers", String, "headers of the message, JSON: [[name, value in hexadecimal], …]").optional(),
            column(8, "codec", String, "what the payload is: `causeway.v1`, or `unknown`").word(),
            column(9, "ingested_at", Timestamptz, "when ingest read it first"),
        ])),
        partition: Partition::Day("ingested_at"),
        sort: coordinates::SORT,
        tiers: true,
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
    let messages = arrivals.iter().map(|a| &a.message);
    let columns = coordinates::values(messages.clone()).into_iter().chain([
        binary(messages.clone().map(|m| m.key.as_deref())),
        // The bytes as they came and not as they decode: what this build cannot read, a later one may.
        binary(messages.clone().map(|m| Some(&*m.payload))),
        text(messages.map(|m| headers_json(&m.headers))),
        words(arrivals.iter().map(|arrival| Some(arrival.codec.name()))),
        timestamp(arrivals.iter().map(|arrival| arrival.arrived_us)),
    ]);
    Ok(Vec::from([RecordBatch::try_new(def().arrow_schema(), columns.collect())?]))
}

/// In order, and with repetitions, as Kafka has them. Values are bytes: hexadecimal keeps them exact in a text column.
fn headers_json(headers: &[(String, bytes::Bytes)]) -> Option<String> {
    if headers.is_empty() {
        // Null and not `[]`, which keeps the column empty for the usual message.
        return None;
    }
    // An array and not an object: Kafka allows a name twice, and JSON objects leave that undefined (RFC 8259, section
    // 4).
    let pairs = headers.iter().map(|(name, value)| serde_json::json!([name, hexadecimal(value)]));
    Some(pairs.collect::<serde_json::Value>().to_string())
}

fn hexadecimal(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}
