//! Explores every interleaving of two writers and a maintainer over the shipped `decide`, `after` and `advance`: crashes and restarts,
//! requests applied late, replies lost, partitions taken over while the old owner goes on, a maintainer that replaces files and expires snapshots in between, commits that thin the snapshots. Wrong
//! versions of the same functions stand in for the mistakes other systems made, and each must be caught.

mod defects;
mod log;
mod step;
mod table;
mod world;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use step::{Action, Arm};
use world::{Faults, Rules, State};

/// The model: two writers, one table, a budget of faults.
pub(super) struct Sink {
    rules: Rules,
    faults: Faults,
    /// Bit per [`Arm`] that some step took. Kept out of the state, which it would multiply.
    reached: AtomicU32,
}

impl Sink {
    fn new(rules: Rules, faults: Faults) -> Self {
        Self { rules, faults, reached: AtomicU32::new(0) }
    }

    fn has_reached(&self, arm: Arm) -> bool {
        self.reached.load(Ordering::Relaxed) & (1 << arm as u32) != 0
    }
}

impl Model for Sink {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self.faults)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        if let Some(arm) = next.step(&self.rules, action) {
            self.reached.fetch_or(1 << arm as u32, Ordering::Relaxed);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no offset lands twice", |_, s: &State| s.table.landed.iter().flatten().all(|n| *n <= 1)),
            Property::always("no gap: offsets say what landed", |_, s: &State| s.table.offsets_match_rows()),
            Property::sometimes("lands", |m: &Self, _: &State| m.has_reached(Arm::Land)),
            Property::always("what readers need is in the metadata", |_, s: &State| s.table.keeps_what_is_needed()),
            Property::sometimes("retries after a lost race", |m: &Self, _: &State| m.has_reached(Arm::RetryLost)),
            Property::sometimes("finds its own commit after a lost reply", |m: &Self, _: &State| {
                m.has_reached(Arm::UnknownFound)
            }),
            Property::sometimes("retries after a lost reply", |m: &Self, _: &State| m.has_reached(Arm::UnknownRetried)),
            Property::sometimes("a request of the past is applied late", |m: &Self, _: &State| {
                m.has_reached(Arm::LateApply)
            }),
        ];
        properties.extend(self.maintainer_properties());
        if self.faults.replaces == 0 && self.faults.restores == 0 {
            properties.extend([
                Property::always("what was acknowledged is in the table", |_, s: &State| !s.lied),
                Property::always("no writer stops", |_, s: &State| s.no_writer_stopped()),
                Property::eventually("the whole log lands", |_, s: &State| s.table.holds_whole_log()),
            ]);
        } else {
            properties.push(Property::sometimes("stops", |m: &Self, _: &State| m.has_reached(Arm::Stop)));
        }
        properties
    }
}

impl Sink {
    /// What the maintainer, and partitions taken over, must have led to somewhere.
    fn maintainer_properties(&self) -> Vec<Property<Self>> {
        let mut properties = Vec::new();
        if self.faults.steals > 0 {
            properties.extend([
                Property::sometimes("trims", |m: &Self, _: &State| m.has_reached(Arm::Trim)),
                Property::sometimes("drops", |m: &Self, _: &State| m.has_reached(Arm::Drop)),
                Property::sometimes("is fenced", |m: &Self, _: &State| m.has_reached(Arm::Fenced)),
            ]);
        }
        if self.faults.rewrites + self.faults.expiries > 0 {
            properties.extend([
                Property::sometimes("maintenance loses a race", |m: &Self, _: &State| m.has_reached(Arm::UpkeepRaced)),
                Property::sometimes("maintenance is refused", |m: &Self, _: &State| m.has_reached(Arm::UpkeepRefused)),
                Property::sometimes("maintenance is known by its token", |m: &Self, _: &State| {
                    m.has_reached(Arm::UpkeepFound)
                }),
            ]);
        }
        if self.faults.rewrites > 0 {
            properties.push(Property::sometimes("replaces", |m: &Self, _: &State| m.has_reached(Arm::Replaced)));
        }
        if self.faults.expiries > 0 {
            properties.push(Property::sometimes("expires", |m: &Self, _: &State| m.has_reached(Arm::Expired)));
        }
        properties
    }
}

