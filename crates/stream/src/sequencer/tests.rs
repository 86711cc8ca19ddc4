//! Any mix of replays, gaps and changing assignments: what is taken is always the next message, once.

use proptest::prelude::*;

use super::*;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

#[test]
fn a_replay_is_dropped_and_counted_and_a_gap_changes_nothing() {
    let mut sequencer = Sequencer::default();
    sequencer.assign(at(0), NextOffset(5));
    assert_eq!(sequencer.admit(&at(0), 4), Verdict::Replay);
    assert_eq!(sequencer.admit(&at(0), 7), Verdict::Gap { expected: NextOffset(5) });
    assert_eq!(sequencer.admit(&at(0), 5), Verdict::Take);
    assert_eq!(sequencer.expected(&at(0)), Some(NextOffset(6)));
    assert_eq!(sequencer.stats(), SourceStats { replayed: 1, stale: 0 });
}

#[test]
fn a_message_of_a_revoked_partition_is_never_taken() {
    let mut sequencer = Sequencer::default();
    sequencer.assign(at(0), NextOffset(0));
    sequencer.revoke(&at(0));
    assert_eq!(sequencer.admit(&at(0), 0), Verdict::Stale);
    assert_eq!(sequencer.stats().stale, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Assign(i32, i64),
    Revoke(i32),
    Deliver(i32, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..3i32, 0..6i64).prop_map(|(p, o)| Step::Assign(p, o)),
        1 => (0..3i32).prop_map(Step::Revoke),
        8 => (0..3i32, 0..12i64).prop_map(|(p, o)| Step::Deliver(p, o)),
    ]
}

proptest! {
    #[test]
    fn per_assignment_the_taken_offsets_are_contiguous_from_the_position(steps in prop::collection::vec(step(), 0..200)) {
        let mut sequencer = Sequencer::default();
        let mut model: BTreeMap<i32, i64> = BTreeMap::new();
        let (mut replayed, mut stale) = (0, 0);
        for step in steps {
            match step {
                Step::Assign(p, o) => {
                    sequencer.assign(at(p), NextOffset(o));
                    model.insert(p, o);
                }
                Step::Revoke(p) => {
                    sequencer.revoke(&at(p));
                    model.remove(&p);
                }
                Step::Deliver(p, o) => {
                    let wanted = match model.get_mut(&p) {
                        None => { stale += 1; Verdict::Stale }
                        Some(next) if o < *next => { replayed += 1; Verdict::Replay }
                        Some(next) if o == *next => { *next += 1; Verdict::Take }
                        Some(next) => Verdict::Gap { expected: NextOffset(*next) },
                    };
                    prop_assert_eq!(sequencer.admit(&at(p), o), wanted);
                }
            }
        }
        prop_assert_eq!(sequencer.stats(), SourceStats { replayed, stale });
        let positions: Vec<_> = sequencer.positions().map(|(at, next)| (at.partition, next.0)).collect();
        prop_assert_eq!(positions, model.into_iter().collect::<Vec<_>>());
    }
}
