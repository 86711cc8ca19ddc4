//! Statistics, and what counts as slow.

use event_schema::catalog::Op;

use super::*;
use crate::features::{Partition, Span};

const MS: i64 = 1_000_000;

/// Iterations of 10 ms in which the rank is busy for `busy_ms` of them.
fn series(busy_ms: impl Fn(usize) -> f64, count: usize) -> Vec<Iteration> {
    let iteration = |n: usize| Iteration {
        number: n as u64,
        span: Span { start_ns: n as i64 * 20 * MS, end_ns: (n as i64 + 1) * 20 * MS },
        offset_ns: 0,
        error_ns: 0,
        parts: Partition { wait_ns: 20 * MS - (busy_ms(n) * MS as f64) as i64, ..Partition::default() },
        copy_ns: 0,
        copy_bytes: 0,
        ended_by: Op::CudaStreamSync,
    };
    (0..count).map(iteration).collect()
}

fn slow_ranks(ranks: &[Vec<Iteration>]) -> Vec<usize> {
    let views: Vec<Vec<&Iteration>> = ranks.iter().map(|rank| rank.iter().collect()).collect();
    let comparison = Comparison::of(&views, WaitView::Calls, &Rules::default());
    (0..ranks.len()).filter(|&rank| !comparison.episodes[rank].is_empty()).collect()
}

#[test]
fn the_rank_that_is_busy_longest_is_slow_and_not_the_one_that_waits_longest() {
    let ranks = [series(|_| 8.0, 200), series(|_| 2.0, 200), series(|_| 8.2, 200), series(|_| 15.0, 200)];
    assert_eq!(slow_ranks(&ranks), [3], "rank 1 waits longest and is a victim");
}

#[test]
fn ranks_of_different_roles_are_held_against_their_own_past() {
    let usual = [4.0, 6.0, 9.0, 12.0];
    let even: Vec<_> = usual.iter().map(|&ms| series(move |_| ms, 400)).collect();
    assert_eq!(slow_ranks(&even[..3]), [0_usize; 0], "spread alone is no rank's fault");
    let later = |rank: usize| series(move |n| usual[rank] * if rank == 0 && n >= 200 { 4.6 } else { 1.0 }, 400);
    assert_eq!(slow_ranks(&(0..4).map(later).collect::<Vec<_>>()), [0]);
}

#[test]
fn a_difference_must_matter_to_the_iteration() {
    let of = |busy_ms: f64| series(move |_| busy_ms, 200);
    assert_eq!(slow_ranks(&[of(1.0), of(1.0), of(1.0), of(1.8)]), [0_usize; 0], "0.8 of 20 ms");
    assert_eq!(slow_ranks(&[of(1.0), of(1.0), of(1.0), of(2.2)]), [3]);
}

#[test]
fn a_spell_must_be_a_tenth_of_what_was_watched() {
    let spell = |count: usize| series(|n| if (100..160).contains(&n) { 16.0 } else { 8.0 }, count);
    let steady = |count: usize| series(|_| 8.0, count);
    assert_eq!(slow_ranks(&[steady(400), steady(400), spell(400)]), [2]);
    assert_eq!(slow_ranks(&[steady(2_000), steady(2_000), spell(2_000)]), [0_usize; 0]);
}

#[test]
fn a_spell_must_last_and_a_rank_that_makes_nobody_wait_is_not_slow() {
    let steady = || series(|_| 8.0, 400);
    let brief = series(|n| if (200..212).contains(&n) { 16.0 } else { 8.0 }, 400);
    assert_eq!(slow_ranks(&[steady(), steady(), steady(), brief]), [0_usize; 0]);
    let mut roomy = series(|_| 11.0, 400);
    roomy.iter_mut().for_each(|iteration| {
        iteration.span.end_ns += 3 * MS;
        iteration.parts.wait_ns = 12 * MS;
    });
    assert_eq!(slow_ranks(&[steady(), steady(), steady(), roomy]), [0_usize; 0]);
}

#[test]
fn a_rank_that_comes_no_later_than_its_peers_slows_nobody() {
    let steady = || series(|_| 8.0, 400);
    let caught_up = series(|n| if n >= 200 { 8.0 } else { 5.0 }, 400);
    assert_eq!(slow_ranks(&[steady(), steady(), steady(), caught_up]), [0_usize; 0], "slower than its past, not last");
    let hidden = [series(|_| 6.0, 400), series(|_| 12.0, 400), series(|_| 8.4, 400), series(|_| 6.0, 400)];
    assert_eq!(slow_ranks(&hidden), [1], "rank 2 is slow too, and rank 1 comes later");
}

#[test]
fn a_tile_is_much_longer_than_an_iteration_and_than_the_error_of_wall_time() {
    let tile_ns = |error_ns: i64| {
        let exact = series(|_| 8.0, 50);
        let mut vague = series(|_| 8.0, 50);
        vague.iter_mut().for_each(|iteration| iteration.error_ns = error_ns);
        vague[7].error_ns = i64::MAX;
        let ranks: Vec<Vec<&Iteration>> = [&exact, &vague].map(|rank| rank.iter().collect()).into();
        tile_length_ns(&ranks, &Rules::default())
    };
    assert!((200 * MS..400 * MS).contains(&tile_ns(100)), "ten iterations of 20 ms");
    assert!((800 * MS..1_600 * MS).contains(&tile_ns(100 * MS)), "eight times the error");
}
