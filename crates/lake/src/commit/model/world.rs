//! The world of the model: a table behind a compare-and-swap, two writers and a maintainer, requests on their way, and what may
//! go wrong.

mod maintainer;

use std::collections::BTreeSet;

use event_schema::position::OffsetRange;
use uuid::Uuid;

use super::log::{LOG_BEGINS, LOG_END, LOG_ENDS, PARTITIONS};
use super::step::{Action, Arm, arm};
use super::table::{Author, Batch, File, Offsets, Table, Tracks, Upkeep, partition, token};
use crate::commit::{
    Attempt, BatchFacts, Held, Next, NotLive, Reply, Resolved, Retained, advance, after, may_expire, resolve,
    still_live,
};
use crate::table::positions::HeadFacts;
use maintainer::Maintainer;
pub(super) use maintainer::maintained;

const WRITERS: usize = 2;
/// The maintainer among the processes that send requests.
const MAINTAINER: u8 = WRITERS as u8;

type StillLive = fn(&BTreeSet<u8>, Vec<u8>) -> Result<(), NotLive<u8>>;
type MayExpire = fn(&BTreeSet<i64>, &Held) -> Result<(), Retained>;

/// The functions under test. Everything else of the world is the same for the shipped ones and the wrong ones.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) name: &'static str,
    pub(crate) facts: fn(&Table) -> HeadFacts,
    pub(crate) after: fn(Reply, &HeadFacts, &BatchFacts) -> Next,
    pub(crate) advance: fn(&Offsets, &[OffsetRange]) -> Offsets,
    /// The maintainer's part of the protocol.
    pub(crate) resolve: fn(Reply, &HeadFacts, &Attempt) -> Resolved,
    pub(crate) still_live: StillLive,
    pub(crate) may_expire: MayExpire,
    /// The version that a change of the maintainer makes of a head; also given: the version it was planned on.
    pub(crate) maintain: fn(&Table, &Upkeep, &Table) -> Table,
    /// Takes out the snapshots that the grid does not keep, with every commit that adds one.
    pub(crate) thin: fn(&mut Table),
    /// Whether a swap that started from `base` is applied when the pointer is at `current`.
    pub(crate) swaps: fn(base: u8, current: u8) -> bool,
    /// The snapshot summary is read.
    pub(crate) keeps_summary: bool,
    /// The maintainer looks at the version it planned on.
    pub(crate) keeps_plan: bool,
}

impl Rules {
    pub(crate) const SHIPPED: Self = Self {
        name: "shipped",
        facts: Table::facts,
        after,
        advance,
        resolve,
        still_live,
        may_expire,
        maintain: maintained,
        thin: Table::thin,
        swaps: |base, current| base == current,
        keeps_summary: false,
        keeps_plan: false,
    };
}

/// How many faults of each kind one run may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    pub(crate) losses: u8,
    pub(crate) crashes: u8,
    pub(crate) steals: u8,
    pub(crate) compactions: u8,
    pub(crate) replaces: u8,
    pub(crate) restores: u8,
    /// Replacements by the maintainer.
    pub(crate) rewrites: u8,
    /// Snapshots that the maintainer takes out.
    pub(crate) expiries: u8,
    /// Snapshots that a reader pins.
    pub(crate) pins: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Down,
    Idle,
    /// About to read the head; the reply is that of the attempt before.
    Deciding(Batch, Reply),
    /// A swap to this location was sent.
    Waiting(Batch, u8),
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Writer {
    phase: Phase,
    owns: [bool; PARTITIONS],
    /// The next offset to fetch, as this process believes.
    position: [u8; PARTITIONS],
    table: u8,
    seen: u8,
}

impl Writer {
    fn owning(owns: [bool; PARTITIONS]) -> Self {
        Self { phase: Phase::Idle, owns, position: [0; PARTITIONS], table: 0, seen: 0 }
    }

    /// How many messages of a partition it has not fetched yet.
    fn left(&self, p: usize) -> u8 {
        LOG_ENDS[p].saturating_sub(self.begin(p))
    }

    /// Where the next batch of a partition begins.
    fn begin(&self, p: usize) -> u8 {
        self.position[p].max(LOG_BEGINS[p])
    }
}

/// A swap on its way to the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    writer: u8,
    base: u8,
    next: Table,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) table: Table,
    /// The first version with rows, for a restore.
    backup: Option<Table>,
    writers: [Writer; WRITERS],
    maintainer: Maintainer,
    tracks: Tracks,
    requests: Vec<Request>,
    /// A writer was answered that rows had landed which are not in the table.
    pub(crate) lied: bool,
    faults: Faults,
    /// The table may go back in this run, so sequence numbers matter.
    goes_back: bool,
}

