use event_schema::position::{NextOffset, TopicPartition};
use uuid::Uuid;

use super::*;
use crate::table::Token;

fn at(p: i32) -> TopicPartition {
    TopicPartition::new("events", p)
}

fn range(p: i32, start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(at(p), start, end)
}

fn token(n: u128) -> Token {
    Token::from_uuid(Uuid::from_u128(n))
}

fn head(offsets: &[(i32, i64)]) -> HeadFacts {
    HeadFacts {
        table: Uuid::nil(),
        sequence: 5,
        offsets: offsets.iter().map(|(p, o)| (at(*p), NextOffset(*o))).collect(),
        offsets_complete: true,
        tokens: vec![token(1), token(2)],
    }
}

fn attempt(n: u128) -> Attempt {
    Attempt { table: Uuid::nil(), seen_sequence: 5, token: token(n) }
}

fn batch(ranges: &[OffsetRange]) -> BatchFacts {
    BatchFacts { attempt: attempt(9), ranges: ranges.to_vec(), gaps: vec![] }
}

#[test]
fn a_batch_that_continues_every_partition_lands() {
    assert_eq!(decide(&head(&[(0, 10), (1, 4)]), &batch(&[range(0, 10, 20), range(1, 4, 5)])), Decision::Land);
    assert_eq!(decide(&head(&[]), &batch(&[range(7, 0, 1)])), Decision::Land, "an unseen partition starts at 0");
}

#[test]
fn a_strict_prefix_that_landed_is_trimmed_off() {
    let kept = decide(&head(&[(0, 13), (1, 4)]), &batch(&[range(0, 10, 20), range(1, 4, 5)]));
    assert_eq!(kept, Decision::Trim(vec![range(0, 13, 20), range(1, 4, 5)]));
}

#[test]
fn a_partition_that_landed_whole_is_left_out_and_the_rest_kept() {
    let kept = decide(&head(&[(0, 20), (1, 4)]), &batch(&[range(0, 10, 20), range(1, 4, 5)]));
    assert_eq!(kept, Decision::Trim(vec![range(1, 4, 5)]));
}

#[test]
fn a_batch_that_landed_or_was_overtaken_is_dropped() {
    for landed in [20, 21, 1_000] {
        assert_eq!(decide(&head(&[(0, landed)]), &batch(&[range(0, 10, 20)])), Decision::Drop, "{landed}");
    }
    let known = BatchFacts { attempt: attempt(2), ..batch(&[range(0, 10, 20)]) };
    assert_eq!(after(Reply::NotSent, &head(&[(0, 10)]), &known), Next::Committed);
}

#[test]
fn a_gap_stops_unless_it_is_explained_up_to_the_start_of_the_range() {
    let stop = Decision::Stop(StopReason::Gap { at: at(0), expected: 10, start: 15 });
    let behind = batch(&[range(0, 15, 20)]);
    assert_eq!(decide(&head(&[(0, 10)]), &behind), stop);
    let with_gap = |gap| BatchFacts { gaps: vec![gap], ..behind.clone() };
    assert_eq!(decide(&head(&[(0, 10)]), &with_gap(range(0, 10, 15))), Decision::Land);
    assert_eq!(decide(&head(&[(0, 12)]), &with_gap(range(0, 10, 15))), Decision::Land, "part of the gap is behind us");
    for gap in [range(0, 11, 15), range(0, 10, 14), range(1, 10, 15)] {
        assert_eq!(decide(&head(&[(0, 10)]), &with_gap(gap)), stop);
    }
    assert_eq!(
        decide(&head(&[]), &batch(&[range(3, 1, 2)])),
        Decision::Stop(StopReason::Gap { at: at(3), expected: 0, start: 1 })
    );
}

