//! The law of what agents sent, from the ledger alone: no record is missing within a stream.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::identity::first_seq;
use event_schema::position::{OffsetRange, TopicPartition};
use event_schema::stream::Stream;

use crate::facts::{Epoch, LedgerRow};
use crate::laws::{Law, Report, list};
use crate::runs::{Range, Runs, Shape};

/// The streams of all epochs of agents.
#[derive(Debug)]
pub(super) struct Streams {
    streams: BTreeMap<(Epoch, Stream), Numbers>,
    /// The gaps of the log that was never read, as the ledger has them.
    unread: Vec<OffsetRange>,
    /// Messages that could not be decoded, by partition.
    dead_letters: BTreeMap<TopicPartition, u64>,
}

/// The sequence numbers of one stream.
#[derive(Debug)]
struct Numbers {
    /// The number of its first record ever.
    begin: Option<i64>,
    numbers: Runs,
    edges: Edges,
    partitions: BTreeSet<TopicPartition>,
    spool_drop: u64,
}

impl Streams {
    pub(super) fn begin(unread: Vec<OffsetRange>) -> Self {
        Self { streams: BTreeMap::new(), unread, dead_letters: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, row: &LedgerRow) {
        if row.is_dead_letter {
            *self.dead_letters.entry(row.at.clone()).or_default() += 1;
        }
        if !row.is_of_agent() {
            return;
        }
        let numbers = self.streams.entry((row.epoch.clone(), row.stream)).or_insert_with(|| Numbers {
            begin: first_seq(row.epoch.epoch, row.stream),
            numbers: Runs::default(),
            edges: Edges::default(),
            partitions: BTreeSet::new(),
            spool_drop: 0,
        });
        numbers.add(row, self.unread.iter().any(|gap| gap.at == row.at));
    }

    /// Reports the streams that records are missing in; returns the epochs some of whose records may lie in a part of the log that
    /// was never read.
    pub(super) fn check(&mut self, report: &mut Report) -> BTreeSet<Epoch> {
        let mut unread = BTreeSet::new();
        for ((epoch, stream), numbers) in std::mem::take(&mut self.streams) {
            let mut missing = numbers.missing();
            let before = missing.len();
            missing.retain(|range| !numbers.may_be_in(&self.unread, *range));
            let count: u64 = missing.iter().map(|(start, end)| end.abs_diff(*start)).sum();
            let dropped = numbers.spool_drop;
            if count > dropped {
                let hint = match self.dead_letters_of(&numbers) {
                    0 => String::new(),
                    dead => format!("; {dead} dead letters of its partitions may hold them"),
                };
                let what = format!(
                    "stream {stream}: {count} records {} never arrived, {dropped} are accounted for as spool_drop{hint}",
                    list(&missing)
                );
                report.add(Law::Sequence, "ops.ledger", &epoch, what);
            }
            if missing.len() < before {
                unread.insert(epoch);
            }
        }
        unread
    }

    /// Dead letters of the partitions of a stream: they may hold the records that are missing.
    fn dead_letters_of(&self, numbers: &Numbers) -> u64 {
        numbers.partitions.iter().filter_map(|at| self.dead_letters.get(at)).sum()
    }
}

impl Numbers {
    fn add(&mut self, row: &LedgerRow, has_unread: bool) {
        let end = row.first_seq.saturating_add(row.rows);
        self.numbers.add_range(row.first_seq, end);
        self.spool_drop = self.spool_drop.saturating_add(row.losses.spool_drop);
        if has_unread {
            self.edges.add(row, end);
            self.edges.prune(&mut self.numbers);
        }
        if !self.partitions.contains(&row.at) {
            self.partitions.insert(row.at.clone());
        }
    }

    /// The sequence numbers that are in no message, up to the last one that is.
    fn missing(&self) -> Vec<Range> {
        let Shape { span: Some((first, _)), mut gaps, .. } = self.numbers.clone().shape() else { return Vec::new() };
        if let Some(begin) = self.begin.filter(|begin| *begin < first) {
            gaps.insert(0, (begin, first));
        }
        gaps
    }

    /// Whether missing numbers may lie in one of these gaps of the log, which was never read: the message with those before them
    /// came before it, unless the stream begins with them, and the message with those after them behind it.
    fn may_be_in(&self, unread: &[OffsetRange], (start, end): Range) -> bool {
        unread.iter().any(|gap| {
            let before = self.edges.end_at(&gap.at, start);
            let after = self.edges.begin_at(&gap.at, end);
            let is_behind_before = self.begin == Some(start) || before.is_some_and(|offset| offset < gap.start);
            is_behind_before && after.is_some_and(|offset| offset >= gap.end)
        })
    }
}

/// Edges that are kept beside twice those that were left by the last pruning.
const EDGES: usize = 1_024;

/// Where messages begin and end in the numbers of a stream: the least offset of those that do, by partition and number. Of the
/// partitions alone that were not read whole.
#[derive(Debug, Clone, Default)]
struct Edges {
    begins: BTreeMap<(TopicPartition, i64), i64>,
    ends: BTreeMap<(TopicPartition, i64), i64>,
    /// How many were left by the last pruning.
    left: usize,
}

impl Edges {
    fn add(&mut self, row: &LedgerRow, end: i64) {
        for (edges, number) in [(&mut self.begins, row.first_seq), (&mut self.ends, end)] {
            let least = edges.entry((row.at.clone(), number)).or_insert(row.offset);
            *least = row.offset.min(*least);
        }
    }

    /// Drops the edges between numbers that are both there: no missing number will ever lie at them.
    fn prune(&mut self, numbers: &mut Runs) {
        if self.begins.len() + self.ends.len() < EDGES + 2 * self.left {
            return;
        }
        let mut starts_of_runs = BTreeSet::new();
        let mut ends_of_runs = BTreeSet::new();
        for (start, end) in numbers.ranges() {
            starts_of_runs.insert(*start);
            ends_of_runs.insert(*end);
        }
        self.begins.retain(|(_, number), _| starts_of_runs.contains(number));
        self.ends.retain(|(_, number), _| ends_of_runs.contains(number));
        self.left = self.begins.len() + self.ends.len();
    }

    fn begin_at(&self, at: &TopicPartition, number: i64) -> Option<i64> {
        self.begins.get(&(at.clone(), number)).copied()
    }

    fn end_at(&self, at: &TopicPartition, number: i64) -> Option<i64> {
        self.ends.get(&(at.clone(), number)).copied()
    }
}
