//! The law of what the kernel saw: the probes' counters at the end of an epoch against what the ledger says of it.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::identity::{SEQS_MAX, first_seq};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::TopicPartition;

use super::{Broken, Epoch, EpochEnd, Facts, Held, Law, LedgerRow, report};
use crate::import::parcel::is_recording;

/// An epoch whose stream has fewer numbers left than this has used them up: its agent went on in the next epoch.
const USED_UP: i64 = 1 << 20;

/// What the ledger says of the events of an epoch.
#[derive(Default)]
struct Told<'a> {
    epoch: Option<&'a Epoch>,
    losses: LossCounters,
    landed: i64,
    partitions: BTreeSet<&'a TopicPartition>,
    is_used_up: bool,
}

impl<'a> Told<'a> {
    fn add(&mut self, row: &'a LedgerRow) {
        self.epoch = Some(&row.epoch);
        self.losses += row.losses;
        self.landed += row.landed;
        self.partitions.insert(&row.at);
        let used = first_seq(row.epoch.epoch, row.stream).map_or(0, |first| row.first_seq + row.rows - first);
        self.is_used_up |= SEQS_MAX - used < USED_UP;
    }
}

type Epochs<'a> = BTreeMap<&'a Epoch, Told<'a>>;

fn epochs(facts: &Facts) -> Epochs<'_> {
    let mut epochs = Epochs::new();
    let is_event = |row: &&LedgerRow| row.kind.as_deref() == Some(RecordKind::Event.name());
    for row in facts.ledger.iter().filter(is_event).filter(|row| !is_recording(&row.epoch.boot_id)) {
        epochs.entry(&row.epoch).or_default().add(row);
    }
    epochs
}

/// Epochs that no account closes: their agent runs, or was killed. What its rings and open batches held is in no count.
pub(crate) fn open_epochs(facts: &Facts) -> Vec<&Epoch> {
    let ended: BTreeSet<&Epoch> = facts.ends.iter().map(|end| &end.epoch).collect();
    let is_open = |epoch: &Epoch, told: &Told<'_>| !ended.contains(epoch) && !told.is_used_up;
    epochs(facts).into_iter().filter(|(epoch, told)| is_open(epoch, told)).map(|(epoch, _)| epoch).collect()
}

pub(super) fn accounts(facts: &Facts, broken: &mut Vec<Broken>) {
    let epochs = epochs(facts);
    let unread = Held::of(facts, "ops.ledger").explained;
    for end in &facts.ends {
        let run = run_of(&end.epoch, &epochs);
        // What a gap of its partition held, nobody knows.
        if run.iter().any(|told| unread.iter().any(|gap| told.partitions.contains(&gap.at))) {
            continue;
        }
        let losses = run.iter().fold(LossCounters::default(), |sum, told| sum + told.losses);
        let landed: i64 = run.iter().map(|told| told.landed).sum();
        let own: i64 = run.iter().filter_map(|told| facts.own_events.get(told.epoch?)).sum();
        if let Some(what) = difference(end, losses, landed - own) {
            report(broken, Law::Accounts, "ops.ledger", &end.epoch, what);
        }
    }
}

/// The epochs of one run of an agent: the last one, and those before it whose numbers were used up.
fn run_of<'a>(last: &Epoch, epochs: &'a Epochs<'a>) -> Vec<&'a Told<'a>> {
    let at = |epoch: i64| epochs.get(&Epoch { epoch, ..last.clone() });
    let before = (0..last.epoch).rev().map_while(|epoch| at(epoch).filter(|told| told.is_used_up));
    at(last.epoch).into_iter().chain(before).collect()
}

fn difference(end: &EpochEnd, losses: LossCounters, landed: i64) -> Option<String> {
    let EpochEnd { attempts, ring_drop, drained, .. } = *end;
    if attempts != drained + ring_drop {
        return Some(format!("{attempts} attempts, but {drained} drained + {ring_drop} ring_drop"));
    }
    if losses.ring_drop != ring_drop {
        return Some(format!("the probes dropped {ring_drop}, the ledger says {} ring_drop", losses.ring_drop));
    }
    // Beside what came out of the rings: what could not be followed, told as shed, and events of the agent's own that are lost.
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
