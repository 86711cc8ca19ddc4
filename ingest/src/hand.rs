//! What was read and has not been handed to the tables yet, and the memory it may take.
//!
//! `ingest.memory` has two halves: one for messages from the moment they are decoded until they have landed ([`Budget`]), one
//! for the rows and files that tables make of them meanwhile ([`crate::room::Room`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};
use tables::arrival::Arrival;

/// The most that is decoded at once, however large the limit.
const PORTION_MAX_BYTES: u64 = 16 << 20;

/// Bytes that are decoded and have not landed, shared with the reader, which pauses the log above the limit.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
    limit_bytes: u64,
}

impl Budget {
    /// The half of `memory_bytes` that messages may take.
    pub(crate) fn new(memory_bytes: u64) -> Self {
        Self { used: Arc::default(), limit_bytes: (memory_bytes / 2).max(1) }
    }

    /// Decoded bytes handed over at once. A message is small until it is decoded: what was polled is decoded bit by bit, so
    /// that the limit is passed by this and one message at most.
    pub(crate) fn portion_bytes(&self) -> u64 {
        (self.limit_bytes / 8).min(PORTION_MAX_BYTES)
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

/// Bytes an arrival holds: the message, and its decoded columns or the reason why there are none.
pub(crate) fn bytes_of(arrival: &Arrival) -> u64 {
    let outcome =
        arrival.outcome.as_ref().map_or_else(|rejection| rejection.detail.len(), |decoded| decoded.batch_bytes);
    // The message counts itself, and lies within the arrival.
    let bytes = size_of::<Arrival>() - size_of::<Message>() + arrival.message.held_bytes() + outcome;
    bytes as u64
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
        let mut batch = Batch { ends, ..std::mem::take(&mut self.batch) };
        // By partition, as most tables are sorted: their rows need not be copied once more to be put in order.
        batch.arrivals.sort_by(|a, b| {
            let place = |arrival: &Arrival| (arrival.message.at.partition, arrival.message.offset);
            place(a).cmp(&place(b))
        });
        batch
    }
}
