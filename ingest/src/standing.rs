//! Where a table stands on the partitions that are ours. The run takes partitions over and gives them up; the table's
//! task moves them on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::{ReadError, TableHandle};
use service_kit::admin::Condition;

use crate::retry::Retry;

/// The offsets of one table. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    handle: TableHandle,
    /// Met while the table can be read and written.
    reachable: Condition,
    offsets: Arc<Mutex<Offsets>>,
}

#[derive(Debug, Default)]
struct Offsets {
    /// What the table holds, of the partitions that are ours.
    landed: BTreeMap<TopicPartition, NextOffset>,
    /// Where the log began, of those whose beginning lies behind what the table holds.
    begin: BTreeMap<TopicPartition, NextOffset>,
}

impl Offsets {
    fn landed(&self, at: &TopicPartition) -> NextOffset {
        self.landed.get(at).copied().unwrap_or_default()
    }

    fn next(&self, at: &TopicPartition) -> NextOffset {
        // What lies below the beginning of the log cannot be read: the table needs nothing of it but the gap.
        self.landed(at).max(self.begin.get(at).copied().unwrap_or_default())
    }
}

impl Standing {
    pub(crate) fn new(handle: TableHandle, reachable: Condition) -> Self {
        Self { handle, reachable, offsets: Arc::default() }
    }

    fn offsets(&self) -> MutexGuard<'_, Offsets> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next offset of a partition of ours that the table has a use for.
    pub(crate) fn next(&self, at: &TopicPartition) -> NextOffset {
        self.offsets().next(at)
    }

    /// The table has never seen the partition: it may begin wherever the log begins.
    pub(crate) fn is_new(&self, at: &TopicPartition) -> bool {
        self.offsets().landed(at) == NextOffset(0)
    }

    /// The log of a partition begins at `begin`: what the table does not hold below that is a gap.
    pub(crate) fn skip_to(&self, at: &TopicPartition, begin: NextOffset) {
        self.offsets().begin.insert(at.clone(), begin);
    }

    /// Reads where the table stands, waiting for a catalog that is away. Partitions it has never seen stand at 0.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn take_over(&self, partitions: &[TopicPartition]) -> Result<(), ReadError> {
        let found = self.read().await?;
        let mut offsets = self.offsets();
        for at in partitions {
            // Overwritten, not raised: after a roll back the table stands lower (ADR 32).
            offsets.landed.insert(at.clone(), found.get(at).copied().unwrap_or_default());
        }
        Ok(())
    }

    /// Reads where the table stands on the partitions that are ours still: another member has moved it on.
    ///
    /// # Errors
    /// As [`Self::take_over`].
    pub(crate) async fn look_again(&self) -> Result<(), ReadError> {
        let found = self.read().await?;
        for (at, landed) in &mut self.offsets().landed {
            // Raised only. A table that was rolled back meanwhile stands lower, and what it needs again is not in any share:
            // the next commit is to find the gap and stop (ADR 32).
            *landed = found.get(at).copied().unwrap_or_default().max(*landed);
        }
        Ok(())
    }

    async fn read(&self) -> Result<BTreeMap<TopicPartition, NextOffset>, ReadError> {
        let mut retry = Retry::new(&self.reachable);
        loop {
            match self.handle.offsets().await {
                Err(error) if error.is_transient() => retry.wait("reading the table's offsets", &error).await,
                found => return found,
            }
        }
    }

    pub(crate) fn give_up(&self, partitions: &[TopicPartition]) {
        let mut offsets = self.offsets();
        offsets.landed.retain(|at, _| !partitions.contains(at));
        offsets.begin.retain(|at, _| !partitions.contains(at));
    }

    /// The table holds these ranges now.
    pub(crate) fn advance(&self, ranges: &[OffsetRange]) {
        let mut offsets = self.offsets();
        for range in ranges {
            // A partition that was given up while its range landed stays given up.
            if let Some(landed) = offsets.landed.get_mut(&range.at) {
                *landed = NextOffset(range.end);
            }
        }
    }

    /// The ranges of our partitions up to `ends` that the table does not hold. One is empty where nothing but a gap lies
    /// before the end.
    pub(crate) fn missing(&self, ends: &BTreeMap<TopicPartition, NextOffset>) -> Vec<OffsetRange> {
        let offsets = self.offsets();
        let mut missing = Vec::new();
        for (at, end) in ends {
            // Of a partition that was given up it is not known where its log begins: a gap would be taken for landed.
            if !offsets.landed.contains_key(at) {
                continue;
            }
            let next = offsets.next(at);
            // A table that lies behind a gap is behind even where the gap is all: an empty range records it.
            if next <= *end && offsets.landed(at) < *end {
                missing.push(OffsetRange::new(at.clone(), next.0, end.0));
            }
        }
        missing
    }

    /// What lies between what the table holds and the beginning of the log, in front of these ranges.
    pub(crate) fn gaps(&self, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        let offsets = self.offsets();
        let mut gaps = Vec::new();
        for OffsetRange { at, .. } in ranges {
            // Without a known beginning the log holds what the table expects next.
            let Some(begin) = offsets.begin.get(at) else { continue };
            let gap = OffsetRange::new(at.clone(), offsets.landed(at).0, begin.0);
            if !gap.is_empty() {
                gaps.push(gap);
            }
        }
        gaps
    }
}
