//! Halves have the rows, the numbers and the losses of the whole.

use arrow::compute::concat_batches;
use event_schema::batch::{Event, EventRows};
use event_schema::clock::Beacon;
use event_schema::identity::first_seq;
use event_schema::kind::RecordKind;
use event_schema::stream::Stream;
use proptest::prelude::*;

use super::*;
use crate::batcher::Cut;
use crate::identity::Identity;
use crate::numbering::Numbering;

fn message(rows: i64) -> Bytes {
    let mut builder = EventRows::new();
    for i in 0..rows {
        let name = format!("thread-{i}");
        let ret_code = (i % 3 == 0).then_some(7);
        builder.push(&Event { boot_ns: 1000 - 3 * i, arg0: i, ret_code, comm: Some(&name), ..Event::default() });
    }
    let losses = LossCounters { emitted: rows as u64 + 5, ring_drop: 3, shed: 2, ..LossCounters::default() };
    let cut = Cut { stream: Stream::Data, kind: RecordKind::Event, batch: builder.finish().unwrap(), losses };
    let identity = Identity { cluster: "c".into(), node: "n".into(), boot_id: "b".into(), epoch: 3, agent: "a".into() };
    let mut numbering = Numbering::new(identity);
    let draft = numbering.draft(&cut, Beacon { boot_ns: 1, wall_ns: 2, error_ns: 3 }).unwrap();
    let first_seq = numbering.next_seq(cut.stream).unwrap();
    wire::encode(&draft, first_seq, &cut.batch).unwrap()
}

proptest! {
    #[test]
    fn two_halves_say_what_the_whole_said(rows in 2..200i64) {
        let whole = wire::decode(&message(rows)).unwrap();
        let [first, second] = halve(&message(rows)).unwrap().unwrap().map(|half| wire::decode(&half).unwrap());
        prop_assert_eq!(Some(first.header.first_seq), first_seq(3, Stream::Data));
        prop_assert_eq!(first.header.end_seq(), second.header.first_seq);
        prop_assert_eq!(second.header.end_seq(), whole.header.end_seq());
        prop_assert_eq!(first.header.losses + second.header.losses, whole.header.losses);
        for half in [&first, &second] {
            prop_assert_eq!(half.header.losses.emitted, u64::from(half.header.rows) + half.header.losses.lost());
            prop_assert_eq!(half.header.beacon, whole.header.beacon);
        }
        let joined = concat_batches(&whole.batch.schema(), [&first.batch, &second.batch]).unwrap();
        let plain = |batch: &RecordBatch| -> Vec<ArrayRef> {
            let words = |column: &ArrayRef| match column.data_type() {
                DataType::Dictionary(_, words) => cast(column, words).unwrap(),
                _ => column.clone(),
            };
            batch.columns().iter().map(words).collect()
        };
        prop_assert_eq!(plain(&joined), plain(&whole.batch));
    }
}

#[test]
fn halves_are_smaller_also_where_the_words_are_most_of_it() {
    let whole = message(4000);
    for half in halve(&whole).unwrap().unwrap() {
        assert!(half.len() * 10 < whole.len() * 6, "{} of {}", half.len(), whole.len());
    }
}

#[test]
fn one_row_is_not_halved_and_what_is_not_ours_is_an_error() {
    assert!(halve(&message(1)).unwrap().is_none());
    assert!(halve(&message(0)).unwrap().is_none());
    assert!(matches!(halve(b"something else"), Err(HalveError::Decode(_))));
}
