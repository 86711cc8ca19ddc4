//! What one table has still to land: its share of the batches that were closed since it was committed last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};
use lake::Attachment;
use tables::arrival::Skipped;
use tables::registry::{CommitPolicy, Content, Table};

use crate::batch::Charged;
use crate::note::{Note, Remembered};

/// A batch that is shared between tables.
#[derive(Debug)]
pub(crate) struct SharedBatch {
    pub(crate) arrivals: Vec<Arc<Charged>>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) ends: BTreeMap<TopicPartition, NextOffset>,
    /// What the table of messages is to record of the logs.
    pub(crate) marks: Vec<Note>,
    /// What the ledger is to keep of what was seen.
    pub(crate) checkpoints: Vec<Attachment>,
}

/// What a table has to land.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// Those that leave rows in the table.
    pub(crate) arrivals: Vec<Arc<Charged>>,
    pub(crate) skipped: Vec<Skipped>,
    /// How far the table is to hold each partition.
    pub(crate) ends: BTreeMap<TopicPartition, NextOffset>,
    pub(crate) remembered: Remembered,
    /// When the first rows came; the policy of the table counts from then.
    since: Option<Instant>,
}

impl Share {
    /// The share of a table in a batch.
    pub(crate) fn of(table: &Table, batch: &SharedBatch) -> Self {
        let mut share = Self { ends: batch.ends.clone(), ..Self::default() };
        let with_rows = batch.arrivals.iter().filter(|charged| table.weigh(&charged.arrival) > 0);
        // Shared, not copied: the memory of an arrival is free when the last table drops it.
        share.arrivals.extend(with_rows.cloned());
        if table.keeps_skipped() {
            share.skipped.clone_from(&batch.skipped);
        }
        match table.content {
            Content::Messages => share.remembered.notes.clone_from(&batch.marks),
            Content::Ledger => share.remembered.checkpoints.clone_from(&batch.checkpoints),
            Content::Records(_) | Content::OpMinute | Content::DeadLetters => {}
        }
        share
    }

    /// A share that holds nothing but how far the table is to hold partitions.
    #[cfg(test)]
    pub(crate) fn up_to(ends: BTreeMap<TopicPartition, NextOffset>, notes: Vec<Note>) -> Self {
        Self { ends, remembered: Remembered { notes, ..Remembered::default() }, ..Self::default() }
    }

    /// Adds the share of a later batch.
    pub(crate) fn append(&mut self, later: Self) {
        self.arrivals.extend(later.arrivals);
        self.skipped.extend(later.skipped);
        // A later end of a partition replaces the earlier one: offsets grow as long as the partition is ours.
        self.ends.extend(later.ends);
        self.remembered.append(later.remembered);
        // Offsets alone wait for no policy: `idle_due` counts for them.
        if self.since.is_none() && self.has_rows() {
            self.since = Some(Instant::now());
        }
    }

    /// Leaves out how far these logs were read. They were given up: taken over again, they begin anew.
    pub(crate) fn give_up(&mut self, logs: &[TopicPartition]) {
        self.ends.retain(|at, _| !logs.contains(at));
    }

    pub(crate) fn has_rows(&self) -> bool {
        !self.arrivals.is_empty() || !self.skipped.is_empty()
    }

    /// When rows are to be committed by a policy; `None` without rows.
    pub(crate) fn due(&self, policy: CommitPolicy, commit_interval: Duration) -> Option<Instant> {
        let since = self.since.filter(|_| self.has_rows())?;
        let is_full = self.arrivals.len() >= policy.messages;
        // A batch is one interval old when it comes: one interval less is left.
        Some(if is_full { since } else { since + commit_interval * policy.intervals.saturating_sub(1) })
    }
}
