//! The law of what the kernel saw: the probes' counters at the end of an epoch against the ledger.

use std::collections::BTreeMap;

use event_schema::identity::{SEQS_MAX, first_seq};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;

use super::streams::streams;
use super::{Broken, Epoch, EpochEnd, Facts, Held, Law, LedgerRow, report};

/// An epoch whose stream has fewer numbers left than this has used them up: its agent went on in the next epoch.
const USED_UP: i64 = 1 << 20;

/// What the ledger counts of the events of an epoch.
#[derive(Default)]
struct Counted {
    losses: LossCounters,
    landed: i64,
    /// Some of its records may be in a part of the log that was never read.
    is_unread: bool,
    is_used_up: bool,
}

impl Counted {
    fn add(&mut self, row: &LedgerRow) {
        self.losses += row.losses;
        self.landed += row.landed;
        let used = first_seq(row.epoch.epoch, row.stream).map_or(0, |first| row.first_seq + row.rows - first);
        self.is_used_up |= SEQS_MAX - used < USED_UP;
    }
}

type Epochs<'a> = BTreeMap<&'a Epoch, Counted>;

fn epochs(facts: &Facts) -> Epochs<'_> {
    let mut epochs = Epochs::new();
    for row in facts.ledger.iter().filter(|row| row.is_of_agent() && row.has_kind(RecordKind::Event.name())) {
        epochs.entry(&row.epoch).or_default().add(row);
    }
    let unread = Held::of(facts, "ops.ledger").explained;
    for (epoch, stream) in streams(facts) {
        if let Some(counted) = epochs.get_mut(epoch) {
            counted.is_unread |= stream.missing().iter().any(|range| stream.may_be_in(&unread, *range));
        }
    }
    epochs
}

/// The account of a whole epoch: those of both its streams. Each is the last event of its stream, so that with both everything
/// that will ever come has landed.
fn account(facts: &Facts, epoch: &Epoch) -> Option<EpochEnd> {
    let ends = facts.ends.get(epoch)?;
    let data = ends.get(&Stream::Data)?;
    let critical = ends.get(&Stream::Critical)?;
    Some(EpochEnd {
        attempts: data.attempts + critical.attempts,
        ring_drop: data.ring_drop + critical.ring_drop,
        drained: data.drained + critical.drained,
    })
}

/// Epochs that no account closes.
pub(super) fn open_epochs(facts: &Facts) -> Vec<&Epoch> {
    let mut open = Vec::new();
    for (epoch, counted) in epochs(facts) {
        if account(facts, epoch).is_none() && !counted.is_used_up {
            open.push(epoch);
        }
    }
    open
}

pub(super) fn accounts(facts: &Facts, broken: &mut Vec<Broken>) {
    let epochs = epochs(facts);
    for epoch in facts.ends.keys() {
        let Some(end) = account(facts, epoch) else { continue };
        let run = run_of(epoch, &epochs);
        if run.iter().any(|(_, counted)| counted.is_unread) {
            continue;
        }
        let losses = run.iter().fold(LossCounters::default(), |sum, (_, counted)| sum + counted.losses);
        let landed: i64 = run.iter().map(|(_, counted)| counted.landed).sum();
        let own: i64 = run.iter().filter_map(|(epoch, _)| facts.own_events.get(epoch)).sum();
        if let Some(what) = difference(end, losses, landed - own) {
            report(broken, Law::Accounts, "ops.ledger", epoch, what);
        }
    }
}

/// The epochs of one run of an agent: the last one, and those before it whose numbers were used up.
fn run_of<'a>(last: &Epoch, epochs: &'a Epochs<'a>) -> Vec<(&'a Epoch, &'a Counted)> {
    let before = (0..last.epoch)
        .rev()
        .map_while(|epoch| epochs.get_key_value(&Epoch { epoch, ..last.clone() }))
        .take_while(|(_, counted)| counted.is_used_up);
    // The ledger may have nothing of the last epoch: the run goes on before it.
    let run = epochs.get_key_value(last).into_iter().chain(before);
    run.map(|(epoch, counted)| (*epoch, counted)).collect()
}

fn difference(end: EpochEnd, losses: LossCounters, landed: i64) -> Option<String> {
    let EpochEnd { attempts, ring_drop, drained } = end;
    if attempts != drained + ring_drop {
        return Some(format!("{attempts} attempts, but {drained} drained + {ring_drop} ring_drop"));
    }
    if losses.ring_drop != ring_drop {
        return Some(format!("the probes dropped {ring_drop}, the ledger says {} ring_drop", losses.ring_drop));
    }
    // Beside what came out of the rings: what could not be followed, reported as shed, and events of the agent's own that are lost.
    let accounted = i128::from(landed) + i128::from(losses.shed) + i128::from(losses.spool_drop);
    let beyond = accounted - i128::from(drained);
    let is_accounted = (0..=i128::from(losses.shed) + i128::from(losses.spool_drop)).contains(&beyond);
    (!is_accounted).then(|| {
        format!(
            "{drained} came out of the rings, but {landed} of them landed + {} shed + {} spool_drop",
            losses.shed, losses.spool_drop
        )
    })
}
