//! `bronze.messages`: one row per message of the log, payload untouched. Cheap to write, and everything else can be made from
//! it again, long after Kafka has forgotten.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::arrival::Arrival;
use crate::columns::{binary, int, long, text, timestamp, words};
use crate::def::{Column, ColumnType, Encoding, Partition, TableDef, TableName, column};

pub fn def() -> TableDef {
    use ColumnType::{Binary, Int, Long, String, Timestamptz};
    TableDef {
        name: TableName { namespace: "bronze", name: "messages" },
        doc: "messages of the log exactly as received",
        columns: vec![
            Column { dictionary: true, ..column(1, "topic", String, "topic of the message") },
            column(2, "kafka_partition", Int, "partition of the message"),
            Column { encoding: Encoding::Delta, ..column(3, "kafka_offset", Long, "offset of the message") },
            Column { encoding: Encoding::Delta, ..column(4, "kafka_ts", Timestamptz, "time the broker gave it") },
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
            column(9, "ingested_at", Timestamptz, "when it landed here"),
        ],
        partition: Partition::Day("ingested_at"),
        sort: &["kafka_partition", "kafka_offset"],
    }
}

/// One row per arrival, in order.
///
/// # Errors
/// Only on a disagreement between this function and [`def`].
pub fn rows(arrivals: &[Arrival], ingested_us: i64) -> Result<Vec<RecordBatch>, ArrowError> {
    if arrivals.is_empty() {
        return Ok(Vec::new());
    }
    let messages = || arrivals.iter().map(|a| &a.message);
    let codec = |a: &Arrival| if a.outcome.is_ok() { "causeway.v1" } else { "unknown" };
    let batch = RecordBatch::try_new(
        def().arrow_schema(),
        vec![
            words(messages().map(|m| Some(&*m.at.topic))),
            int(messages().map(|m| m.at.partition)),
            long(messages().map(|m| m.offset)),
            timestamp(messages().map(|m| m.timestamp_ms.saturating_mul(1_000))),
            binary(messages().map(|m| m.key.as_deref())),
            binary(messages().map(|m| Some(&*m.payload))),
            text(messages().map(|m| headers_json(&m.headers))),
            words(arrivals.iter().map(|a| Some(codec(a)))),
            timestamp(arrivals.iter().map(|_| ingested_us)),
        ],
    )?;
    Ok(Vec::from([batch]))
}

/// In order, and with repetitions, as Kafka has them. Values are bytes: hexadecimal keeps them exact in a text column.
fn headers_json(headers: &[(String, bytes::Bytes)]) -> Option<String> {
    let hexadecimal = |value: &[u8]| value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let pair = |(name, value): &(String, bytes::Bytes)| serde_json::json!([name, hexadecimal(value)]);
    (!headers.is_empty()).then(|| headers.iter().map(pair).collect::<serde_json::Value>().to_string())
}