/// Faults of one run of the model. Few suffice: every known bug of this kind needs at most two.
const NONE: Faults = Faults {
    losses: 0,
    crashes: 0,
    steals: 0,
    compactions: 0,
    replaces: 0,
    restores: 0,
    rewrites: 0,
    expiries: 0,
    pins: 0,
};
const ORDINARY: Faults = Faults { losses: 2, crashes: 1, steals: 1, compactions: 1, ..NONE };
const REPLACED: Faults = Faults { losses: 1, steals: 1, replaces: 1, ..NONE };
const RESTORED: Faults = Faults { losses: 1, steals: 1, restores: 1, ..NONE };
/// A maintainer that rewrites files beside the writers, and another program that does so too.
const REWRITING: Faults = Faults { losses: 1, compactions: 1, rewrites: 1, ..NONE };
/// A maintainer that takes out snapshots beside the writers, and a reader that pins one.
const EXPIRING: Faults = Faults { losses: 1, expiries: 1, pins: 1, ..NONE };

fn explore(rules: Rules, faults: Faults, until: HasDiscoveries) -> (Vec<String>, usize, f64) {
    let started = Instant::now();
    let name = rules.name;
    let checker = Sink::new(rules, faults).checker().threads(2).finish_when(until).spawn_bfs().join();
    let failures = checker.model().properties().into_iter().filter(|p| {
        let found = checker.discovery(p.name).is_some();
        found != (p.expectation == stateright::Expectation::Sometimes)
    });
    let failures: Vec<String> = failures.map(|p| p.name.to_owned()).collect();
    let seconds = started.elapsed().as_secs_f64();
    println!("{name}: {} states in {seconds:.1} s, depth {}", checker.unique_state_count(), checker.max_depth());
    (failures, checker.unique_state_count(), seconds)
}

#[test]
fn every_interleaving_lands_every_offset_exactly_once() {
    let (failures, states, _) = explore(Rules::SHIPPED, ORDINARY, HasDiscoveries::AnyFailures);
    assert_eq!(failures, [""; 0], "broken laws, or arms never reached");
    assert!(states >= 100_000, "{states} states are too few to mean anything");
}

#[test]
fn a_maintainer_beside_the_writers_loses_and_repeats_nothing_and_keeps_what_readers_need() {
    for faults in [REWRITING, EXPIRING] {
        let (failures, states, _) = explore(Rules::SHIPPED, faults, HasDiscoveries::AnyFailures);
        assert_eq!(failures, [""; 0], "broken laws, or arms never reached");
        assert!(states >= 10_000, "{states} states are too few to mean anything");
    }
}

#[test]
fn a_replaced_or_restored_table_stops_the_writers_before_they_do_harm() {
    for faults in [REPLACED, RESTORED] {
        let (failures, states, _) = explore(Rules::SHIPPED, faults, HasDiscoveries::AnyFailures);
        assert_eq!(failures, [""; 0]);
        assert!(states >= 5_000, "{states}");
    }
}

#[test]
fn every_planted_defect_is_caught() {
    let mut escaped = Vec::new();
    for (rules, faults) in defects::all() {
        let name = rules.name;
        let checker =
            Sink::new(rules, faults).checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let laws = checker.model().properties().into_iter();
        let laws = laws.filter(|p| p.expectation != stateright::Expectation::Sometimes);
        let caught =
            laws.filter_map(|p| checker.discovery(p.name).map(|path| (p.name, path.into_actions().len()))).next();
        match caught {
            Some((law, steps)) => {
                println!("{name}: caught by \"{law}\" after {steps} steps, {} states", checker.unique_state_count());
            }
            None => escaped.push(name),
        }
    }
    assert_eq!(escaped, [""; 0], "the model does not see these mistakes");
}
