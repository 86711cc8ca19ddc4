//! What has landed so far, out of the tables that remember it. A catalog or store that is away is waited for.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use event_schema::position::{NextOffset, TopicPartition};
use lake::TableReader;
use service_kit::admin::Condition;

use crate::home::Moved;
use crate::mark::Mark;
use crate::patience::Patience;
use crate::recover::{self, Elsewhere, Memory, Places, RecoverError};

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
    /// Looks partitions up; waits for a catalog or store that is away.
    pub(crate) async fn look_up(&self, next: &BTreeMap<TopicPartition, NextOffset>) -> Result<Known, RecoverError> {
        let mut patience = Patience::new(&self.readable);
        loop {
            match self.try_look_up(next).await {
                Err(RecoverError::Read(error)) if error.is_transient() => {
                    patience.wait("reading what has landed", &error).await;
                }
                known => return known,
            }
        }
    }

    /// The newest log of each partition that has landed anything, by its name in the tables; waits for a catalog that is away.
    pub(crate) async fn newest_logs(&self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>, RecoverError> {
        let mut patience = Patience::new(&self.readable);
        let landed = loop {
            match self.bronze.offsets().await {
                Ok(landed) => break landed,
                Err(error) if error.is_transient() => patience.wait("reading what has landed", &error).await,
                Err(error) => return Err(error.into()),
            }
        };
        let newest = |at: &TopicPartition| {
            let of_partition = landed.keys().filter(|log| log.without_generation() == *at);
            at.of_generation(of_partition.map(TopicPartition::generation).max().unwrap_or(1))
        };
        Ok(partitions.iter().map(newest).collect())
    }

    async fn try_look_up(&self, next: &BTreeMap<TopicPartition, NextOffset>) -> Result<Known, RecoverError> {
        let (ledger, bronze) = (self.ledger.snapshot().await?, self.bronze.snapshot().await?);
        let mark = |at: &TopicPartition| Some((at.clone(), Mark::of(bronze.properties(), at)?));
        Ok(Known { marks: next.keys().filter_map(mark).collect(), seen: recover::seen(&ledger, next).await? })
    }

    /// The messages in these ranges that `ops.ledger` has as dead letters because they could not be forwarded; waits for a
    /// catalog or store that is away.
    pub(crate) async fn refused(&self, ranges: &BTreeMap<TopicPartition, Range<i64>>) -> Result<Places, RecoverError> {
        let mut patience = Patience::new(&self.readable);
        loop {
            let refused = match self.ledger.snapshot().await {
                Ok(ledger) => recover::refused(&ledger, ranges).await,
                Err(error) => Err(error.into()),
            };
            match refused {
                Err(RecoverError::Read(error)) if error.is_transient() => {
                    patience.wait("reading what has landed", &error).await;
                }
                refused => return refused,
            }
        }
    }

    /// What landed of lanes in other partitions than the ones they were moved to; waits for a catalog or store that is away.
    pub(crate) async fn landed_elsewhere(&self, moved: &[Moved]) -> Result<Vec<Elsewhere>, RecoverError> {
        let mut patience = Patience::new(&self.readable);
        loop {
            let landed = match self.ledger.snapshot().await {
                Ok(ledger) => recover::landed_elsewhere(&ledger, moved).await,
                Err(error) => Err(error.into()),
            };
            match landed {
                Err(RecoverError::Read(error)) if error.is_transient() => {
                    patience.wait("reading what has landed", &error).await;
                }
                landed => return landed,
            }
        }
    }
}
