//! An S3 that answers errors: before it does what it was asked, and after.

use std::time::Duration;

use futures::TryStreamExt;
use lake::CommitOutcome;
use lake::commit::CommitError;

use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range, settle};
use crate::servers::{Server, order};

/// An S3 of this test's own: faults hit every client of a server.
struct FaultyS3 {
    server: Server,
    _dir: tempfile::TempDir,
}

impl FaultyS3 {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::up("s3", dir.path()), _dir: dir }
    }

    fn endpoint(&self) -> &str {
        self.server.env("AWS_ENDPOINT_URL")
    }

    fn fault(&self, query: &str) {
        order(self.endpoint().strip_prefix("http://").unwrap(), "POST", &format!("/__fault?{query}"));
    }

    /// How many requests have been answered with an error so far.
    fn faulted(&self) -> u64 {
        order(self.endpoint().strip_prefix("http://").unwrap(), "GET", "/__fault")["faulted"].as_u64().unwrap()
    }
}

impl Drop for FaultyS3 {
    fn drop(&mut self) {
        self.server.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_lands_once_whichever_of_its_objects_s3_fails_on() {
    let s3 = FaultyS3::start();
    let place = Place::on_s3(s3.endpoint()).await;
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let objects = ["/data/", "-m.avro", "snap-", "metadata.json"];
    let kinds = ["status=503&count=2", "status=500&when=after&count=1", "status=500&when=after&count=2"];
    let faults = objects.iter().flat_map(|key| kinds.iter().map(move |kind| format!("{kind}&method=PUT&key={key}")));
    let faults: Vec<_> = faults.chain(["status=503&seconds=1.5".to_owned()]).collect();
    let mut end = 0;
    for fault in &faults {
        let before = s3.faulted();
        s3.fault(fault);
        assert_eq!(land(&table, &[range(0, end, end + 10)]).await, 1, "{fault}");
        assert!(s3.faulted() > before, "{fault} hit nothing");
        s3.fault("clear");
        end += 10;
        assert_eq!(offsets(&table).await, [end], "{fault}");
    }
    // Reading what is there, by somebody who has nothing of it in memory.
    s3.fault("status=500&count=3&method=GET");
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let rows: Vec<_> = snapshot.scan_batches(&[], &[]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows() as i64).sum::<i64>(), end);
    place.assert_landed(&[end]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_stays_away_moves_nothing_and_the_same_request_lands_later() {
    let s3 = FaultyS3::start();
    let place = Place::on_s3(s3.endpoint()).await;
    let table = place.impatient_lake(Duration::from_millis(500)).await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let request = batch(&table, &[range(0, 10, 20)]).await;
    s3.fault("status=503&seconds=60&method=PUT");
    let outcome = table.commit(request.clone()).await;
    assert!(matches!(outcome, CommitOutcome::Unreachable(CommitError::SlowStore)), "{outcome:?}");
    assert_eq!(offsets(&table).await, [10]);
    s3.fault("clear");
    assert_eq!(settle(&table, &request).await, 1);
    place.assert_landed(&[20]);
}
