//! Stretches of losses: joined where they overlap, found by time, bounded.

use super::*;

fn loss(from_ns: i64, to_ns: i64, lost: u64, made: u64) -> Loss {
    Loss { from_ns, to_ns, lost, made }
}

fn settled(losses: &[Loss]) -> NodeLosses {
    let mut node = NodeLosses::default();
    losses.iter().for_each(|loss| node.note(*loss, 0.05));
    node.settle();
    node
}

#[test]
fn losses_that_overlap_are_one_stretch_and_a_light_one_does_not_thin_a_heavy_one() {
    let of = [loss(10, 20, 50, 100), loss(0, 1_000, 1, 1_000), loss(20, 30, 10, 20), loss(40, 50, 9, 10)];
    let node = settled(&of);
    assert_eq!(node.heavy(), [loss(10, 30, 60, 120), loss(40, 50, 9, 10)]);
    assert_eq!(node.light(), [loss(0, 1_000, 1, 1_000)]);
    let backwards: Vec<Loss> = of.into_iter().rev().collect();
    assert_eq!(settled(&backwards).heavy(), node.heavy(), "the order of arrival plays no part");
}

#[test]
fn only_losses_that_share_time_with_a_stretch_are_found() {
    let of = [loss(10, 20, 1, 1), loss(30, 40, 1, 1), loss(50, 60, 1, 1)];
    let found = |from_ns, to_ns| overlapping(&of, from_ns, to_ns).len();
    assert_eq!([found(0, 9), found(20, 30), found(21, 29), found(0, 100), found(61, 70)], [0, 2, 0, 3, 0]);
}

#[test]
fn what_was_not_lost_or_ends_before_it_begins_is_no_loss() {
    let node = settled(&[loss(0, 10, 0, 100), loss(10, 0, 5, 5)]);
    assert_eq!((node.heavy(), node.light()), (&[] as &[Loss], &[] as &[Loss]));
    assert_eq!(loss(0, 1, 7, 0).share(), 1.0, "more cannot be lost than was made");
}

#[test]
fn many_stretches_are_kept_in_bounded_memory_and_none_is_forgotten() {
    let of: Vec<Loss> = (0..20_000).map(|n| loss(n * 10, n * 10 + 1, 1, 2)).collect();
    let node = settled(&of);
    assert!(node.heavy().len() <= STRETCHES_MAX, "{}", node.heavy().len());
    assert_eq!(node.heavy().iter().map(|loss| loss.lost).sum::<u64>(), 20_000);
    assert_eq!((node.heavy()[0].from_ns, node.heavy().last().map(|loss| loss.to_ns)), (0, Some(199_991)));
}