/// Stands for a location that is not named until [`State::normalize`] names it.
const NEW_LOCATION: u8 = 255;
/// As [`NEW_LOCATION`]: no batch that ever was has this token.
const NEW_TOKEN: u8 = 100;

fn index_of(names: &mut Vec<u8>, name: u8) -> u8 {
    let known = names.iter().position(|n| *n == name);
    known.unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    }) as u8
}

impl State {
    pub(crate) fn start(faults: Faults) -> Self {
        Self {
            table: Table::empty(0, 0),
            backup: None,
            writers: [Writer::owning([true, false]), Writer::owning([false, true])],
            maintainer: Maintainer::Idle,
            tracks: Tracks { files: faults.rewrites > 0, snapshots: faults.expiries > 0 },
            requests: Vec::new(),
            lied: false,
            faults,
            goes_back: faults.restores > 0,
        }
    }

    pub(crate) fn no_writer_stopped(&self) -> bool {
        self.writers.iter().all(|writer| writer.phase != Phase::Stopped)
    }

    pub(crate) fn actions(&self, actions: &mut Vec<Action>) {
        for (i, writer) in self.writers.iter().enumerate() {
            self.writer_actions(i as u8, writer, actions);
        }
        for (i, request) in self.requests.iter().enumerate() {
            let i = i as u8;
            actions.push(Action::Apply(i));
            if self.faults.losses > 0 && self.awaited(request) {
                actions.extend([Action::ApplyUnheard(i), Action::Vanish(i)]);
            }
        }
        self.maintainer_actions(actions);
        let landed = self.table.offsets != [0; PARTITIONS];
        actions.extend((landed && self.faults.compactions > 0).then_some(Action::Compact));
        actions.extend((landed && self.faults.replaces > 0).then_some(Action::Replace));
        let moved = self.backup.as_ref().is_some_and(|backup| backup.location != self.table.location);
        actions.extend((moved && self.faults.restores > 0).then_some(Action::Restore));
    }

    fn writer_actions(&self, i: u8, writer: &Writer, actions: &mut Vec<Action>) {
        match &writer.phase {
            Phase::Down => actions.push(Action::Restart(i)),
            Phase::Stopped => {}
            Phase::Idle => {
                let owned = (0..PARTITIONS).filter(|p| writer.owns[*p]);
                let most = owned.map(|p| writer.left(p)).max().unwrap_or(0);
                actions.extend((most > 0).then_some(Action::Fetch(i, 1)));
                actions.extend((most > 1).then_some(Action::Fetch(i, LOG_END as u8)));
                let foreign = (0..PARTITIONS).filter(|p| !writer.owns[*p] && self.faults.steals > 0);
                actions.extend(foreign.map(|p| Action::Steal(i, p as u8)));
            }
            Phase::Deciding(..) => actions.push(Action::Decide(i)),
            Phase::Waiting(..) => actions.extend((self.faults.losses > 0).then_some(Action::Timeout(i))),
        }
        if self.faults.crashes > 0 && !matches!(writer.phase, Phase::Down | Phase::Stopped) {
            actions.push(Action::Crash(i));
        }
    }

    fn awaited(&self, request: &Request) -> bool {
        if request.writer == MAINTAINER {
            return matches!(&self.maintainer, Maintainer::Waiting { location, .. } if *location == request.next.location);
        }
        let phase = &self.writers[usize::from(request.writer)].phase;
        matches!(phase, Phase::Waiting(_, location) if *location == request.next.location)
    }

    /// Takes one step and says what it was, when that is worth knowing.
    pub(crate) fn step(&mut self, rules: &Rules, action: Action) -> Option<Arm> {
        let arm = self.act(rules, action);
        self.normalize(rules);
        arm
    }

