//! The laws of what agents sent, from the ledger alone: no record is missing within a stream, and every epoch's sums close.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::identity::first_seq;
use event_schema::loss::LossCounters;
use event_schema::position::{OffsetRange, TopicPartition};

use super::{Broken, Epoch, Facts, Held, Law, LedgerRow, list, report};
use crate::audit::runs::{Range, Runs, Shape};
use crate::import::parcel::is_recording;

/// What the ledger says of one stream.
#[derive(Default)]
struct StreamFacts<'a> {
    rows: Vec<&'a LedgerRow>,
    seqs: Runs,
    dropped: u64,
    partitions: BTreeSet<&'a TopicPartition>,
}

impl StreamFacts<'_> {
    /// Whether missing numbers may lie in a gap of the log, which nobody has read: the message with those before them came
    /// before it, unless the stream begins with them, and the message with those after them behind it.
    fn may_be_in(&self, gap: &OffsetRange, (start, end): Range, is_beginning: bool) -> bool {
        let offsets = |is_neighbour: &dyn Fn(&LedgerRow) -> bool| {
            let rows = self.rows.iter().filter(|row| row.at == gap.at && is_neighbour(row));
            rows.map(|row| row.offset).min()
        };
        let before = offsets(&|row| row.first_seq + row.rows == start);
        let after = offsets(&|row| row.first_seq == end);
        (is_beginning || before.is_some_and(|offset| offset < gap.start))
            && after.is_some_and(|offset| offset >= gap.end)
    }
}

pub(super) fn sequence(facts: &Facts, broken: &mut Vec<Broken>) {
    let mut streams: BTreeMap<(&Epoch, i32), StreamFacts<'_>> = BTreeMap::new();
    // A recording has the numbers of the tracer that made it, which leave out what it did not keep.
    let is_of_agent = |row: &&LedgerRow| !row.is_dead_letter && !is_recording(&row.epoch.boot_id);
    for row in facts.ledger.iter().filter(is_of_agent) {
        let stream = streams.entry((&row.epoch, row.stream)).or_default();
        stream.seqs.add_range(row.first_seq, row.first_seq.saturating_add(row.rows));
        stream.dropped = stream.dropped.saturating_add(row.losses.spool_drop);
        stream.partitions.insert(&row.at);
        stream.rows.push(row);
    }
    let unread = Held::of(facts, "ops.ledger").explained;
    for ((epoch, number), stream) in streams {
        let Shape { span: Some((first, _)), mut gaps, .. } = stream.seqs.shape() else { continue };
        if let Some(begin) = first_seq(epoch.epoch, number).filter(|begin| *begin < first) {
            gaps.insert(0, (begin, first));
        }
        let begin = first_seq(epoch.epoch, number).unwrap_or(first);
        gaps.retain(|range| !unread.iter().any(|gap| stream.may_be_in(gap, *range, range.0 == begin)));
        let missing: u64 = gaps.iter().map(|(start, end)| end.abs_diff(*start)).sum();
        let dropped = stream.dropped;
        if missing > dropped {
            let dead =
                facts.ledger.iter().filter(|row| row.is_dead_letter && stream.partitions.contains(&row.at)).count();
            let hint =
                if dead > 0 { format!("; {dead} dead letters of its partitions may hold them") } else { String::new() };
            let what = format!(
                "stream {number}: {missing} records {} never arrived, {dropped} are accounted for as spool_drop{hint}",
                list(&gaps)
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
