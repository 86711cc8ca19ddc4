//! Memory for the rows and files that tables make of a batch. A table makes them a portion at a time, and takes the
//! room a portion needs before it begins; tables wait for one another when there is not enough for all.

use std::sync::Arc;

use tables::arrival::Arrival;
use tables::registry::Table;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that landing needs at most at one moment for each byte of a message that goes into a table: its rows, their
/// copy in the table's order, and the file with its pages (measured by `causeway-loadtest bench memory`).
const COPIES: u64 = 4;
/// The unit of room.
const UNIT_BYTES: u64 = 1 << 10;

/// The half of `ingest.memory` that landing may take. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    units: u32,
}

impl Room {
    pub(crate) fn new(memory_bytes: u64) -> Self {
        let units = u32::try_from(memory_bytes / 2 / UNIT_BYTES).unwrap_or(u32::MAX).clamp(1, MAX_UNITS);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Bytes of messages whose rows are made at once: so much that one portion of one table fills the room.
    fn portion_bytes(&self) -> u64 {
        (u64::from(self.units) * UNIT_BYTES / COPIES).max(1)
    }

    /// Cuts arrivals into portions for a table; those that leave nothing in it are passed over. A portion holds one
    /// arrival at least.
    pub(crate) fn portions<'a>(&self, table: &Table, arrivals: &'a [&'a Arrival]) -> Vec<Portion<'a>> {
        let limit = self.portion_bytes();
        let mut portions = Vec::new();
        let mut begin = 0;
        let mut bytes = 0;
        for (i, arrival) in arrivals.iter().enumerate() {
            let weight = table.weigh(arrival);
            // A single arrival above the limit is a portion of its own.
            if bytes > 0 && bytes + weight > limit {
                portions.push(Portion { arrivals: &arrivals[begin..i], bytes });
                begin = i;
                bytes = 0;
            }
            bytes += weight;
        }
        if bytes > 0 {
            portions.push(Portion { arrivals: &arrivals[begin..], bytes });
        }
        portions
    }

    /// Waits until there is room for a portion. One larger than the whole room takes all of it.
    pub(crate) async fn take(&self, portion: &Portion<'_>) -> Taken {
        // Rounded down to a unit; the smallest portion takes one (`clamp`).
        let wanted = u32::try_from(portion.bytes.saturating_mul(COPIES) / UNIT_BYTES).unwrap_or(u32::MAX);
        // Never more than there are, or it would wait for ever. The semaphore is fair (tokio): a large portion is not
        // starved by small ones.
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted.clamp(1, self.units)).await;
        // The semaphore is never closed.
        Taken { _permit: permit.ok() }
    }
}

/// A semaphore allows more permits than this on every machine: `Semaphore::MAX_PERMITS` of tokio is `usize::MAX >> 3`,
/// just below 2^29 where `usize` has 32 bits.
const MAX_UNITS: u32 = 1 << 28;

/// Arrivals whose rows are made at once.
#[derive(Debug)]
pub(crate) struct Portion<'a> {
    pub(crate) arrivals: &'a [&'a Arrival],
    bytes: u64,
}

/// Room that is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use event_schema::position::{Message, TopicPartition};
    use proptest::prelude::*;
    use tables::registry::find;

    use super::*;

    fn rejected(offset: usize, bytes: usize) -> Arrival {
        let (key, payload, headers) = (None, Bytes::from(vec![b'x'; bytes]), Vec::new());
        let at = TopicPartition::new("t", 0);
        Arrival::decode(Message { at, offset: offset as i64, timestamp_ms: 0, key, payload, headers }, 0)
    }

    proptest! {
        #[test]
        fn portions_hold_every_arrival_once_and_no_more_than_the_room(
            sizes in prop::collection::vec(0..3_000_usize, 0..30), memory_kib in 1..64_u64,
        ) {
            let room = Room::new(memory_kib << 10);
            let arrivals: Vec<_> = sizes.iter().enumerate().map(|(i, bytes)| rejected(i, *bytes)).collect();
            let table = find("bronze", "messages").unwrap();
            let arrivals: Vec<&Arrival> = arrivals.iter().collect();
            let portions = room.portions(table, &arrivals);
            let held: Vec<i64> = portions.iter().flat_map(|p| p.arrivals).map(|a| a.message.offset).collect();
            prop_assert_eq!(held, (0..sizes.len() as i64).collect::<Vec<_>>());
            for portion in &portions {
                let weight: u64 = portion.arrivals.iter().map(|arrival| table.weigh(arrival)).sum();
                prop_assert_eq!(weight, portion.bytes);
                prop_assert!(weight <= room.portion_bytes() || portion.arrivals.len() == 1);
            }
        }
    }

    #[tokio::test]
    async fn tables_wait_for_room_and_one_too_large_for_it_takes_all() {
        let room = Room::new(64 << 10);
        let arrivals = [&rejected(0, 1 << 20), &rejected(1, 10)];
        let portions = room.portions(find("ops", "dlq").unwrap(), &arrivals);
        let [large, small] = &portions[..] else { panic!("{portions:?}") };
        let taken = room.take(large).await;
        assert_eq!(room.free.available_permits(), 0);
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), room.take(small)).await;
        assert!(waiting.is_err(), "the small portion must wait");
        drop(taken);
        room.take(small).await;
    }

    #[test]
    fn a_table_that_gets_nothing_needs_no_room() {
        let arrivals = [&rejected(0, 10)];
        assert!(Room::new(1 << 20).portions(find("silver", "events").unwrap(), &arrivals).is_empty());
        assert_eq!(Room::new(1 << 20).portions(find("ops", "ledger").unwrap(), &arrivals).len(), 1);
    }
}
