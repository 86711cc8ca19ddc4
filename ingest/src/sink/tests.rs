//! What a table is told of the log it was filled from.

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
async fn land(sink: &mut Sink, ends: &[(i32, i64)]) {
    let ends: BTreeMap<_, _> = ends.iter().map(|(partition, end)| (at(*partition), NextOffset(*end))).collect();
    let mark = |next: NextOffset| Mark { next, fingerprint: Some(1), identity: "log".to_owned() };
    let notes: Vec<Note> = ends.iter().map(|(at, next)| mark(*next).note(at, *next)).collect();
    let batch = Batch { ends, ..Batch::default() };
    sink.land(&batch, &notes, Landing { ingested_us: 0, idle_after: Duration::ZERO }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_does_not_move_back_the_mark_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display();
    let lake = Lake::open(LakeOptions {
        catalog_uri: format!("sqlite://{dir}/catalog.sqlite"),
        warehouse: format!("{dir}/warehouse"),
        s3: None,
    });
    let (lake, table) = (lake.await.unwrap(), find("bronze", "messages").unwrap());
    let owner = async || {
        let handle = lake.ensure_table(&table.def).await.unwrap();
        Sink::new(table, handle, Readiness::new().condition("t", ""), Metrics::new(&mut Registry::default()))
    };
    let (mut former, mut next) = (owner().await, owner().await);
    land(&mut next, &[(0, 10)]).await;
    land(&mut former, &[(0, 5), (1, 3)]).await;
    let snapshot = lake.table("bronze", "messages").snapshot().await.unwrap();
    let marked = [0, 1].map(|partition| Mark::of(snapshot.properties(), &at(partition)).unwrap().next);
    assert_eq!(marked, [NextOffset(10), NextOffset(3)]);
}