    fn act(&mut self, rules: &Rules, action: Action) -> Option<Arm> {
        match action {
            Action::Fetch(w, n) => return Some(self.fetch(rules, w, n)),
            Action::Decide(w) => return Some(self.decide(rules, w)),
            Action::Apply(i) => return self.apply(rules, i),
            Action::ApplyUnheard(i) => {
                self.faults.losses -= 1;
                let writer = self.requests[usize::from(i)].writer;
                self.forget_reply(writer);
                self.apply(rules, i);
            }
            Action::Vanish(i) => {
                self.faults.losses -= 1;
                let request = self.requests.remove(i.into());
                self.forget_reply(request.writer);
            }
            Action::Timeout(w) => {
                self.faults.losses -= 1;
                self.forget_reply(w);
            }
            Action::Crash(w) => {
                self.faults.crashes -= 1;
                self.writers[usize::from(w)].phase = Phase::Down;
            }
            Action::Restart(w) => {
                let restarted = Writer {
                    phase: Phase::Idle,
                    owns: self.writers[usize::from(w)].owns,
                    position: self.table_offsets(rules),
                    table: self.table.uuid,
                    seen: self.table.sequence,
                };
                self.writers[usize::from(w)] = restarted;
            }
            Action::Steal(w, p) => {
                self.faults.steals -= 1;
                let offset = self.table_offsets(rules)[usize::from(p)];
                let writer = &mut self.writers[usize::from(w)];
                writer.owns[usize::from(p)] = true;
                writer.position[usize::from(p)] = offset;
            }
            Action::PlanReplace => self.plan_replace(),
            Action::PlanExpire(snapshot) => self.plan_expire(snapshot),
            Action::Maintain => return self.maintain(rules),
            Action::Pin(snapshot) => self.pin(snapshot),
            Action::Compact | Action::Replace | Action::Restore => self.administer(action),
        }
        None
    }

    /// What others do to the table.
    fn administer(&mut self, action: Action) {
        match action {
            Action::Compact => {
                self.faults.compactions -= 1;
                if self.tracks.files {
                    self.table.files = vec![File::of_all(&self.table.files, Author::Foreign)];
                }
                self.table.add_snapshot(self.tracks);
                self.table.summary.clear();
                self.table.location = NEW_LOCATION;
            }
            Action::Replace => {
                self.faults.replaces -= 1;
                self.table = Table::empty(self.table.uuid + 1, NEW_LOCATION);
            }
            _ => {
                self.faults.restores -= 1;
                self.table = self.backup.clone().expect("offered only with a backup");
            }
        }
    }

    /// Makes states alike that differ only in names or in what cannot be seen any more.
    fn normalize(&mut self, rules: &Rules) {
        let backup = self.backup.as_ref().filter(|_| self.faults.restores > 0).map(|b| b.location);
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain(|r| (rules.swaps)(r.base, self.table.location) || backup == Some(r.base) || self.awaited(r));
        self.requests = requests;
        if self.faults.restores == 0 {
            self.backup = None;
        }

        let held = [0, 1].map(|w: usize| match &mut self.writers[w].phase {
            Phase::Deciding(batch, _) | Phase::Waiting(batch, _) => {
                Some((std::mem::replace(&mut batch.token, w as u8), w as u8))
            }
            _ => None,
        });
        let maintainer_holds = self.maintainer != Maintainer::Idle;
        let own = NEW_TOKEN + MAINTAINER;
        let rename = |t: u8| match held.iter().flatten().find(|(old, _)| *old == t) {
            Some((_, new)) => Some(*new),
            None => (t == own && maintainer_holds).then_some(own),
        };
        let mut names = vec![self.table.location];
        let keeps_sequence = self.goes_back;
        let tables = [&mut self.table].into_iter().chain(&mut self.backup);
        for table in tables.chain(self.requests.iter_mut().map(|r| &mut r.next)) {
            table.tokens = table.tokens.iter().filter_map(|t| rename(*t)).collect();
            table.tokens.sort_unstable();
            table.sequence *= u8::from(keeps_sequence);
            table.files.sort_unstable();
            if !rules.keeps_summary {
                table.summary.clear();
            }
            table.location = index_of(&mut names, table.location);
        }
        self.requests.iter_mut().for_each(|r| r.base = index_of(&mut names, r.base));
        self.maintainer.normalize(rules, &mut names);
        for writer in &mut self.writers {
            writer.seen *= u8::from(keeps_sequence);
            if let Phase::Waiting(_, location) = &mut writer.phase {
                *location = index_of(&mut names, *location);
            }
        }
    }

    /// What a restarting writer reads as its positions.
    fn table_offsets(&self, rules: &Rules) -> [u8; PARTITIONS] {
        let facts = (rules.facts)(&self.table);
        [0, 1].map(|p| facts.offsets.get(&partition(p)).copied().unwrap_or_default().0 as u8)
    }

