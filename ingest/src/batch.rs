//! What was read and has not landed in every table yet, and the memory it may take.
//!
//! `ingest.memory` has two halves: one for messages from the moment they are decoded until the last table has landed
//! them ([`Budget`]), one for the rows and files that tables make of them meanwhile ([`crate::room::Room`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use event_schema::position::{Message, NextOffset, TopicPartition};
use tables::arrival::{Arrival, Skipped};

/// The most that is decoded at once, however large the limit.
const PORTION_MAX_BYTES: u64 = 16 << 20;

/// Memory of messages that are decoded and have not landed. Above the limit the reader pauses the log (backpressure).
/// Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
    limit_bytes: u64,
}

impl Budget {
    /// The half of `memory_bytes` that messages may take.
    pub(crate) fn new(memory_bytes: u64) -> Self {
        // At least 1: a limit of 0 would count as used up before the first message.
        Self { used: Arc::default(), limit_bytes: (memory_bytes / 2).max(1) }
    }

    /// Decoded bytes handed over at once. A message is small until it is decoded: what was polled is decoded bit by
    /// bit, so that the limit is passed by this and one message at most.
    pub(crate) fn portion_bytes(&self) -> u64 {
        (self.limit_bytes / 8).min(PORTION_MAX_BYTES)
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.used_bytes() >= self.limit_bytes
    }

    /// Whether so little is used that the log is read again. Half of the limit, not the limit itself: the log is not
    /// paused and resumed with every message.
    pub(crate) fn has_room(&self) -> bool {
        self.used_bytes() < self.limit_bytes / 2
    }

    /// A batch is closed at this size: the other half is read while it lands.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.limit_bytes / 2
    }
}

/// An arrival, and the memory that it is charged with while any table has still to land it.
#[derive(Debug)]
pub(crate) struct Charged {
    pub(crate) arrival: Arrival,
    charge: Charge,
}

/// Memory that is free again when this is dropped.
#[derive(Debug)]
struct Charge {
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Charged {
    pub(crate) fn new(arrival: Arrival, budget: &Budget) -> Self {
        let bytes = bytes_of(&arrival);
        // Charged before it is handed over: the reader compares the budget before it decodes the next portion.
        budget.used.fetch_add(bytes, Ordering::AcqRel);
        Self { arrival, charge: Charge { bytes, used: Arc::clone(&budget.used) } }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.charge.bytes
    }

    /// Decides what becomes of the arrival; it takes the same memory.
    pub(crate) fn map(self, decide: impl FnOnce(Arrival) -> Arrival) -> Self {
        Self { arrival: decide(self.arrival), charge: self.charge }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Bytes an arrival holds: the message, and its decoded columns or the reason why there are none.
fn bytes_of(arrival: &Arrival) -> u64 {
    let outcome =
        arrival.outcome.as_ref().map_or_else(|rejection| rejection.detail.len(), |decoded| decoded.batch_bytes);
    // `held_bytes` counts the message itself, which lies within the arrival: it is not counted twice.
    let bytes = size_of::<Arrival>() - size_of::<Message>() + arrival.message.held_bytes() + outcome;
    bytes as u64
}

/// Arrivals to land together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) arrivals: Vec<Charged>,
    /// Offsets among them that hold no message.
    pub(crate) skipped: Vec<Skipped>,
    /// The next offset of each partition once these have landed, of those without arrivals too: tables that saw nothing
    /// of a quiet partition follow it as well.
    pub(crate) ends: BTreeMap<TopicPartition, NextOffset>,
}

/// The batch being collected.
#[derive(Debug, Default)]
pub(crate) struct BatchBuffer {
    batch: Batch,
    bytes: u64,
    opened: Option<Instant>,
}

impl BatchBuffer {
    pub(crate) fn add(&mut self, arrival: Charged) {
        self.opened.get_or_insert_with(Instant::now);
        self.bytes += arrival.bytes();
        self.batch.arrivals.push(arrival);
    }

    /// Adds offsets that hold no message.
    pub(crate) fn skip(&mut self, skipped: Skipped) {
        self.opened.get_or_insert_with(Instant::now);
        self.batch.skipped.push(skipped);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest arrival came; `None` when empty.
    pub(crate) fn opened(&self) -> Option<Instant> {
        self.opened
    }

    /// Closes the batch, which reaches up to `ends`, and begins the next.
    pub(crate) fn take(&mut self, ends: BTreeMap<TopicPartition, NextOffset>) -> Batch {
        // Size and age begin anew with the batch.
        let buffered = std::mem::take(self);
        Batch { ends, ..buffered.batch }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_memory_of_an_arrival_is_free_when_the_last_table_has_landed_it() {
        let budget = Budget::new(1 << 20);
        let (key, payload, headers) = (None, Bytes::from_static(&[0; 1_000]), Vec::new());
        let message = Message { at: TopicPartition::new("t", 0), offset: 0, timestamp_ms: 0, key, payload, headers };
        let one = Arc::new(Charged::new(Arrival::decode(message, 0), &budget));
        assert!(budget.used_bytes() > 1_000);
        assert_eq!(budget.used_bytes(), one.bytes());
        let other = Arc::clone(&one);
        drop(one);
        assert_eq!(budget.used_bytes(), other.bytes());
        drop(other);
        assert_eq!(budget.used_bytes(), 0);
    }
}
