//! Rows are a function of the messages and their coordinates: what `bronze.messages` holds gives the rows of every table again.

use std::collections::BTreeMap;

use arrow::array::{Array, StringArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use event_schema::position::Message;
use tables::arrival::Arrival;
use tables::registry::{self, Content, Table};
use tables::seen::Seen;

use super::*;

/// The rows of batches as texts, in no order.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::new();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                cells.push(format!("{}={}", field.name(), array_value_to_string(column, row).unwrap()));
            }
            rows.push(cells.join(" "));
        }
    }
    rows.sort();
    rows
}

/// The messages that the lake remembers, as they arrived, by log and offset.
async fn remembered(place: &Place) -> Vec<Arrival> {
    let rows = place.rows("bronze", "messages").await;
    let column = |name: &str| rows.column_by_name(name).unwrap();
    let log: &StringArray = column("log_name").as_string();
    let partition = column("log_partition").as_primitive::<Int32Type>();
    let offset = column("log_offset").as_primitive::<Int64Type>();
    let time_us = column("log_ts").as_primitive::<TimestampMicrosecondType>();
    let (key, payload) = (column("key").as_binary::<i32>(), column("payload").as_binary::<i32>());
    let arrived = column("ingested_at").as_primitive::<TimestampMicrosecondType>();
    let mut messages = Vec::new();
    for row in 0..rows.num_rows() {
        assert!(column("headers").is_null(row), "the messages of this test have none");
        let message = Message {
            at: TopicPartition::new(log.value(row), partition.value(row)),
            offset: offset.value(row),
            timestamp_ms: time_us.value(row) / 1_000,
            key: key.is_valid(row).then(|| Bytes::copy_from_slice(key.value(row))),
            payload: Bytes::copy_from_slice(payload.value(row)),
            headers: Vec::new(),
        };
        messages.push((message, arrived.value(row)));
    }
    messages.sort_by_key(|(message, _)| (message.at.clone(), message.offset));
    let mut seen: BTreeMap<TopicPartition, Seen> = BTreeMap::new();
    let admit = |(message, arrived_us): (Message, i64)| {
        let seen = seen.entry(message.at.clone()).or_default();
        Arrival::decode(message, arrived_us).admit(seen)
    };
    messages.into_iter().map(admit).collect()
}

/// A table as it was when it held nothing, which it is once more.
async fn empty(place: &Place, table: &Table) {
    use sqlx::Connection;
    let path = place.dir.path().join("catalog.sqlite");
    let mut catalog = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let name = table.def.name;
    let metadata = place.dir.path().join(format!("warehouse/{}/{}/metadata", name.namespace, name.name));
    let mut files = std::fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().path());
    let first = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("00000-")).unwrap();
    let set = "UPDATE iceberg_tables SET metadata_location = ? WHERE table_namespace = ? AND table_name = ?";
    let location = format!("file://{}", first.display());
    let set = sqlx::query(set).bind(location).bind(name.namespace).bind(name.name);
    assert_eq!(set.execute(&mut catalog).await.unwrap().rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_every_table_are_made_again_from_bronze_also_where_they_landed_later() {
    let place = Place::new();
    let mut a = writer(&place.spool(), 0);
    append(
        &mut a,
        &[message("a", 0, 20), message("a", 10, 20), Bytes::from_static(b"no message"), message("a", 0, 20)],
    );
    append(&mut writer(&place.spool(), 1), &[message("b", 0, 30), message("b", 30, 0)]);
    place.ingest().await.unwrap();
    // As after a crash between the commits of two tables.
    for table in registry::all().iter().filter(|table| table.content != Content::Messages) {
        empty(&place, table).await;
    }
    place.ingest().await.unwrap();
    let arrivals = remembered(&place).await;
    assert_eq!(arrivals.len(), 6);
    let all: Vec<&Arrival> = arrivals.iter().collect();
    for table in registry::all() {
        let name = table.def.name;
        let found = texts(&[place.rows(name.namespace, name.name).await]);
        assert_eq!(found, texts(&table.rows(&all).unwrap()), "{name}");
    }
}