    fn fetch(&mut self, rules: &Rules, w: u8, n: u8) -> Arm {
        let writer = &self.writers[usize::from(w)];
        let mut parts = Vec::new();
        for p in (0..PARTITIONS).filter(|p| writer.owns[*p]) {
            let start = writer.begin(p);
            let end = (start + n).min(LOG_ENDS[p]);
            if start < end {
                parts.push((p as u8, start, end));
            }
        }
        let batch = Batch { token: NEW_TOKEN + w, parts };
        self.writers[usize::from(w)].phase = Phase::Deciding(batch, Reply::NotSent);
        self.decide(rules, w)
    }

    fn forget_reply(&mut self, w: u8) {
        if w == MAINTAINER {
            return self.maintainer_lost_its_reply();
        }
        let writer = &mut self.writers[usize::from(w)];
        if let Phase::Waiting(batch, _) = &writer.phase {
            writer.phase = Phase::Deciding(batch.clone(), Reply::Unknown);
        }
    }

    fn decide(&mut self, rules: &Rules, w: u8) -> Arm {
        let writer = &self.writers[usize::from(w)];
        let Phase::Deciding(batch, reply) = writer.phase.clone() else { unreachable!("offered only when deciding") };
        let head = (rules.facts)(&self.table);
        let attempt = Attempt {
            table: Uuid::from_u128(writer.table.into()),
            seen_sequence: writer.seen.into(),
            token: token(batch.token),
        };
        let hand = BatchFacts { attempt, ranges: batch.ranges(), gaps: batch.gaps() };
        let next = (rules.after)(reply, &head, &hand);
        let arm = arm(&next, reply, &head, &hand);
        if next == Next::Retry {
            let offsets = (rules.advance)(&head.offsets, &batch.ranges());
            let mut next = self.table.with(NEW_LOCATION, &batch, &offsets, self.tracks);
            (rules.thin)(&mut next);
            self.requests.push(Request { writer: w, base: self.table.location, next });
            self.writers[usize::from(w)].phase = Phase::Waiting(batch, NEW_LOCATION);
        } else {
            self.conclude(w, batch, next);
        }
        let writer = &mut self.writers[usize::from(w)];
        if writer.table == self.table.uuid {
            writer.seen = writer.seen.max(self.table.sequence);
        }
        arm
    }

    fn conclude(&mut self, w: u8, batch: Batch, next: Next) {
        if next == Next::Committed {
            self.lied |= !batch.parts.iter().all(|(p, start, end)| (*start..*end).all(|i| self.table.has(*p, i)));
        }
        let phase = match next {
            Next::Committed | Next::Drop => {
                // The pipeline goes on behind the batch: it has fetched further meanwhile.
                let writer = &mut self.writers[usize::from(w)];
                for (p, _, end) in &batch.parts {
                    let position = &mut writer.position[usize::from(*p)];
                    *position = (*position).max(*end);
                }
                Phase::Idle
            }
            Next::Trim(keep) => {
                let parts = keep.iter().map(|r| (r.at.partition as u8, r.start as u8, r.end as u8));
                let batch = Batch { token: NEW_TOKEN + w, parts: parts.collect() };
                Phase::Deciding(batch, Reply::NotSent)
            }
            Next::Stop(_) => Phase::Stopped,
            Next::Retry => Phase::Deciding(batch, Reply::NotSent),
        };
        self.writers[usize::from(w)].phase = phase;
    }

    fn apply(&mut self, rules: &Rules, i: u8) -> Option<Arm> {
        let awaited = self.awaited(&self.requests[usize::from(i)]);
        let request = self.requests.remove(i.into());
        let applied = (rules.swaps)(request.base, self.table.location);
        if applied {
            self.table = request.next;
            self.backup = self.backup.take().or_else(|| Some(self.table.clone()));
        }
        if !awaited {
            return applied.then_some(Arm::LateApply);
        }
        if request.writer == MAINTAINER {
            return self.maintainer_heard(applied);
        }
        let Phase::Waiting(batch, _) = self.writers[usize::from(request.writer)].phase.clone() else { return None };
        if applied {
            let head = (rules.facts)(&self.table);
            let attempt = Attempt { table: head.table, seen_sequence: 0, token: token(batch.token) };
            let hand = BatchFacts { attempt, ranges: batch.ranges(), gaps: batch.gaps() };
            self.conclude(request.writer, batch, (rules.after)(Reply::Applied, &head, &hand));
        } else {
            self.writers[usize::from(request.writer)].phase = Phase::Deciding(batch, Reply::Lost);
        }
        None
    }
}
