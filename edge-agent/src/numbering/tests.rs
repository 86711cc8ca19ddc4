//! Numbers are contiguous over what is in the spool, and no loss is reported twice or not at all.

use event_schema::batch::{Event, EventRows};
use event_schema::identity::EPOCHS_MAX;
use event_schema::kind::RecordKind;
use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity { cluster: "c".into(), node: "n".into(), boot_id: "b".into(), epoch: 3, agent: "a".into() }
}

fn cut(rows: u64, ring_drop: u64) -> Cut {
    let mut builder = EventRows::new();
    (0..rows).for_each(|i| builder.push(&Event { boot_ns: i as i64, ..Event::default() }));
    let losses = LossCounters { emitted: rows + ring_drop, ring_drop, ..LossCounters::default() };
    Cut { stream: Stream::Data, kind: RecordKind::Event, batch: builder.finish().unwrap(), losses }
}

#[test]
fn a_stream_begins_at_the_first_number_of_its_epoch() {
    assert_eq!(Numbering::new(identity()).next_seq(Stream::Data).ok(), first_seq(3, Stream::Data));
}

#[test]
fn an_epoch_out_of_range_is_refused() {
    let identity = Identity { epoch: EPOCHS_MAX, ..identity() };
    assert_eq!(Numbering::new(identity).draft(&cut(1, 0), Beacon::default()), Err(EpochOutOfRange(EPOCHS_MAX)));
}

#[test]
fn the_last_number_of_a_stream_is_used_and_none_of_the_next_streams() {
    let mut numbering = Numbering::new(identity());
    numbering.use_up(Stream::Data, 5);
    assert!(numbering.has_room(&cut(5, 0)).unwrap() && !numbering.has_room(&cut(6, 0)).unwrap());
    numbering.spooled(&cut(5, 0)).unwrap();
    assert!(numbering.has_room(&cut(0, 0)).unwrap() && !numbering.has_room(&cut(1, 0)).unwrap());
    assert_eq!(numbering.next_seq(Stream::Data).ok(), first_seq(3, Stream::Critical));
}

#[test]
fn a_new_epoch_numbers_every_stream_anew_and_tells_what_was_untold() {
    let mut numbering = Numbering::new(identity());
    numbering.spooled(&Cut { stream: Stream::Critical, ..cut(7, 0) }).unwrap();
    numbering.dropped(&cut(9, 0)).unwrap();
    numbering.renew(4).unwrap();
    let draft = numbering.draft(&cut(1, 0), Beacon::default()).unwrap();
    assert_eq!((draft.epoch, draft.losses.spool_drop, draft.losses.emitted), (4, 9, 10));
    assert_eq!(numbering.next_seq(Stream::Data).ok(), first_seq(4, Stream::Data));
    assert_eq!(numbering.next_seq(Stream::Critical).ok(), first_seq(4, Stream::Critical));
}

proptest! {
    #[test]
    fn spooled_batches_are_contiguous_and_their_headers_close_the_ledger(
        steps in prop::collection::vec((0..9u64, 0..4u64, any::<bool>()), 1..50),
    ) {
        let mut numbering = Numbering::new(identity());
        let mut next = first_seq(3, Stream::Data).unwrap();
        let (mut reported, mut landed, mut made) = (LossCounters::default(), 0, 0);
        for (rows, ring_drop, fits) in steps.into_iter().chain([(1, 0, true)]) {
            let cut = cut(rows, ring_drop);
            made += rows + ring_drop;
            let draft = numbering.draft(&cut, Beacon::default()).unwrap();
            prop_assert_eq!(numbering.next_seq(Stream::Data), Ok(next));
            if fits {
                numbering.spooled(&cut).unwrap();
                next += rows as i64;
                landed += rows;
                reported += draft.losses;
                prop_assert!(numbering.unreported().is_empty());
            } else {
                numbering.dropped(&cut).unwrap();
                prop_assert!(rows + ring_drop == 0 || numbering.unreported() == [Stream::Data]);
            }
        }
        prop_assert_eq!(reported.emitted, landed + reported.lost());
        prop_assert_eq!(reported.emitted, made);
    }
}
