//! Wrong versions of the protocol, each a mistake some system shipped. They are why a green model means something.

use std::collections::BTreeSet;

use event_schema::position::OffsetRange;

use super::log::PARTITIONS;
use super::table::{File, Offsets, Upkeep};
use super::table::{Table, partition};
use super::world::{Faults, Rules, maintained};
use super::{EXPIRING, ORDINARY, RESTORED, REWRITING};
use crate::commit::{Attempt, BatchFacts, Decision, Next, Reply, after, decide};
use crate::commit::{Held, Retained, may_expire};
use crate::table::positions::HeadFacts;
use event_schema::position::NextOffset;

/// Every defect, with the faults it takes to see it.
pub(super) fn all() -> Vec<(Rules, Faults)> {
    let shipped = Rules::SHIPPED;
    let ordinary = [
        Rules { name: "looks at the head snapshot only", after: head_only, ..shipped },
        Rules { name: "retries blindly when the reply is lost", after: blind_on_unknown, ..shipped },
        Rules { name: "takes a lost reply for success", after: trusts_unknown, ..shipped },
        Rules { name: "reads the head after a lost reply and leaves it at that", after: only_reads, ..shipped },
        Rules { name: "overwrites instead of swapping", swaps: |_, _| true, ..shipped },
        Rules { name: "rebases without looking again", after: rebases, ..shipped },
        Rules { name: "drops only what ends where the table ends", after: equality_only, ..shipped },
        Rules { name: "drops what it should trim", after: no_trim, ..shipped },
        Rules { name: "lands what it should trim", after: lands_untrimmed, ..shipped },
        Rules { name: "ignores how many rows the swap changed", after: ignores_rows, ..shipped },
        Rules { name: "stores the offset after the next", advance: one_too_far, ..shipped },
        Rules { name: "stores the last offset for the next", advance: one_too_short, ..shipped },
        Rules {
            name: "keeps offsets in the snapshot summary only",
            facts: summary_only,
            keeps_summary: true,
            ..shipped
        },
        Rules { name: "is not fenced by an owner further on", after: unfenced, ..shipped },
        Rules { name: "gives up a batch that lost its race", after: drops_lost, ..shipped },
        Rules { name: "does not hear what the log no longer held", after: unexplained, ..shipped },
    ];
    let restored = [Rules { name: "lands behind a gap", after: over_gaps, ..shipped }];
    let rewriting = [
        Rules { name: "lands a rewrite on a head that lost an input", still_live: |_, _| Ok(()), ..shipped },
        Rules { name: "adds the rewritten file and leaves the inputs", maintain: leaves_inputs, ..shipped },
        Rules { name: "takes away every file it finds", maintain: takes_all, ..shipped },
        Rules { name: "carries on no offsets", maintain: drops_offsets, ..shipped },
        Rules {
            name: "commits the version it planned on",
            maintain: |_, upkeep, planned_on| maintained(planned_on, upkeep, planned_on),
            keeps_plan: true,
            ..shipped
        },
        Rules {
            name: "carries on the offsets it planned on",
            maintain: offsets_of_the_plan,
            keeps_plan: true,
            ..shipped
        },
        Rules { name: "moves offsets as an append does", maintain: moves_offsets, ..shipped },
        Rules { name: "rewrites over a moved head", swaps: |_, _| true, ..shipped },
    ];
    let expiring = [
        Rules { name: "takes out a snapshot that a reader has pinned", may_expire: ignores_pins, ..shipped },
        Rules { name: "takes out the current snapshot", may_expire: ignores_current, ..shipped },
        Rules { name: "thins what a reader has pinned", thin: |table| table.thin_unless(|_| false), ..shipped },
        Rules { name: "thins the snapshot that it adds", thin: |table| table.snapshots = table.pinned, ..shipped },
        Rules { name: "loses the offsets with a snapshot", maintain: drops_offsets, ..shipped },
    ];
    let mut all = under(ORDINARY, ordinary);
    all.extend(under(RESTORED, restored));
    all.extend(under(REWRITING, rewriting));
    all.extend(under(EXPIRING, expiring));
    all
}

/// Each of these rules with the same faults.
fn under<const N: usize>(faults: Faults, rules: [Rules; N]) -> Vec<(Rules, Faults)> {
    rules.into_iter().map(|rules| (rules, faults)).collect()
}

fn of(decision: Decision) -> Next {
    match decision {
        Decision::Land => Next::Retry,
        Decision::Trim(keep) => Next::Trim(keep),
        Decision::Drop => Next::Drop,
        Decision::Stop(reason) => Next::Stop(reason),
    }
}

fn landed(head: &HeadFacts, range: &OffsetRange) -> i64 {
    head.offsets.get(&range.at).copied().unwrap_or_default().0
}