/// The log was replaced behind the gap: nothing follows it.
#[test]
fn a_gap_with_nothing_behind_it_moves_the_offset_once() {
    let closing = BatchFacts { gaps: vec![range(0, 10, 15)], ..batch(&[range(0, 15, 15)]) };
    assert_eq!(decide(&head(&[(0, 10)]), &closing), Decision::Land);
    assert_eq!(decide(&head(&[(0, 12)]), &closing), Decision::Land, "part of the gap is behind us");
    assert_eq!(decide(&head(&[(0, 15)]), &closing), Decision::Drop);
    let stop = Decision::Stop(StopReason::Gap { at: at(0), expected: 9, start: 15 });
    assert_eq!(decide(&head(&[(0, 9)]), &closing), stop);
    let unexplained = BatchFacts { gaps: vec![range(1, 10, 15)], ..closing };
    assert!(matches!(decide(&head(&[(0, 10)]), &unexplained), Decision::Stop(StopReason::Request(_))));
}

#[test]
fn a_table_that_is_not_the_one_expected_stops() {
    let other = HeadFacts { table: Uuid::from_u128(7), ..head(&[(0, 10)]) };
    let hand = batch(&[range(0, 10, 20)]);
    let replaced = StopReason::TableReplaced { expected: Uuid::nil(), found: Uuid::from_u128(7) };
    assert_eq!(after(Reply::Lost, &other, &hand), Next::Stop(replaced));
    let back = HeadFacts { sequence: 4, ..head(&[(0, 10)]) };
    assert_eq!(after(Reply::Lost, &back, &hand), Next::Stop(StopReason::WentBack { seen: 5, found: 4 }));
    let stripped = HeadFacts { offsets_complete: false, ..head(&[]) };
    assert_eq!(decide(&stripped, &hand), Decision::Stop(StopReason::OffsetsMissing));
}

#[test]
fn a_malformed_request_stops() {
    for ranges in [vec![range(0, 10, 10)], vec![range(0, -1, 5)], vec![range(0, 10, 11), range(0, 11, 12)]] {
        let decision = decide(&head(&[(0, 10)]), &batch(&ranges));
        assert!(matches!(decision, Decision::Stop(StopReason::Request(_))), "{ranges:?}: {decision:?}");
    }
}

#[test]
fn a_batch_without_ranges_rests_on_its_token() {
    let stripped = HeadFacts { offsets_complete: false, ..head(&[]) };
    assert_eq!(decide(&stripped, &batch(&[])), Decision::Land, "offsets do not concern it");
    let known = BatchFacts { attempt: attempt(1), ..batch(&[]) };
    assert_eq!(after(Reply::Unknown, &head(&[]), &known), Next::Committed);
}

#[test]
fn our_token_in_the_head_means_committed_whatever_the_reply() {
    let ours = HeadFacts { tokens: vec![token(9)], ..head(&[(0, 20)]) };
    for reply in [Reply::Applied, Reply::Lost, Reply::NotSent, Reply::Unknown] {
        assert_eq!(after(reply, &ours, &batch(&[range(0, 10, 20)])), Next::Committed, "{reply:?}");
    }
}

#[test]
fn without_our_token_the_offsets_decide_and_never_the_reply() {
    let hand = batch(&[range(0, 10, 20)]);
    for reply in [Reply::Lost, Reply::NotSent, Reply::Unknown] {
        assert_eq!(after(reply, &head(&[(0, 10)]), &hand), Next::Retry);
        assert_eq!(after(reply, &head(&[(0, 12)]), &hand), Next::Trim(vec![range(0, 12, 20)]));
        assert_eq!(after(reply, &head(&[(0, 20)]), &hand), Next::Drop);
        let stop = after(reply, &head(&[(0, 9)]), &hand);
        assert!(matches!(stop, Next::Stop(StopReason::Gap { .. })), "{stop:?}");
    }
}

#[test]
fn a_token_in_a_table_that_took_the_name_is_not_our_success() {
    let other = HeadFacts { table: Uuid::from_u128(7), tokens: vec![token(9)], ..head(&[]) };
    let next = after(Reply::Unknown, &other, &batch(&[range(0, 10, 20)]));
    assert!(matches!(next, Next::Stop(StopReason::TableReplaced { .. })), "{next:?}");
}
