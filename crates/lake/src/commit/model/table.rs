//! What the model's writers write: versions of a table, and the batches that make them.

use std::sync::OnceLock;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use uuid::Uuid;

use super::world::{LOG_BEGINS, LOG_END, LOG_ENDS, PARTITIONS, Rules};
use crate::table::Token;
use crate::table::positions::HeadFacts;

/// A version of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    pub(crate) uuid: u8,
    /// The pointer: unique for every version ever written.
    pub(crate) location: u8,
    pub(crate) sequence: u8,
    pub(crate) offsets: [u8; PARTITIONS],
    /// How often each offset is in the table.
    pub(crate) landed: [[u8; LOG_END]; PARTITIONS],
    pub(crate) tokens: Vec<u8>,
    /// The ranges in the head snapshot's summary; gone after a commit of another program.
    pub(crate) summary: Vec<(u8, u8, u8)>,
}

pub(crate) fn partition(p: usize) -> TopicPartition {
    static TOPIC: OnceLock<[TopicPartition; PARTITIONS]> = OnceLock::new();
    TOPIC.get_or_init(|| [0, 1].map(|p| TopicPartition::new("t", p)))[p].clone()
}

pub(crate) fn token(n: u8) -> Token {
    Token::from_uuid(Uuid::from_u128(u128::from(n) + 1))
}

impl Table {
    pub(super) fn empty(uuid: u8, location: u8) -> Self {
        let (offsets, landed) = ([0; PARTITIONS], [[0; LOG_END]; PARTITIONS]);
        Self { uuid, location, sequence: 0, offsets, landed, tokens: Vec::new(), summary: Vec::new() }
    }

    pub(crate) fn facts(&self) -> HeadFacts {
        let offsets = (0..PARTITIONS).filter(|p| self.offsets[*p] > 0);
        HeadFacts {
            table: Uuid::from_u128(self.uuid.into()),
            sequence: self.sequence.into(),
            offsets: offsets.map(|p| (partition(p), NextOffset(self.offsets[p].into()))).collect(),
            offsets_complete: true,
            tokens: self.tokens.iter().map(|t| token(*t)).collect(),
        }
    }

    /// Law: of a partition all rows that the log holds below its offset are in the table, and no other rows are.
    pub(crate) fn offsets_match_rows(&self) -> bool {
        (0..PARTITIONS).all(|p| {
            let expected = |i: usize| (usize::from(LOG_BEGINS[p])..usize::from(self.offsets[p])).contains(&i);
            self.offsets[p] <= LOG_ENDS[p] && (0..LOG_END).all(|i| (self.landed[p][i] > 0) == expected(i))
        })
    }

    pub(super) fn has(&self, p: u8, offset: u8) -> bool {
        self.landed[usize::from(p)][usize::from(offset)] > 0
    }

    pub(crate) fn holds_whole_log(&self) -> bool {
        (0..PARTITIONS).all(|p| self.landed[p][LOG_BEGINS[p].into()..LOG_ENDS[p].into()].iter().all(|n| *n == 1))
    }

    /// The version after a batch.
    pub(super) fn with(&self, rules: &Rules, location: u8, batch: &Batch) -> Self {
        let mut next = self.clone();
        next.location = location;
        next.sequence += 1;
        let ranges = batch.ranges();
        for (at, offset) in (rules.advance)(&(rules.facts)(self).offsets, &ranges) {
            next.offsets[at.partition as usize] = offset.0 as u8;
        }
        for (p, start, end) in &batch.parts {
            (*start..*end).for_each(|i| next.landed[usize::from(*p)][usize::from(i)] += 1);
        }
        next.tokens.push(batch.token);
        next.summary = batch.parts.clone();
        next
    }
}

/// A batch in a writer's hands: (partition, start, end) per partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(super) token: u8,
    pub(super) parts: Vec<(u8, u8, u8)>,
}

impl Batch {
    pub(super) fn ranges(&self) -> Vec<OffsetRange> {
        let range =
            |(p, start, end): &(u8, u8, u8)| OffsetRange::new(partition((*p).into()), (*start).into(), (*end).into());
        self.parts.iter().map(range).collect()
    }
    /// What the log no longer held in front of a part.
    pub(super) fn gaps(&self) -> Vec<OffsetRange> {
        let begins = |(p, start, _): &&(u8, u8, u8)| *start > 0 && *start == LOG_BEGINS[usize::from(*p)];
        let gap = |(p, start, _): &(u8, u8, u8)| OffsetRange::new(partition((*p).into()), 0, (*start).into());
        self.parts.iter().filter(begins).map(gap).collect()
    }
}