fn head_only(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    let ours = reply == Reply::Applied || head.tokens.last() == Some(&batch.attempt.token);
    if ours { Next::Committed } else { Next::Retry }
}

fn blind_on_unknown(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Unknown { Next::Retry } else { after(reply, head, batch) }
}

fn trusts_unknown(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Unknown { Next::Committed } else { after(reply, head, batch) }
}

/// Reading alone is a race: the lost request may be on its way still, or may never arrive.
fn only_reads(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    match after(reply, head, batch) {
        Next::Retry if reply == Reply::Unknown => Next::Drop,
        next => next,
    }
}

fn rebases(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Lost { Next::Retry } else { after(reply, head, batch) }
}

fn equality_only(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Applied || head.tokens.contains(&batch.attempt.token) {
        return Next::Committed;
    }
    let all = batch.ranges.iter().all(|range| landed(head, range) == range.end);
    if all { Next::Drop } else { Next::Retry }
}

fn no_trim(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    match after(reply, head, batch) {
        Next::Trim(_) => Next::Drop,
        next => next,
    }
}

fn lands_untrimmed(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    match after(reply, head, batch) {
        Next::Trim(_) => Next::Retry,
        next => next,
    }
}

fn ignores_rows(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Lost { Next::Committed } else { after(reply, head, batch) }
}

fn drops_lost(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Lost { Next::Drop } else { after(reply, head, batch) }
}

fn unfenced(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    if reply == Reply::Applied || head.tokens.contains(&batch.attempt.token) {
        return Next::Committed;
    }
    let beyond = batch.ranges.iter().any(|range| landed(head, range) > range.end);
    if beyond { Next::Retry } else { of(decide(head, batch)) }
}

fn unexplained(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    after(reply, head, &BatchFacts { gaps: Vec::new(), ..batch.clone() })
}

fn over_gaps(reply: Reply, head: &HeadFacts, batch: &BatchFacts) -> Next {
    let attempt = Attempt { seen_sequence: 0, ..batch.attempt };
    let gaps = batch.ranges.iter().map(|range| OffsetRange::new(range.at.clone(), 0, range.start)).collect();
    let excused = BatchFacts { attempt, gaps, ..batch.clone() };
    after(reply, head, &excused)
}

fn one_too_far(offsets: &Offsets, ranges: &[OffsetRange]) -> Offsets {
    moved(offsets, ranges, 1)
}

fn one_too_short(offsets: &Offsets, ranges: &[OffsetRange]) -> Offsets {
    moved(offsets, ranges, -1)
}

fn moved(offsets: &Offsets, ranges: &[OffsetRange], by: i64) -> Offsets {
    let mut offsets = offsets.clone();
    offsets.extend(ranges.iter().map(|range| (range.at.clone(), NextOffset(range.end + by))));
    offsets
}

fn summary_only(table: &Table) -> HeadFacts {
    let mut offsets = Offsets::new();
    for (p, _, end) in &table.summary {
        offsets.insert(partition((*p).into()), NextOffset((*end).into()));
    }
    HeadFacts { offsets, ..table.facts() }
}

fn leaves_inputs(head: &Table, upkeep: &Upkeep, planned_on: &Table) -> Table {
    match upkeep {
        Upkeep::Replace { output, .. } => {
            let mut next = head.clone();
            next.add_file(output.clone());
            next
        }
        Upkeep::Expire { .. } => maintained(head, upkeep, planned_on),
    }
}

fn takes_all(head: &Table, upkeep: &Upkeep, planned_on: &Table) -> Table {
    match upkeep {
        Upkeep::Replace { output, .. } => {
            let inputs = head.files.iter().map(|file: &File| file.name).collect();
            maintained(head, &Upkeep::Replace { inputs, output: output.clone() }, planned_on)
        }
        Upkeep::Expire { .. } => maintained(head, upkeep, planned_on),
    }
}

fn drops_offsets(head: &Table, upkeep: &Upkeep, planned_on: &Table) -> Table {
    Table { offsets: [0; PARTITIONS], ..maintained(head, upkeep, planned_on) }
}

fn offsets_of_the_plan(head: &Table, upkeep: &Upkeep, planned_on: &Table) -> Table {
    Table { offsets: planned_on.offsets, ..maintained(head, upkeep, planned_on) }
}

fn moves_offsets(head: &Table, upkeep: &Upkeep, planned_on: &Table) -> Table {
    Table { offsets: head.offsets.map(|offset| offset + 1), ..maintained(head, upkeep, planned_on) }
}

fn ignores_pins(snapshots: &BTreeSet<i64>, held: &Held) -> Result<(), Retained> {
    may_expire(snapshots, &Held { pinned: BTreeSet::new(), ..held.clone() })
}

fn ignores_current(snapshots: &BTreeSet<i64>, held: &Held) -> Result<(), Retained> {
    may_expire(snapshots, &Held { current: None, ..held.clone() })
}
