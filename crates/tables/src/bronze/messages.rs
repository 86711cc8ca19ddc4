//! `bronze.messages`: one row per message of the log, payload untouched. Cheap to write, and everything else can be
//! made from it again, also after Kafka's retention has deleted the message: [`Remembered`] reads a row back.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};

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
fn headers_json(headers: &[(String, Bytes)]) -> Option<String> {
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

/// Reads a value of [`rows`]' column `headers` back.
///
/// # Errors
/// The text is not what [`rows`] writes.
pub fn headers_of(json: &str) -> Result<Vec<(String, Bytes)>, ArrowError> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json)
        .map_err(|error| ArrowError::JsonError(format!("`headers` are not pairs: {error}")))?;
    pairs.into_iter().map(|(name, value)| Ok((name, bytes_of(&value)?))).collect()
}

fn bytes_of(hexadecimal: &str) -> Result<Bytes, ArrowError> {
    let digits: Option<Vec<u32>> = hexadecimal.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits.filter(|digits| digits.len() % 2 == 0);
    let malformed = || ArrowError::ParseError("a value in `headers` is not hexadecimal".to_owned());
    let pairs = pairs.ok_or_else(malformed)?;
    let bytes = pairs.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]));
    bytes.collect::<Result<_, _>>().map_err(|_| malformed())
}

/// The columns that [`Remembered`] reads; select these.
pub const REMEMBERED: [&str; 8] =
    ["log_name", "log_partition", "log_offset", "log_ts", "key", "payload", "headers", "ingested_at"];

/// Messages as a batch of [`REMEMBERED`] holds them. A message is copied out of the batch when it is asked for.
#[derive(Debug)]
pub struct Remembered {
    rows: usize,
    log: StringArray,
    partition: Int32Array,
    offset: Int64Array,
    time_us: TimestampMicrosecondArray,
    key: BinaryArray,
    payload: BinaryArray,
    headers: StringArray,
    arrived_us: TimestampMicrosecondArray,
}

impl Remembered {
    /// Finds the columns of a batch by name.
    ///
    /// # Errors
    /// A column is absent or has another type than this version writes.
    pub fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            rows: batch.num_rows(),
            log: texts(batch, "log_name")?,
            partition: numbers::<Int32Type>(batch, "log_partition")?,
            offset: numbers::<Int64Type>(batch, "log_offset")?,
            time_us: numbers::<TimestampMicrosecondType>(batch, "log_ts")?,
            key: binaries(batch, "key")?,
            payload: binaries(batch, "payload")?,
            headers: texts(batch, "headers")?,
            arrived_us: numbers::<TimestampMicrosecondType>(batch, "ingested_at")?,
        })
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The log and partition of a message.
    pub fn at(&self, row: usize) -> TopicPartition {
        TopicPartition::new(self.log.value(row), self.partition.value(row))
    }

    /// The offset of a message.
    pub fn offset(&self, row: usize) -> i64 {
        self.offset.value(row)
    }

    /// When ingest read the message first, unix microseconds.
    pub fn arrived_us(&self, row: usize) -> i64 {
        self.arrived_us.value(row)
    }

    /// The message, as the log held it.
    ///
    /// # Errors
    /// Its headers are not what [`rows`] writes.
    pub fn message(&self, row: usize) -> Result<Message, ArrowError> {
        let headers = self.headers.is_valid(row).then(|| headers_of(self.headers.value(row)));
        Ok(Message {
            at: self.at(row),
            offset: self.offset(row),
            // The log counts milliseconds; the column has them as microseconds.
            timestamp_ms: self.time_us.value(row).div_euclid(1_000),
            key: self.key.is_valid(row).then(|| Bytes::copy_from_slice(self.key.value(row))),
            // Copied: a slice would keep the payloads of the whole batch in memory.
            payload: Bytes::copy_from_slice(self.payload.value(row)),
            headers: headers.transpose()?.unwrap_or_default(),
        })
    }
}

fn found<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("bronze.messages has no `{name}`")))
}

fn other_type(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("`{name}` of bronze.messages has another type than this version writes"))
}

fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray, ArrowError> {
    // Words are dictionaries where rows are made, and plain strings where they are read back.
    let plain = cast(found(batch, name)?, &DataType::Utf8)?;
    plain.as_string_opt::<i32>().cloned().ok_or_else(|| other_type(name))
}

fn binaries(batch: &RecordBatch, name: &str) -> Result<BinaryArray, ArrowError> {
    found(batch, name)?.as_binary_opt::<i32>().cloned().ok_or_else(|| other_type(name))
}

fn numbers<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Result<PrimitiveArray<T>, ArrowError> {
    found(batch, name)?.as_primitive_opt::<T>().cloned().ok_or_else(|| other_type(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64, key: Option<&'static [u8]>, headers: Vec<(String, Bytes)>) -> Arrival {
        let at = TopicPartition::new("t@2", 3);
        let payload = Bytes::from_static(b"CSWY\x00\xff");
        let message = Message { at, offset, timestamp_ms: -1, key: key.map(Bytes::from_static), payload, headers };
        Arrival::decode(message, 7 + offset)
    }

    #[test]
    fn messages_read_back_as_they_arrived() {
        let twice = ["h", "h"].map(|name| (name.to_owned(), Bytes::from_static(b"\x00\xff\"")));
        let arrivals =
            [message(1, None, Vec::new()), message(2, Some(b"n1"), twice.to_vec()), message(3, Some(b""), Vec::new())];
        let batch = rows(&arrivals.iter().collect::<Vec<_>>()).unwrap().remove(0);
        let remembered = Remembered::of(&batch).unwrap();
        assert_eq!(remembered.len(), 3);
        for (row, arrival) in arrivals.iter().enumerate() {
            assert_eq!(remembered.message(row).unwrap(), arrival.message);
            assert_eq!(remembered.arrived_us(row), arrival.arrived_us);
        }
    }

    #[test]
    fn headers_that_are_not_ours_are_refused() {
        for text in ["", "{}", "[[\"a\"]]", "[[\"a\", \"0\"]]", "[[\"a\", \"0g\"]]"] {
            assert!(headers_of(text).is_err(), "{text}");
        }
    }
}
