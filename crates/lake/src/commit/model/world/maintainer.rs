//! The second actor of the model: a maintainer that replaces files and expires snapshots beside the writers, and a reader that
//! pins a snapshot.

use uuid::Uuid;

use super::{MAINTAINER, NEW_LOCATION, NEW_TOKEN, Request, Rules, State, index_of};
use crate::commit::model::step::{Action, Arm};
use crate::commit::model::table::{Author, File, Table, Upkeep, token};
use crate::commit::{Attempt, Held, Reply, Resolved};

/// Where the maintainer is with its change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Maintainer {
    Idle,
    /// About to read the head. The version it planned on is kept for wrong versions of the protocol.
    Deciding {
        upkeep: Upkeep,
        planned_on: Box<Table>,
        reply: Reply,
    },
    /// A commit to this location was sent.
    Waiting {
        upkeep: Upkeep,
        planned_on: Box<Table>,
        location: u8,
    },
}

impl Maintainer {
    /// As [`State::normalize`].
    pub(super) fn normalize(&mut self, rules: &Rules, names: &mut Vec<u8>) {
        match self {
            Self::Idle => {}
            Self::Deciding { planned_on, .. } => forget(rules, planned_on),
            Self::Waiting { planned_on, location, .. } => {
                *location = index_of(names, *location);
                forget(rules, planned_on);
            }
        }
    }
}

/// Leaves of a version that was planned on what is looked at.
fn forget(rules: &Rules, planned_on: &mut Table) {
    if rules.keeps_plan {
        planned_on.location = 0;
        planned_on.tokens.clear();
    } else {
        *planned_on = Table::empty(0, 0);
    }
}

impl State {
    pub(super) fn maintainer_actions(&self, actions: &mut Vec<Action>) {
        match &self.maintainer {
            Maintainer::Idle => {
                let has_files = self.table.files.iter().any(|file| !file.is_of(Author::Maintainer));
                actions.extend((self.faults.rewrites > 0 && has_files).then_some(Action::PlanReplace));
                for snapshot in (1..=self.table.current).filter(|_| self.faults.expiries > 0) {
                    let is_there = self.table.snapshots & (1 << snapshot) != 0;
                    actions.extend(is_there.then_some(Action::PlanExpire(snapshot)));
                }
            }
            Maintainer::Deciding { .. } => actions.push(Action::Maintain),
            Maintainer::Waiting { .. } => {
                actions.extend((self.faults.losses > 0).then_some(Action::Timeout(MAINTAINER)));
            }
        }
        for snapshot in (1..=self.table.current).filter(|_| self.faults.pins > 0) {
            let is_there = self.table.snapshots & (1 << snapshot) != 0;
            actions.extend(is_there.then_some(Action::Pin(snapshot)));
        }
    }

    /// Reads every live file, and makes one of them.
    pub(super) fn plan_replace(&mut self) {
        self.faults.rewrites -= 1;
        let inputs = self.table.files.iter().map(|file| file.name).collect();
        let output = File::of_all(&self.table.files, Author::Maintainer);
        self.plan(Upkeep::Replace { inputs, output });
    }

    pub(super) fn plan_expire(&mut self, snapshot: u8) {
        self.faults.expiries -= 1;
        self.plan(Upkeep::Expire { snapshot });
    }

    fn plan(&mut self, upkeep: Upkeep) {
        let planned_on = Box::new(self.table.clone());
        self.maintainer = Maintainer::Deciding { upkeep, planned_on, reply: Reply::NotSent };
    }

    /// A reader pins a snapshot: a commit of properties alone.
    pub(super) fn pin(&mut self, snapshot: u8) {
        self.faults.pins -= 1;
        self.table.pinned |= 1 << snapshot;
        self.table.location = NEW_LOCATION;
    }

    /// Reads the head after a reply, checks the change and sends it.
    pub(super) fn maintain(&mut self, rules: &Rules) -> Option<Arm> {
        let Maintainer::Deciding { upkeep, planned_on, reply } = self.maintainer.clone() else { return None };
        let head = (rules.facts)(&self.table);
        let attempt = Attempt { table: Uuid::nil(), seen_sequence: 0, token: token(NEW_TOKEN + MAINTAINER) };
        match (rules.resolve)(reply, &head, &attempt) {
            Resolved::Committed => {
                self.maintainer = Maintainer::Idle;
                return Some(Arm::UpkeepFound);
            }
            Resolved::Stop(_) => {
                self.maintainer = Maintainer::Idle;
                return None;
            }
            Resolved::Open => {}
        }
        if !is_valid(rules, &upkeep, &self.table) {
            self.maintainer = Maintainer::Idle;
            return Some(Arm::UpkeepRefused);
        }
        let mut next = (rules.maintain)(&self.table, &upkeep, &planned_on);
        next.location = NEW_LOCATION;
        next.tokens.push(NEW_TOKEN + MAINTAINER);
        if matches!(upkeep, Upkeep::Replace { .. }) {
            next.add_snapshot(self.tracks);
            (rules.thin)(&mut next);
        }
        self.requests.push(Request { writer: MAINTAINER, base: self.table.location, next });
        self.maintainer = Maintainer::Waiting { upkeep, planned_on, location: NEW_LOCATION };
        None
    }

    pub(super) fn maintainer_lost_its_reply(&mut self) {
        if let Maintainer::Waiting { upkeep, planned_on, .. } = self.maintainer.clone() {
            self.maintainer = Maintainer::Deciding { upkeep, planned_on, reply: Reply::Unknown };
        }
    }

    /// The reply to the maintainer's commit.
    pub(super) fn maintainer_heard(&mut self, applied: bool) -> Option<Arm> {
        let Maintainer::Waiting { upkeep, planned_on, .. } = self.maintainer.clone() else { return None };
        if !applied {
            self.maintainer = Maintainer::Deciding { upkeep, planned_on, reply: Reply::Lost };
            return Some(Arm::UpkeepRaced);
        }
        self.maintainer = Maintainer::Idle;
        Some(match upkeep {
            Upkeep::Replace { .. } => Arm::Replaced,
            Upkeep::Expire { .. } => Arm::Expired,
        })
    }
}

fn is_valid(rules: &Rules, upkeep: &Upkeep, table: &Table) -> bool {
    match upkeep {
        Upkeep::Replace { inputs, .. } => {
            let live: Vec<u8> = table.files.iter().map(|file| file.name).collect();
            (rules.still_live)(&inputs.iter().copied().collect(), live).is_ok()
        }
        Upkeep::Expire { snapshot } => {
            let pinned = (1..16).filter(|bit| table.pinned & (1 << bit) != 0).map(i64::from).collect();
            let held = Held { current: Some(table.current.into()), pinned, ..Held::default() };
            (rules.may_expire)(&[i64::from(*snapshot)].into(), &held).is_ok()
        }
    }
}

/// The version after a change of the maintainer: everything that the change does not name is carried on.
pub(crate) fn maintained(head: &Table, upkeep: &Upkeep, _planned_on: &Table) -> Table {
    let mut next = head.clone();
    match upkeep {
        Upkeep::Replace { inputs, output } => {
            next.remove_files(inputs);
            next.add_file(output.clone());
        }
        Upkeep::Expire { snapshot } => next.snapshots &= !(1 << snapshot),
    }
    next
}
