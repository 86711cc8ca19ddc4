//! What a table records about the log it was filled from.

use std::collections::BTreeMap;
use std::path::Path;

use event_schema::position::{NextOffset, TopicPartition};
use lake::commit::ActionOutcome;
use lake::{Lake, LakeOptions};
use prometheus_client::registry::Registry;
use service_kit::admin::Readiness;
use tables::registry::find;

use super::*;
use crate::mark::Mark;
use crate::note::Note;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// Lands what was read of each partition up to its end, without rows.
async fn land(sink: &Sink, ends: &[(i32, i64)]) {
    let ends: BTreeMap<_, _> = ends.iter().map(|(partition, end)| (at(*partition), NextOffset(*end))).collect();
    let mark = |next: NextOffset| Mark { next, fingerprint: Some(1), identity: "log".to_owned() };
    let notes: Vec<Note> = ends.iter().map(|(at, next)| mark(*next).note(at, *next)).collect();
    sink.land(&Share::up_to(ends, notes)).await.unwrap();
}

async fn lake(dir: &Path) -> Lake {
    let dir = dir.display();
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{dir}/catalog.sqlite"),
        warehouse: format!("{dir}/warehouse"),
        s3: None,
    };
    Lake::open(options).await.unwrap()
}

async fn sink(lake: &Lake, table: &'static Table) -> Sink {
    let handle = lake.ensure_table(&table.def).await.unwrap();
    let (reachable, metrics) = (Readiness::new().condition("t", ""), Metrics::new(&mut Registry::default()));
    Sink::new(table, handle, reachable, Room::new(1 << 20), metrics)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_does_not_move_back_the_mark_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, table) = (lake(dir.path()).await, find("bronze", "messages").unwrap());
    let (former, next) = (sink(&lake, table).await, sink(&lake, table).await);
    for sink in [&former, &next] {
        sink.standing().take_over(&[at(0), at(1)]).await.unwrap();
    }
    land(&next, &[(0, 10)]).await;
    land(&former, &[(0, 5), (1, 3)]).await;
    let snapshot = lake.table("bronze", "messages").snapshot().await.unwrap();
    let marked = [0, 1].map(|partition| Mark::of(snapshot.properties(), &at(partition)).unwrap().next);
    assert_eq!(marked, [NextOffset(10), NextOffset(3)]);
}

/// What another member has landed is known to be in the table, also where nothing else of the partition is left to land: a
/// quiet log has no later batch that would show it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_another_member_has_moved_on_stands_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, table) = (lake(dir.path()).await, find("silver", "stacks").unwrap());
    let (former, next) = (sink(&lake, table).await, sink(&lake, table).await);
    for sink in [&former, &next] {
        sink.standing().take_over(&[at(0), at(1), at(2)]).await.unwrap();
    }
    land(&former, &[(0, 10), (1, 3)]).await;
    land(&next, &[(0, 10), (1, 5), (2, 7)]).await;
    assert_eq!([0, 1, 2].map(|partition| next.standing().next(&at(partition)).0), [10, 5, 7]);
    land(&former, &[(0, 20)]).await;
    land(&next, &[(0, 15), (1, 6)]).await;
    assert_eq!([0, 1, 2].map(|partition| next.standing().next(&at(partition)).0), [20, 6, 7]);
}

/// The roll back takes both partitions back; of the second one nothing is in the share that is landed next.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_rolled_back_under_its_writer_stops_it_at_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, table) = (lake(dir.path()).await, find("silver", "stacks").unwrap());
    let (former, next) = (sink(&lake, table).await, sink(&lake, table).await);
    for sink in [&former, &next] {
        sink.standing().take_over(&[at(0), at(1)]).await.unwrap();
    }
    land(&next, &[(0, 3), (1, 3)]).await;
    let first = lake.table("silver", "stacks").snapshot().await.unwrap().snapshot_id().unwrap();
    land(&next, &[(1, 9)]).await;
    let handle = lake.ensure_table(&table.def).await.unwrap();
    let from = handle.reader().snapshot().await.unwrap().snapshot_id();
    assert!(matches!(handle.roll_back(first, from, Token::random()).await, ActionOutcome::Committed(_)));
    land(&former, &[(0, 5)]).await;
    // The commit is trimmed to what the other one has not landed; the second partition is past the gap.
    land(&next, &[(0, 5), (1, 9)]).await;
    let ends = BTreeMap::from([(at(1), NextOffset(12))]);
    let stopped = next.land(&Share::up_to(ends, Vec::new())).await;
    assert!(matches!(stopped, Err(SinkError::Stopped { .. })), "{stopped:?}");
}

/// Where the log of a partition begins is not known any more once the partition was given up: what lay before that would be
/// taken for landed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_lands_of_a_partition_that_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, table) = (lake(dir.path()).await, find("silver", "stacks").unwrap());
    let sink = sink(&lake, table).await;
    let standing = sink.standing();
    standing.take_over(&[at(0), at(1)]).await.unwrap();
    standing.skip_to(&at(0), NextOffset(4));
    standing.give_up(&[at(0)]);
    land(&sink, &[(0, 9), (1, 9)]).await;
    let snapshot = lake.table("silver", "stacks").snapshot().await.unwrap();
    assert_eq!(snapshot.offsets(), BTreeMap::from([(at(1), NextOffset(9))]));
}
