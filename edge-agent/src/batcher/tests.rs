//! Cuts come when they should, and the counts close whatever is shed.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { rows: 10, bytes: 1 << 20, age: Duration::from_millis(250) };
const MS: i64 = 1_000_000;

fn event(boot_ns: i64) -> Event<'static> {
    Event { boot_ns, comm: Some("python"), sample_weight: 1.0, ..Event::default() }
}

fn filled(limits: Limits, rows: i64) -> (Batcher, bool) {
    let mut batcher = Batcher::new(limits);
    let full = (0..rows).fold(false, |_, i| batcher.push(EventStream::Data, &event(i), 5 * MS));
    (batcher, full)
}

#[test]
fn a_batch_is_full_at_its_rows_or_its_bytes() {
    assert!(!filled(LIMITS, 9).1);
    assert!(filled(LIMITS, 10).1);
    assert!(filled(Limits { bytes: 9 * ROW_BYTES, ..LIMITS }, 9).1);
}

#[test]
fn a_batch_is_due_when_its_first_row_is_old() {
    let (batcher, _) = filled(LIMITS, 2);
    assert!(!batcher.is_due(EventStream::Data, 254 * MS));
    assert!(batcher.is_due(EventStream::Data, 255 * MS));
    assert!(!batcher.is_due(EventStream::Critical, 10_000 * MS), "nothing in it");
}

#[test]
fn a_cut_tells_what_was_missed_since_the_one_before() {
    let (mut batcher, _) = filled(LIMITS, 3);
    let cut = batcher.cut(EventStream::Data, Missed { ring_drop: 5, sampled_out: 2, untracked: 1 }).unwrap().unwrap();
    assert_eq!((cut.batch.num_rows(), cut.losses.emitted, cut.losses.lost(), cut.losses.shed), (3, 11, 8, 1));
    assert!(
        batcher.cut(EventStream::Data, Missed { ring_drop: 6, sampled_out: 2, untracked: 1 }).unwrap().is_none(),
        "no row, no number"
    );
    batcher.push(EventStream::Data, &event(9), 0);
    let cut = batcher.cut(EventStream::Data, Missed { ring_drop: 6, sampled_out: 2, untracked: 1 }).unwrap().unwrap();
    assert_eq!((cut.batch.num_rows(), cut.losses.emitted, cut.losses.ring_drop), (1, 2, 1));
}

#[test]
fn what_a_stream_without_rows_has_lost_is_told_by_another() {
    let mut batcher = Batcher::new(LIMITS);
    let missed = Missed { ring_drop: 4, ..Missed::default() };
    batcher.push(EventStream::Critical, &event(9), 0);
    batcher.report_for(EventStream::Critical, EventStream::Data, missed);
    let cut = batcher.cut(EventStream::Critical, Missed::default()).unwrap().unwrap();
    assert_eq!((cut.losses.emitted, cut.losses.ring_drop), (5, 4));
    batcher.push(EventStream::Data, &event(9), 0);
    let cut = batcher.cut(EventStream::Data, missed).unwrap().unwrap();
    assert_eq!((cut.losses.emitted, cut.losses.lost()), (1, 0), "reported once");
}

#[test]
fn streams_do_not_mix() {
    let (mut batcher, _) = filled(LIMITS, 3);
    batcher.push(EventStream::Critical, &event(9), 0);
    let cut = batcher.cut(EventStream::Critical, Missed::default()).unwrap().unwrap();
    assert_eq!((cut.stream, cut.batch.num_rows()), (Stream::Critical, 1));
}

proptest! {
    #[test]
    fn emitted_is_always_rows_passed_on_plus_losses(steps in prop::collection::vec((0..20u64, 0..5u64, 0..5u64, any::<bool>()), 1..60)) {
        let mut batcher = Batcher::new(LIMITS);
        let (mut missed, mut reported, mut rows) = (Missed::default(), LossCounters::default(), 0);
        for (count, drop, sampled, shed) in steps {
            for i in 0..count {
                batcher.push(EventStream::Data, &event(i as i64), 0);
            }
            missed.ring_drop += drop;
            missed.sampled_out += sampled;
            let Some(cut) = batcher.cut(EventStream::Data, missed).unwrap() else { continue };
            if shed {
                batcher.shed(&cut);
            } else {
                reported += cut.losses;
                rows += cut.batch.num_rows() as u64;
            }
            prop_assert_eq!(reported.emitted, rows + reported.lost());
        }
        batcher.push(EventStream::Critical, &event(0), 0);
        let last = batcher.cut(EventStream::Data, missed).unwrap();
        batcher.report_for(EventStream::Critical, EventStream::Data, missed);
        for cut in last.into_iter().chain(batcher.cut(EventStream::Critical, Missed::default()).unwrap()) {
            reported += cut.losses;
            rows += cut.batch.num_rows() as u64;
        }
        prop_assert_eq!(reported.emitted, rows + reported.lost());
        prop_assert_eq!((reported.ring_drop, reported.sampled_out), (missed.ring_drop, missed.sampled_out));
    }
}
