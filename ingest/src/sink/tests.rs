//! What a table records about the log it was filled from, and when.

use std::path::Path;

use lake::{Lake, LakeOptions};
use prometheus_client::registry::Registry;
use service_kit::admin::Readiness;
use tables::registry::find;

use super::*;
use crate::mark::Mark;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// Lands what was read of each partition up to its end, without rows.
async fn land(sink: &mut Sink, ends: &[(i32, i64)], idle_after: Duration) {
    let ends: BTreeMap<_, _> = ends.iter().map(|(partition, end)| (at(*partition), NextOffset(*end))).collect();
    let mark = |next: NextOffset| Mark { next, fingerprint: Some(1), identity: "log".to_owned() };
    let notes = ends.iter().map(|(at, next)| mark(*next).note(at, *next)).collect();
    let batch = Batch { ends, ..Batch::default() };
    let remembered = Remembered { notes, ..Remembered::default() };
    sink.land(&batch, &remembered, Landing { ingested_us: 0, idle_after }).await.unwrap();
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
    let (mut former, mut next) = (sink(&lake, table).await, sink(&lake, table).await);
    land(&mut next, &[(0, 10)], Duration::ZERO).await;
    land(&mut former, &[(0, 5), (1, 3)], Duration::ZERO).await;
    let snapshot = lake.table("bronze", "messages").snapshot().await.unwrap();
    let marked = [0, 1].map(|partition| Mark::of(snapshot.properties(), &at(partition)).unwrap().next);
    assert_eq!(marked, [NextOffset(10), NextOffset(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_is_committed_rarely_while_only_few_messages_lie_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (lake, table) = (lake(dir.path()).await, find("silver", "stacks").unwrap());
    let mut sink = sink(&lake, table).await;
    let idle = Duration::from_secs(5);
    let (few, many) = (FEW_MESSAGES as i64 - 1, FEW_MESSAGES as i64);
    for (times, end, landed) in [(0, many, 0), (2, few, 0), (2, many, many), (2, many + few, many)] {
        sink.committed = Instant::now() - idle * times;
        land(&mut sink, &[(0, end)], idle).await;
        assert_eq!(sink.next(&at(0)), NextOffset(landed), "{times} intervals after the last commit, read up to {end}");
    }
    sink.committed = Instant::now() - idle * RARELY;
    land(&mut sink, &[(0, many + 1)], idle).await;
    assert_eq!(sink.next(&at(0)), NextOffset(many + 1));
}
