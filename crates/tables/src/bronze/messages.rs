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
                ..column(7, "headers", String, "headers of the message, JSON object of hexadecimal strings")
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

/// Header values are bytes; hexadecimal keeps them exact in a text column.
fn headers_json(headers: &[(String, bytes::Bytes)]) -> Option<String> {
    use std::fmt::Write;
    if headers.is_empty() {
        return None;
    }
    let mut out = String::from("{");
    for (i, (name, value)) in headers.iter().enumerate() {
        let separator = if i == 0 { "" } else { "," };
        let name: String = name.chars().flat_map(char::escape_default).collect();
        let _ = write!(out, "{separator}\"{name}\":\"");
        for byte in value {
            let _ = write!(out, "{byte:02x}");
        }
        out.push('"');
    }
    out.push('}');
    Some(out)
}
