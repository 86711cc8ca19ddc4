//! The laws of the sums of an epoch: the ledger closes, and it counts what the probes had counted when their agent ended.

use std::collections::BTreeMap;

use event_schema::identity::{SEQS_MAX, first_seq};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;

use crate::facts::{Epoch, EpochEnd, LedgerRow, OwnEvents};
use crate::laws::{Law, Report};

/// An epoch whose stream has fewer numbers left than this has used them up: its agent went on in the next epoch.
const USED_UP: i64 = 1 << 20;

/// The sums of all epochs.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Of all records.
    sums: BTreeMap<Epoch, Sums>,
    /// Of the events of agents.
    events: BTreeMap<Epoch, Counted>,
}

#[derive(Debug, Default)]
struct Sums {
    losses: LossCounters,
    landed: i64,
}

/// What the ledger counts of the events of an epoch.
#[derive(Debug, Default)]
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

impl Accounts {
    pub(super) fn add(&mut self, row: &LedgerRow) {
        if row.is_dead_letter {
            return;
        }
        let sums = self.sums.entry(row.epoch.clone()).or_default();
        sums.losses += row.losses;
        sums.landed += row.landed;
        if row.is_of_agent() && row.has_kind(RecordKind::Event.name()) {
            self.events.entry(row.epoch.clone()).or_default().add(row);
        }
    }

    /// Notes that records of an epoch may lie in a part of the log that was never read.
    pub(super) fn note_unread(&mut self, epoch: &Epoch) {
        if let Some(counted) = self.events.get_mut(epoch) {
            counted.is_unread = true;
        }
    }

    pub(super) fn check(&self, own: &OwnEvents, report: &mut Report) {
        for (epoch, sums) in &self.sums {
            check_sums(epoch, sums, report);
        }
        for epoch in own.ends.keys() {
            let Some(end) = account(own, epoch) else { continue };
            let run = self.run_of(epoch);
            if run.iter().any(|(_, counted)| counted.is_unread) {
                continue;
            }
            let losses = run.iter().fold(LossCounters::default(), |sum, (_, counted)| sum + counted.losses);
            let landed: i64 = run.iter().map(|(_, counted)| counted.landed).sum();
            let own: i64 = run.iter().filter_map(|(epoch, _)| own.counts.get(epoch)).sum();
            if let Some(what) = difference(end, losses, landed - own) {
                report.add(Law::Accounts, "ops.ledger", epoch, what);
            }
        }
    }

    /// Epochs that no account closes.
    pub(super) fn open_epochs(&self, own: &OwnEvents) -> Vec<Epoch> {
        let mut open = Vec::new();
        for (epoch, counted) in &self.events {
            if account(own, epoch).is_none() && !counted.is_used_up {
                open.push(epoch.clone());
            }
        }
        open
    }

    /// The epochs of one run of an agent: the last one, and those before it whose numbers were used up.
    fn run_of(&self, last: &Epoch) -> Vec<(&Epoch, &Counted)> {
        let before = (0..last.epoch)
            .rev()
            .map_while(|epoch| self.events.get_key_value(&Epoch { epoch, ..last.clone() }))
            .take_while(|(_, counted)| counted.is_used_up);
        // The ledger may have nothing of the last epoch: the run goes on before it.
        self.events.get_key_value(last).into_iter().chain(before).collect()
    }
}

fn check_sums(epoch: &Epoch, Sums { losses, landed }: &Sums, report: &mut Report) {
    let accounted = i128::from(*landed) + i128::from(losses.lost());
    if i128::from(losses.emitted) != accounted {
        let what = format!(
            "{} emitted, but {landed} landed + {} ring_drop + {} shed + {} sampled_out + {} spool_drop = {accounted}",
            losses.emitted, losses.ring_drop, losses.shed, losses.sampled_out, losses.spool_drop
        );
        report.add(Law::Ledger, "ops.ledger", epoch, what);
    }
}

/// The account of a whole epoch: those of both its streams. Each is the last event of its stream, so that with both everything
/// that will ever come has landed.
fn account(own: &OwnEvents, epoch: &Epoch) -> Option<EpochEnd> {
    let ends = own.ends.get(epoch)?;
    let data = ends.get(&Stream::Data)?;
    let critical = ends.get(&Stream::Critical)?;
    Some(EpochEnd {
        attempts: data.attempts + critical.attempts,
        ring_drop: data.ring_drop + critical.ring_drop,
        drained: data.drained + critical.drained,
    })
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
