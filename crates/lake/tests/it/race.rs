//! Two owners of the same partitions.

use std::collections::BTreeMap;

use event_schema::position::OffsetRange;
use lake::{CommitOutcome, TableHandle};

use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range};

on_both!(two_writers_over_the_same_partitions_land_every_offset_once, owners_of_other_partitions_share_the_table);

const PARTITIONS: i32 = 2;
const END: i64 = 120;

/// Counts of each kind of outcome.
type Outcomes = BTreeMap<&'static str, u32>;

/// Where this writer believes the log stands.
async fn positions(table: &TableHandle) -> Vec<i64> {
    let known = offsets(table).await;
    if known.is_empty() { vec![0; PARTITIONS as usize] } else { known }
}

/// Takes `step` offsets of each partition at a time from where it believes to be, as an owner does.
async fn write_all(table: TableHandle, step: i64) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut next = vec![0; PARTITIONS as usize];
    let mut left: Option<Vec<OffsetRange>> = None;
    while next.iter().any(|next| *next < END) {
        let ahead = (0..PARTITIONS).zip(&next).map(|(p, start)| range(p, *start, (start + step).min(END)));
        let ranges = left.take().unwrap_or_else(|| ahead.filter(|range| !range.is_empty()).collect());
        let kind = match table.commit(batch(&table, &ranges).await).await {
            CommitOutcome::Committed(_) => {
                ranges.iter().for_each(|range| next[range.at.partition as usize] = range.end);
                "committed"
            }
            CommitOutcome::Trim(keep) => {
                // What was trimmed has landed: the writer is behind it now.
                next.iter_mut().zip(&positions(&table).await).for_each(|(mine, theirs)| *mine = (*theirs).max(*mine));
                left = Some(keep);
                "trimmed"
            }
            CommitOutcome::Drop => {
                next = positions(&table).await;
                "dropped"
            }
            other => panic!("a writer failed: {other:?}"),
        };
        *outcomes.entry(kind).or_default() += 1;
    }
    outcomes
}

async fn two_writers_over_the_same_partitions_land_every_offset_once(place: Place) {
    let (one, two) = (place.lake().await, place.lake().await);
    let one = one.ensure_table(&def()).await.unwrap();
    let two = two.ensure_table(&def()).await.unwrap();
    let (one, two) = tokio::join!(tokio::spawn(write_all(one, 3)), tokio::spawn(write_all(two, 5)));
    let outcomes = [one.unwrap(), two.unwrap()];
    println!("{outcomes:?}");
    let both = |kind| outcomes.iter().map(|o| o.get(kind).copied().unwrap_or(0)).sum::<u32>();
    assert!(both("trimmed") + both("dropped") > 0, "{outcomes:?}: they were never in each other's way");
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    assert_eq!(offsets(&table).await, [END; PARTITIONS as usize]);
    place.assert_landed(&[END; PARTITIONS as usize]);
}

/// Lands one partition in small batches; the most swaps one of them took.
async fn own(table: TableHandle, partition: i32) -> u32 {
    let mut most = 0;
    for start in (0..END).step_by(4) {
        most = most.max(land(&table, &[range(partition, start, start + 4)]).await);
    }
    most
}

async fn owners_of_other_partitions_share_the_table(place: Place) {
    let (one, two) = (place.lake().await, place.lake().await);
    let one = one.ensure_table(&def()).await.unwrap();
    let two = two.ensure_table(&def()).await.unwrap();
    let (one, two) = tokio::join!(tokio::spawn(own(one, 0)), tokio::spawn(own(two, 1)));
    let swaps = [one.unwrap(), two.unwrap()];
    assert!(swaps.iter().any(|most| *most > 1), "{swaps:?}: they never raced");
    place.assert_landed(&[END; PARTITIONS as usize]);
}
