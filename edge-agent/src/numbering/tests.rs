//! Numbers are contiguous over what is in the spool, and no loss is told twice or not at all.

use event_schema::batch::{Event, EventRows};
use event_schema::identity::DATA_STREAM;
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
    Cut { stream: DATA_STREAM, kind: RecordKind::Event, batch: builder.finish().unwrap(), losses }
}

#[test]
fn a_stream_begins_at_the_first_number_of_its_epoch() {
    let header = Numbering::new(identity()).header(&cut(1, 0), Beacon::default()).unwrap();
    assert_eq!(Some(header.first_seq), first_seq(3, DATA_STREAM));
}

#[test]
fn a_stream_out_of_range_is_refused() {
    let bad = Cut { stream: 16, ..cut(1, 0) };
    assert_eq!(Numbering::new(identity()).header(&bad, Beacon::default()), Err(NoSuchStream(16)));
}

proptest! {
    #[test]
    fn spooled_batches_are_contiguous_and_their_headers_close_the_ledger(
        steps in prop::collection::vec((0..9u64, 0..4u64, any::<bool>()), 1..50),
    ) {
        let mut numbering = Numbering::new(identity());
        let mut next = first_seq(3, DATA_STREAM).unwrap();
        let (mut told, mut landed, mut made) = (LossCounters::default(), 0, 0);
        for (rows, ring_drop, fits) in steps.into_iter().chain([(1, 0, true)]) {
            let cut = cut(rows, ring_drop);
            made += rows + ring_drop;
            let header = numbering.header(&cut, Beacon::default()).unwrap();
            prop_assert_eq!(header.first_seq, next);
            if fits {
                numbering.spooled(&cut).unwrap();
                next += rows as i64;
                landed += rows;
                told += header.losses;
                prop_assert!(numbering.untold().is_empty());
            } else {
                numbering.dropped(&cut).unwrap();
                prop_assert!(rows + ring_drop == 0 || numbering.untold() == [DATA_STREAM]);
            }
        }
        prop_assert_eq!(told.emitted, landed + told.lost());
        prop_assert_eq!(told.emitted, made);
    }
}
