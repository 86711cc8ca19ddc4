//! What has landed so far, read from the tables that record it. Every reading waits for a catalog or store that does
//! not answer.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use event_schema::position::{NextOffset, TopicPartition};
use lake::TableReader;
use service_kit::admin::Condition;

use crate::home::Moved;
use crate::mark::{Mark, newest_log};
use crate::recover::{self, Elsewhere, Memory, Places, RecoverError};
use crate::retry::Retry;

/// The tables that new partitions are looked up in.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) bronze: TableReader,
    pub(crate) ledger: TableReader,
    /// Met while they can be read.
    pub(crate) readable: Condition,
}

/// What is known of new partitions.
pub(crate) struct Known {
    pub(crate) marks: HashMap<TopicPartition, Mark>,
    pub(crate) seen: HashMap<TopicPartition, Memory>,
}

impl Tables {
    /// Looks partitions up.
    pub(crate) async fn look_up(&self, next: &BTreeMap<TopicPartition, NextOffset>) -> Result<Known, RecoverError> {
        self.wait_for(|| async {
            let ledger = self.ledger.snapshot().await?;
            let bronze = self.bronze.snapshot().await?;
            let marks = next.keys().filter_map(|at| Some((at.clone(), Mark::of(bronze.properties(), at)?))).collect();
            Ok(Known { marks, seen: recover::seen(&ledger, next).await? })
        })
        .await
    }

    /// The newest log of each partition that has landed anything, by its name in the tables.
    pub(crate) async fn newest_logs(&self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>, RecoverError> {
        let landed = self.wait_for(|| async { Ok(self.bronze.offsets().await?) }).await?;
        Ok(partitions.iter().map(|at| newest_log(at, landed.keys())).collect())
    }

    /// The messages in these ranges that `ops.ledger` has as dead letters because they could not be forwarded.
    pub(crate) async fn refused(&self, ranges: &BTreeMap<TopicPartition, Range<i64>>) -> Result<Places, RecoverError> {
        self.wait_for(|| async {
            let ledger = self.ledger.snapshot().await?;
            recover::refused(&ledger, ranges).await
        })
        .await
    }

    /// When the messages in these ranges were read first, unix microseconds: `bronze.messages` records it.
    pub(crate) async fn arrival_times(
        &self,
        ranges: &BTreeMap<TopicPartition, Range<i64>>,
    ) -> Result<BTreeMap<(TopicPartition, i64), i64>, RecoverError> {
        self.wait_for(|| async {
            let bronze = self.bronze.snapshot().await?;
            recover::arrival_times(&bronze, ranges).await
        })
        .await
    }

    /// What landed of lanes in other partitions than the ones they were moved to.
    pub(crate) async fn landed_elsewhere(&self, moved: &[Moved]) -> Result<Vec<Elsewhere>, RecoverError> {
        self.wait_for(|| async {
            let ledger = self.ledger.snapshot().await?;
            recover::landed_elsewhere(&ledger, moved).await
        })
        .await
    }

    /// Reads again until a catalog or store that is away has answered.
    async fn wait_for<T, F>(&self, read: impl Fn() -> F) -> Result<T, RecoverError>
    where
        F: Future<Output = Result<T, RecoverError>>,
    {
        let mut retry = Retry::new(&self.readable);
        loop {
            match read().await {
                // Read anew from a fresh snapshot, so that no answer is made of two.
                Err(RecoverError::Read(error)) if error.is_transient() => {
                    retry.wait("reading what has landed", &error).await;
                }
                found => return found,
            }
        }
    }
}
