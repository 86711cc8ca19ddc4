//! `bronze.messages`: one row per message of the log, payload untouched. Cheap to write, and everything else can be made from
//! it again, long after Kafka has forgotten.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::arrival::Arrival;
use crate::columns::{binary, text, timestamp, words};
use crate::coordinates;
use crate::def::{Column, ColumnType, Encoding, Partition, TableDef, TableName, column};

pub fn def() -> TableDef {
    use ColumnType::{Binary, String, Timestamptz};
    TableDef {
        name: TableName { namespace: "bronze", name: "messages" },
        doc: "messages of the log exactly as received",
        columns: Vec::from_iter(coordinates::columns().into_iter().chain([
            Column { required: false, ..column(5, "key", Binary, "key of the message") },
            Column { encoding: Encoding::Plain, ..column(6, "payload", Binary, "value of the message, untouched") },
            Column {
                required: false,
                ..column(7, "headers", String, "headers of the message, JSON: [[name, value in hexadecimal], …]")
            },
            Column {
                dictionary: true,
                ..column(8, "codec", String, "what the payload is: `causeway.v1`, or `unknown`")
            },
            column(9, "ingested_at", Timestamptz, "when ingest read it first"),
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
    let messages = || arrivals.iter().map(|a| &a.message);
    let columns = coordinates::values(messages()).into_iter().chain([
        binary(messages().map(|m| m.key.as_deref())),
        binary(messages().map(|m| Some(&*m.payload))),
        text(messages().map(|m| headers_json(&m.headers))),
        words(arrivals.iter().map(|arrival| Some(arrival.codec.name()))),
        timestamp(arrivals.iter().map(|arrival| arrival.arrived_us)),
    ]);
    Ok(Vec::from([RecordBatch::try_new(def().arrow_schema(), columns.collect())?]))
}

/// In order, and with repetitions, as Kafka has them. Values are bytes: hexadecimal keeps them exact in a text column.
fn headers_json(headers: &[(String, bytes::Bytes)]) -> Option<String> {
    let hexadecimal = |value: &[u8]| value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pair = |(name, value): &(String, bytes::Bytes)| serde_json::json!([name, hexadecimal(value)]);
    (!headers.is_empty()).then(|| headers.iter().map(pair).collect::<serde_json::Value>().to_string())
}
