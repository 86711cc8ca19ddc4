//! The laws of what agents sent, from the ledger alone: no record is missing within a stream, and every epoch's sums close.

use std::collections::BTreeMap;

use event_schema::identity::first_seq;
use event_schema::loss::LossCounters;
use event_schema::position::OffsetRange;
use event_schema::stream::Stream;

use super::{Broken, Epoch, Facts, Held, Law, LedgerRow, list, report};
use crate::runs::{Range, Runs, Shape};

/// The messages of one stream in the ledger.
pub(super) struct StreamFacts<'a> {
    stream: Stream,
    /// The number of its first record ever.
    begin: Option<i64>,
    rows: Vec<&'a LedgerRow>,
}

impl StreamFacts<'_> {
    /// The sequence numbers that are in no message, up to the last one that is.
    pub(super) fn missing(&self) -> Vec<Range> {
        let numbers = self.rows.iter().map(|row| (row.first_seq, row.first_seq.saturating_add(row.rows)));
        let Shape { span: Some((first, _)), mut gaps, .. } = numbers.collect::<Runs>().shape() else {
            return Vec::new();
        };
        if let Some(begin) = self.begin.filter(|begin| *begin < first) {
            gaps.insert(0, (begin, first));
        }
        gaps
    }

    /// Whether missing numbers may lie in one of these gaps of the log, which was never read: the message with those before them
    /// came before it, unless the stream begins with them, and the message with those after them behind it.
    pub(super) fn may_be_in(&self, unread: &[OffsetRange], (start, end): Range) -> bool {
        unread.iter().any(|gap| {
            let of_partition: Vec<&&LedgerRow> = self.rows.iter().filter(|row| row.at == gap.at).collect();
            let ending = of_partition.iter().filter(|row| row.first_seq + row.rows == start);
            let before = ending.map(|row| row.offset).min();
            let beginning = of_partition.iter().filter(|row| row.first_seq == end);
            let after = beginning.map(|row| row.offset).min();
            let is_behind_before = self.begin == Some(start) || before.is_some_and(|offset| offset < gap.start);
            is_behind_before && after.is_some_and(|offset| offset >= gap.end)
        })
    }

    /// Dead letters of its partitions: they may hold the records that are missing.
    fn dead_letters(&self, facts: &Facts) -> usize {
        let dead = facts.ledger.iter().filter(|row| row.is_dead_letter);
        dead.filter(|row| self.rows.iter().any(|of_stream| of_stream.at == row.at)).count()
    }
}

/// The streams of all epochs of agents.
pub(super) fn streams(facts: &Facts) -> Vec<(&Epoch, StreamFacts<'_>)> {
    let mut streams: BTreeMap<(&Epoch, Stream), Vec<&LedgerRow>> = BTreeMap::new();
    for row in facts.ledger.iter().filter(|row| row.is_of_agent()) {
        streams.entry((&row.epoch, row.stream)).or_default().push(row);
    }
    let facts = streams.into_iter().map(|((epoch, stream), rows)| {
        let begin = first_seq(epoch.epoch, stream);
        (epoch, StreamFacts { stream, begin, rows })
    });
    facts.collect()
}

pub(super) fn sequence(facts: &Facts, broken: &mut Vec<Broken>) {
    let unread = Held::of(facts, "ops.ledger").explained;
    for (epoch, stream) in streams(facts) {
        let mut missing = stream.missing();
        missing.retain(|range| !stream.may_be_in(&unread, *range));
        let count: u64 = missing.iter().map(|(start, end)| end.abs_diff(*start)).sum();
        let dropped = stream.rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.losses.spool_drop));
        if count > dropped {
            let hint = match stream.dead_letters(facts) {
                0 => String::new(),
                dead => format!("; {dead} dead letters of its partitions may hold them"),
            };
            let what = format!(
                "stream {}: {count} records {} never arrived, {dropped} are accounted for as spool_drop{hint}",
                stream.stream,
                list(&missing)
            );
            report(broken, Law::Sequence, "ops.ledger", epoch, what);
        }
    }
}

pub(super) fn ledger(facts: &Facts, broken: &mut Vec<Broken>) {
    let mut epochs: BTreeMap<&Epoch, (LossCounters, i64)> = BTreeMap::new();
    for row in facts.ledger.iter().filter(|row| !row.is_dead_letter) {
        let (losses, landed) = epochs.entry(&row.epoch).or_default();
        *losses += row.losses;
        *landed += row.landed;
    }
    for (epoch, (losses, landed)) in epochs {
        let accounted = i128::from(landed) + i128::from(losses.lost());
        if i128::from(losses.emitted) != accounted {
            let what = format!(
                "{} emitted, but {landed} landed + {} ring_drop + {} shed + {} sampled_out + {} spool_drop = {accounted}",
                losses.emitted, losses.ring_drop, losses.shed, losses.sampled_out, losses.spool_drop
            );
            report(broken, Law::Ledger, "ops.ledger", epoch, what);
        }
    }
}
