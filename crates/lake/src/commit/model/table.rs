//! What the model's processes write: versions of a table, and the batches and rewrites that make them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use uuid::Uuid;

use super::log::{LOG_BEGINS, LOG_END, LOG_ENDS, PARTITIONS};
use crate::commit::{Aged, Grid, Made, thin};
use crate::table::Token;
use crate::table::positions::HeadFacts;

/// Next offsets by partition, as the functions under test take them.
pub(super) type Offsets = BTreeMap<TopicPartition, NextOffset>;

/// Rows of one partition: (partition, start, end).
pub(super) type Part = (u8, u8, u8);

/// A data file: its name and the rows in it. Tracked only where a maintainer works.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct File {
    pub(crate) name: u8,
    pub(crate) parts: Vec<Part>,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    Writer = 0,
    Maintainer = 1,
    Foreign = 2,
}

impl File {
    /// A file is named by the rows in it and by who wrote it: no two files of a sound run have one name.
    pub(super) fn new(mut parts: Vec<Part>, author: Author) -> Self {
        parts.sort_unstable();
        let rows = parts.iter().flat_map(|(p, start, end)| (*start..*end).map(move |i| 1 << (p * LOG_END as u8 + i)));
        let name = rows.fold(0, |name: u8, row: u8| name | row) | ((author as u8) << 6);
        Self { name, parts }
    }

    pub(super) fn of_all(files: &[Self], author: Author) -> Self {
        Self::new(files.iter().flat_map(|file| file.parts.clone()).collect(), author)
    }

    pub(super) fn is_of(&self, author: Author) -> bool {
        self.name >> 6 == author as u8
    }
}

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
    pub(crate) summary: Vec<Part>,
    /// The live files; empty where they are not tracked.
    pub(crate) files: Vec<File>,
    /// Snapshots in the metadata as bits, the current one as the highest there was; 0 where they are not tracked.
    pub(crate) snapshots: u16,
    pub(crate) current: u8,
    /// Snapshots that a reader has pinned, as bits.
    pub(crate) pinned: u16,
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
        Self {
            uuid,
            location,
            sequence: 0,
            offsets: [0; PARTITIONS],
            landed: [[0; LOG_END]; PARTITIONS],
            tokens: Vec::new(),
            summary: Vec::new(),
            files: Vec::new(),
            snapshots: 0,
            current: 0,
            pinned: 0,
        }
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
            let expected = usize::from(LOG_BEGINS[p])..usize::from(self.offsets[p]);
            self.offsets[p] <= LOG_ENDS[p] && (0..LOG_END).all(|i| (self.landed[p][i] > 0) == expected.contains(&i))
        })
    }

    /// Law: what readers need is in the metadata.
    pub(crate) fn keeps_what_is_needed(&self) -> bool {
        let current = if self.current > 0 { 1 << self.current } else { 0 };
        self.snapshots & current == current && self.snapshots & self.pinned == self.pinned
    }

    pub(super) fn has(&self, p: u8, offset: u8) -> bool {
        self.landed[usize::from(p)][usize::from(offset)] > 0
    }

    pub(crate) fn holds_whole_log(&self) -> bool {
        (0..PARTITIONS).all(|p| self.landed[p][LOG_BEGINS[p].into()..LOG_ENDS[p].into()].iter().all(|n| *n == 1))
    }

    /// The version after a batch, whose offsets are these then.
    pub(super) fn with(&self, location: u8, batch: &Batch, offsets: &Offsets, tracks: Tracks) -> Self {
        let mut next = self.clone();
        next.location = location;
        for (at, offset) in offsets {
            next.offsets[at.partition as usize] = offset.0 as u8;
        }
        next.count(&batch.parts, 1);
        if tracks.files {
            next.files.push(File::new(batch.parts.clone(), Author::Writer));
        }
        next.add_snapshot(tracks);
        next.tokens.push(batch.token);
        next.summary = batch.parts.clone();
        next
    }

    pub(super) fn add_snapshot(&mut self, tracks: Tracks) {
        self.sequence += 1;
        if tracks.snapshots {
            self.current += 1;
            self.snapshots |= 1 << self.current;
        }
    }

    /// What every commit that adds a snapshot does: the shipped function over a grid that keeps two.
    pub(crate) fn thin(&mut self) {
        let pinned = self.pinned;
        self.thin_unless(|snapshot| pinned & (1 << snapshot) != 0);
    }

    pub(super) fn thin_unless(&mut self, held: impl Fn(i64) -> bool) {
        let there = (1..16).filter(|snapshot| self.snapshots & (1 << snapshot) != 0);
        let aged: Vec<Aged> =
            there.map(|snapshot| Aged { id: snapshot, unix_ms: snapshot, made: Made::Otherwise }).collect();
        for snapshot in thin(&aged, &Grid::of_newest(2), held, 100) {
            self.snapshots &= !(1 << snapshot);
        }
    }

    /// Takes files away by name; what was not there takes nothing away.
    pub(super) fn remove_files(&mut self, names: &[u8]) {
        let files = std::mem::take(&mut self.files);
        for file in files {
            if names.contains(&file.name) {
                self.count(&file.parts, -1);
            } else {
                self.files.push(file);
            }
        }
    }

    pub(super) fn add_file(&mut self, file: File) {
        self.count(&file.parts, 1);
        self.files.push(file);
    }

    fn count(&mut self, parts: &[Part], change: i8) {
        for (p, start, end) in parts {
            for i in *start..*end {
                let count = &mut self.landed[usize::from(*p)][usize::from(i)];
                *count = count.saturating_add_signed(change);
            }
        }
    }
}

/// What of a table a run of the model keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Tracks {
    pub(crate) files: bool,
    pub(crate) snapshots: bool,
}

/// A batch in a writer's hands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) token: u8,
    pub(crate) parts: Vec<Part>,
}

impl Batch {
    pub(super) fn ranges(&self) -> Vec<OffsetRange> {
        let parts = self.parts.iter();
        parts.map(|(p, start, end)| OffsetRange::new(partition((*p).into()), (*start).into(), (*end).into())).collect()
    }

    /// What the log no longer held in front of a part.
    pub(super) fn gaps(&self) -> Vec<OffsetRange> {
        let mut gaps = Vec::new();
        for (p, start, _) in &self.parts {
            if *start > 0 && *start == LOG_BEGINS[usize::from(*p)] {
                gaps.push(OffsetRange::new(partition((*p).into()), 0, (*start).into()));
            }
        }
        gaps
    }
}

/// What a maintainer wants to commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Upkeep {
    /// Puts one file in the place of others.
    Replace { inputs: Vec<u8>, output: File },
    /// Takes a snapshot out of the metadata.
    Expire { snapshot: u8 },
}
