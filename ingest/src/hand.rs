//! What was read and has not been handed to the tables yet, and the budget of bytes it may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use tables::arrival::Arrival;

/// Bytes that are read and have not landed, shared with the reader, which pauses the log above the limit.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
    limit_bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { used: Arc::default(), limit_bytes }
    }

    pub(crate) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.used_bytes() >= self.limit_bytes
    }

    /// Low enough to read again; well below the limit, so that the log is not paused and resumed at every message.
    pub(crate) fn has_room(&self) -> bool {
        self.used_bytes() < self.limit_bytes / 2
    }

    /// A batch is closed at this size: the other half is read while it lands.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.limit_bytes / 2
    }
}

/// Bytes an arrival holds: its payload and its decoded columns.
pub(crate) fn bytes_of(arrival: &Arrival) -> u64 {
    let decoded = arrival.outcome.as_ref().map_or(0, |d| d.batch_bytes);
    (arrival.message.payload.len() + decoded) as u64
}

/// Arrivals to land together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) arrivals: Vec<Arrival>,
    /// Offsets among them that hold no message.
    pub(crate) skipped: Vec<OffsetRange>,
    /// The next offset of each partition once these have landed, of those without arrivals too: tables that saw nothing of a
    /// quiet partition follow it as well.
    pub(crate) ends: BTreeMap<TopicPartition, NextOffset>,
    pub(crate) bytes: u64,
}

/// The batch being collected.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    batch: Batch,
    opened: Option<Instant>,
}

impl Hand {
    pub(crate) fn add(&mut self, arrival: Arrival) {
        self.opened.get_or_insert_with(Instant::now);
        self.batch.bytes += bytes_of(&arrival);
        self.batch.arrivals.push(arrival);
    }

    /// Adds offsets that hold no message.
    pub(crate) fn skip(&mut self, range: OffsetRange) {
        self.opened.get_or_insert_with(Instant::now);
        self.batch.skipped.push(range);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.batch.bytes
    }

    /// When the oldest arrival came; `None` when empty.
    pub(crate) fn opened(&self) -> Option<Instant> {
        self.opened
    }

    /// Closes the batch, which reaches up to `ends`, and begins the next.
    pub(crate) fn take(&mut self, ends: BTreeMap<TopicPartition, NextOffset>) -> Batch {
        self.opened = None;
        Batch { ends, ..std::mem::take(&mut self.batch) }
    }

    /// Drops what was read of partitions that are no longer ours; returns the bytes freed. Their next owner reads it again.
    pub(crate) fn forget(&mut self, revoked: &[TopicPartition]) -> u64 {
        let before = self.batch.bytes;
        self.batch.arrivals.retain(|a| !revoked.contains(&a.message.at));
        self.batch.skipped.retain(|range| !revoked.contains(&range.at));
        self.batch.bytes = self.batch.arrivals.iter().map(bytes_of).sum();
        if self.batch.arrivals.is_empty() && self.batch.skipped.is_empty() {
            self.opened = None;
        }
        before - self.batch.bytes
    }
}
