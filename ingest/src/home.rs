//! Which partition the messages of each run of an agent belong to. What was seen before is recorded per partition, so
//! the rows of a stream must land from one partition only: its home, the partition in which any member met the run
//! first. A message met elsewhere (copied by another tool, or sent after partitions were added) is forwarded to its
//! home, where it is known whether its rows are new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use event_schema::identity::LaneId;
use event_schema::position::TopicPartition;
use event_schema::wire::Header;
use lake::{CatalogError, Home, Homes};
use service_kit::admin::Condition;
use stream::kafka::KafkaError;
use tables::arrival::Arrival;

use crate::forward::Forwarder;
use crate::retry::Retry;

/// How long brokers may disagree about the partitions of a topic.
const METADATA_SETTLES: Duration = Duration::from_secs(2);

/// Why a home cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("the homes of agents' runs cannot be read")]
    Catalog(#[from] CatalogError),
    #[error("the partitions of a topic cannot be counted")]
    Partitions(#[source] KafkaError),
}

impl HomeError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_transient(),
            // A topic that is being made anew is unknown for a moment.
            Self::Partitions(error) => error.is_transient() || error.is_unknown_place(),
        }
    }
}

/// A lane whose home was moved here: what landed of it elsewhere must be known before its next message is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) lane: LaneId,
    pub(crate) at: TopicPartition,
}

/// How many partitions topics have. Each topic is asked for at most twice, however many lanes have their home there.
#[derive(Debug, Default)]
struct Counts(HashMap<Arc<str>, Count>);

#[derive(Debug, Clone, Copy)]
struct Count {
    partitions: usize,
    /// The topic is not asked for again.
    is_final: bool,
}

/// What is known of a partition that is a home.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Read,
    Gone,
    /// The partitions of its topic are to be counted after a pause.
    Ask(Duration),
}

impl Counts {
    fn look(&self, at: &TopicPartition) -> Look {
        let Some(count) = self.0.get(&at.topic) else { return Look::Ask(Duration::ZERO) };
        if usize::try_from(at.partition).is_ok_and(|partition| partition < count.partitions) {
            return Look::Read;
        }
        // One broker's metadata may be behind: a partition that was just added is asked for a second time.
        if count.is_final { Look::Gone } else { Look::Ask(METADATA_SETTLES) }
    }

    /// Takes the number of partitions of a topic; 0 of one that is not read.
    fn note(&mut self, topic: &Arc<str>, partitions: usize) {
        // A topic that this group does not read has no partition to forward to, whatever a second answer says.
        let is_final = partitions == 0 || self.0.contains_key(topic);
        self.0.insert(Arc::clone(topic), Count { partitions, is_final });
    }
}

/// The homes of the lanes met so far, named as in the log: a partition stays the home when its topic is made anew.
#[derive(Debug)]
pub(crate) struct Residents {
    homes: Homes,
    forwarder: Arc<Forwarder>,
    known: HashMap<LaneId, TopicPartition>,
    /// Met while homes can be looked up.
    readable: Condition,
}

impl Residents {
    pub(crate) fn new(homes: Homes, forwarder: Arc<Forwarder>, readable: Condition) -> Self {
        readable.met();
        Self { homes, forwarder, known: HashMap::new(), readable }
    }

    pub(crate) fn forwarder(&self) -> Arc<Forwarder> {
        Arc::clone(&self.forwarder)
    }

    /// The partition that a message belongs to. Its lane must have been met ([`Self::meet`]).
    pub(crate) fn home_of(&self, header: &Header) -> Option<&TopicPartition> {
        self.known.get(&lane_of(header))
    }

