//! The bare limit: the same messages decoded and written to Parquet, with no Kafka, no object store and no commit.

use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use lake::{Lake, TableHandle};
use tables::arrival::Arrival;
use tables::registry::{Table, find};
use tables::seen::Seen;

use super::BenchError;
use crate::out::TOPIC;

/// The tables events land in.
pub const EVENT_TABLES: [(&str, &str); 4] =
    [("bronze", "messages"), ("silver", "events"), ("gold", "op_minute"), ("ops", "ledger")];

/// Time of each step over all messages, one thread.
#[derive(Debug, Clone, Default)]
pub struct Bare {
    pub rows: u64,
    pub decode: Duration,
    /// Per table: rows made, files encoded.
    pub tables: Vec<(String, Duration, Duration)>,
    pub silver_bytes: u64,
}

impl Bare {
    /// Seconds of one thread per million rows, everything together.
    pub fn cpu_seconds_per_million(&self) -> f64 {
        let all: Duration = self.tables.iter().map(|(_, make, encode)| *make + *encode).sum::<Duration>() + self.decode;
        all.as_secs_f64() / (self.rows as f64 / 1e6)
    }
}

/// Decodes and encodes `messages`, `batch` of them at a time, as ingest does at each commit.
///
/// # Errors
/// When a message or its rows do not fit the tables.
pub async fn run(lake: &Lake, messages: &[Bytes], batch: usize) -> Result<Bare, BenchError> {
    let mut tables: Vec<(&'static Table, TableHandle)> = Vec::new();
    for (namespace, name) in EVENT_TABLES {
        if let Some(table) = find(namespace, name) {
            tables.push((table, lake.ensure_table(&table.def).await?));
        }
    }
    let mut bare = Bare {
        tables: tables.iter().map(|(t, _)| (t.def.name.to_string(), Duration::ZERO, Duration::ZERO)).collect(),
        ..Bare::default()
    };
    let mut seen = Seen::new();
    for (chunk, offset) in messages.chunks(batch).zip((0..).step_by(batch)) {
        let started = Instant::now();
        let arrivals: Vec<Arrival> = chunk
            .iter()
            .zip(offset..)
            .map(|(m, offset)| Arrival::decode(message(m, offset)).admit(&mut seen))
            .collect();
        bare.decode += started.elapsed();
        bare.rows += arrivals.iter().map(Arrival::fresh_rows).sum::<u64>();
        for ((table, handle), (_, make, encode)) in tables.iter().zip(&mut bare.tables) {
            let started = Instant::now();
            let rows = (table.make_rows)(&arrivals, 0)?;
            *make += started.elapsed();
            let started = Instant::now();
            let files = handle.encode(&rows)?;
            *encode += started.elapsed();
            if table.def.name.name == "events" {
                bare.silver_bytes += files.iter().map(|f| f.data_file().file_size_in_bytes()).sum::<u64>();
            }
        }
    }
    Ok(bare)
}

fn message(payload: &Bytes, offset: i64) -> Message {
    let at = TopicPartition::new(TOPIC, 0);
    Message { at, offset, timestamp_ms: 1_763_000_000_000, key: None, payload: payload.clone(), headers: Vec::new() }
}
