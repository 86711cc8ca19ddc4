//! The bare limit: the same messages decoded and written to Parquet files, with no Kafka and no commit.

use std::time::Duration;

use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use event_schema::topics;
use lake::{Lake, TableHandle};
use nix::time::{ClockId, clock_gettime};
use tables::arrival::Arrival;
use tables::registry::{Table, find};
use tables::seen::Seen;

use super::BenchError;

/// The tables events land in.
pub const EVENT_TABLES: [(&str, &str); 4] =
    [("bronze", "messages"), ("silver", "events"), ("gold", "op_minute"), ("ops", "ledger")];

/// CPU time of each step over all messages.
#[derive(Debug, Clone, Default)]
pub struct Bare {
    /// Rows that were not seen before.
    pub rows: u64,
    /// Messages to arrivals.
    pub decode: Duration,
    /// What each of [`EVENT_TABLES`] takes.
    pub tables: Vec<TableCost>,
    /// Bytes of the files of `silver.events`.
    pub silver_bytes: u64,
}

/// CPU time of one table.
#[derive(Debug, Clone, Default)]
pub struct TableCost {
    /// `namespace.name`.
    pub name: String,
    /// Arrivals to rows.
    pub rows: Duration,
    /// Rows to Parquet.
    pub encode: Duration,
    /// Parquet to files of the warehouse.
    pub write: Duration,
}

impl Bare {
    /// Per million rows, everything together.
    pub fn cpu_seconds_per_million(&self) -> f64 {
        let tables: Duration = self.tables.iter().map(|table| table.rows + table.encode + table.write).sum();
        (tables + self.decode).as_secs_f64() / (self.rows as f64 / 1e6)
    }
}

/// CPU time from its making on, of all threads of this process: what waits for the disk or another program is not
/// counted.
struct Stopwatch(Duration);

impl Stopwatch {
    fn start() -> Result<Self, BenchError> {
        match clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
            Ok(now) => Ok(Self(now.into())),
            Err(error) => Err(BenchError::io("reading the CPU clock", error)),
        }
    }

    /// Adds the time to a step and begins the next.
    fn lap(&mut self, step: &mut Duration) -> Result<(), BenchError> {
        let now = Self::start()?;
        *step += now.0.saturating_sub(self.0);
        *self = now;
        Ok(())
    }
}

/// Decodes `messages` and writes their rows, `batch` of them at a time, as ingest does at each commit.
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
    let mut bare = Bare::default();
    for (table, _) in &tables {
        bare.tables.push(TableCost { name: table.def.name.to_string(), ..TableCost::default() });
    }
    // One for all messages, as ingest has one for each partition.
    let mut seen = Seen::new();
    for (chunk, offset) in messages.chunks(batch).zip((0..).step_by(batch)) {
        let mut watch = Stopwatch::start()?;
        let arrivals: Vec<Arrival> = chunk
            .iter()
            .zip(offset..)
            .map(|(m, offset)| Arrival::decode(message(m, offset), 0).admit(&mut seen))
            .collect();
        watch.lap(&mut bare.decode)?;
        bare.rows += arrivals.iter().map(Arrival::fresh_rows).sum::<u64>();
        for ((table, handle), cost) in tables.iter().zip(&mut bare.tables) {
            let mut watch = Stopwatch::start()?;
            let rows = table.rows(&arrivals.iter().collect::<Vec<_>>())?;
            watch.lap(&mut cost.rows)?;
            // Encoding and storing are measured apart: only the second depends on the disk.
            let files = handle.encode(rows)?;
            watch.lap(&mut cost.encode)?;
            let files = handle.upload(files).await?;
            watch.lap(&mut cost.write)?;
            if table.def.name.name == "events" {
                bare.silver_bytes += files.iter().map(|file| file.file_size_in_bytes()).sum::<u64>();
            }
        }
    }
    Ok(bare)
}

fn message(payload: &Bytes, offset: i64) -> Message {
    let at = TopicPartition::new(topics::EVENTS, 0);
    Message { at, offset, timestamp_ms: 1_763_000_000_000, key: None, payload: payload.clone(), headers: Vec::new() }
}