    /// Finds, or claims, the homes of the lanes that are met for the first time. Waits for a catalog that is away:
    /// nothing of a lane may land before its home is agreed on.
    pub(crate) async fn meet<'a>(
        &mut self,
        arrivals: impl Iterator<Item = &'a Arrival>,
    ) -> Result<Vec<Moved>, HomeError> {
        let mut met = HashMap::new();
        for arrival in arrivals {
            let Some(lane) = arrival.header().map(lane_of) else { continue };
            if !self.known.contains_key(&lane) {
                // The first message that was met proposes the home; the catalog decides.
                met.entry(lane).or_insert_with(|| arrival.message.at.without_generation());
            }
        }
        if met.is_empty() {
            return Ok(Vec::new());
        }
        let readable = self.readable.clone();
        let mut retry = Retry::new(&readable);
        loop {
            // What was counted before a wait may be other by now.
            match self.settle(&met, &mut Counts::default()).await {
                Ok(moved) => return Ok(moved),
                Err(error) if error.is_transient() => {
                    retry.wait("looking up the partitions that agents belong to", &error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn settle(
        &mut self,
        met: &HashMap<LaneId, TopicPartition>,
        counts: &mut Counts,
    ) -> Result<Vec<Moved>, HomeError> {
        let mut moved = Vec::new();
        // Insert if absent: of two members that meet a lane at the same time both get the home that was stored first.
        for (lane, home) in self.homes.claim(met).await? {
            // Of most lanes the claim was granted, or the home is where they were met: no broker is asked.
            let here = met.get(&lane).filter(|here| **here != home.at);
            let home = match here {
                Some(here) => self.reachable(&lane, home, here, counts).await?,
                None => home,
            };
            // Also when another member or an earlier run has moved it: what landed elsewhere is not in the memory of
            // this partition.
            if home.is_moved {
                moved.push(Moved { lane: lane.clone(), at: home.at.clone() });
            }
            self.known.insert(lane, home.at);
        }
        Ok(moved)
    }

    /// The home, or where the lane was met when its home is no partition that is read here (any more).
    async fn reachable(
        &self,
        lane: &LaneId,
        home: Home,
        here: &TopicPartition,
        counts: &mut Counts,
    ) -> Result<Home, HomeError> {
        loop {
            let pause = match counts.look(&home.at) {
                Look::Read => return Ok(home),
                Look::Gone => break,
                Look::Ask(pause) => pause,
            };
            tokio::time::sleep(pause).await;
            let forwarder = Arc::clone(&self.forwarder);
            let topic = Arc::clone(&home.at.topic);
            // On a thread of its own: a request for metadata blocks for the connect timeout at most.
            let count = tokio::task::spawn_blocking(move || forwarder.partitions(&topic)).await;
            let count = count.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
            counts.note(&home.at.topic, count.map_err(HomeError::Partitions)?);
        }
        tracing::warn!(node = &*lane.node, epoch = lane.epoch, from = %home.at, to = %here, "the home of an agent's run is not read any more; it is moved");
        // Compare and swap on the former home: a member that was late gets where the lane is now.
        Ok(self.homes.rehome(lane, &home.at, here).await?.unwrap_or(home))
    }

    /// Discards every home: the next message of each lane is treated as its first.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// The lane that a message travels in.
pub(crate) fn lane_of(header: &Header) -> LaneId {
    LaneId {
        node: header.node.as_str().into(),
        boot_id: header.boot_id.as_str().into(),
        epoch: header.epoch,
        lane: header.stream.lane(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_asked_for_twice_at_most_and_once_when_it_is_not_read() {
        let at = |partition| TopicPartition::new("t", partition);
        let mut counts = Counts::default();
        assert_eq!(counts.look(&at(0)), Look::Ask(Duration::ZERO));
        counts.note(&at(0).topic, 2);
        let looks = [1, 2].map(|partition| counts.look(&at(partition)));
        assert_eq!(looks, [Look::Read, Look::Ask(METADATA_SETTLES)]);
        counts.note(&at(0).topic, 3);
        let looks = [2, 3, 4, -1].map(|partition| counts.look(&at(partition)));
        assert_eq!(looks, [Look::Read, Look::Gone, Look::Gone, Look::Gone]);
        let other = TopicPartition::new("u", 0);
        assert_eq!(counts.look(&other), Look::Ask(Duration::ZERO));
        counts.note(&other.topic, 0);
        assert_eq!(counts.look(&other), Look::Gone);
    }
}
