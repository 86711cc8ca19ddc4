//! The protocol over a catalog in memory, whose replies can be lost at will and which, as a REST server, makes each version
//! from updates.

use std::sync::Arc;
use std::time::Duration;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use objects::Store;

use super::{CommitOutcome, CommitRequest, StopReason};
use crate::catalog::memory::{Fault, MemoryCatalog};
use crate::environment::Environment;
use crate::open::{Lake, TableHandle};
use crate::table::Token;
use crate::tests::{def, rows};

fn no_pause(_: Duration) -> Duration {
    Duration::ZERO
}

/// A lake in a directory, its catalog in memory.
struct World {
    _dir: tempfile::TempDir,
    catalog: Arc<MemoryCatalog>,
    lake: Lake,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
        let catalog = Arc::new(MemoryCatalog::default());
        let environment = Environment { jitter: no_pause, ..Environment::default() };
        let lake = Lake::over(Arc::clone(&catalog) as _, store, environment);
        Self { _dir: dir, catalog, lake }
    }

    async fn writer(&self) -> TableHandle {
        self.lake.ensure_table(&def()).await.unwrap()
    }

    fn expect(&self, faults: impl IntoIterator<Item = Fault>) {
        self.catalog.faults.lock().unwrap().extend(faults);
    }
}

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn batch(table: &TableHandle, start: i64) -> CommitRequest {
    let files = table.write(&[rows(&[("a", start, start)])]).await.unwrap();
    CommitRequest::new(vec![OffsetRange::new(at(), start, start + 1)], Token::random(), files)
}

#[track_caller]
fn swaps(outcome: CommitOutcome) -> u32 {
    match outcome {
        CommitOutcome::Committed(committed) => committed.swaps,
        other => panic!("not committed: {other:?}"),
    }
}

async fn landed(table: &TableHandle) -> (i64, Option<u64>, usize) {
    let snapshot = table.reader().snapshot().await.unwrap();
    let next = snapshot.offsets().get(&at()).copied().unwrap_or(NextOffset(0)).0;
    (next, snapshot.total_records(), snapshot.plan(&[]).await.unwrap().len())
}

#[tokio::test]
async fn a_batch_lands_once_whatever_is_lost_of_its_commits() {
    use Fault::{LoseReply, LoseRequest, NotSent};
    let world = World::new();
    let table = world.writer().await;
    let cases: [(&[Fault], u32); 6] = [
        (&[], 1),
        (&[LoseReply], 1),
        (&[LoseRequest], 2),
        (&[NotSent], 1),
        (&[LoseRequest, LoseReply], 2),
        (&[NotSent, LoseRequest, LoseRequest], 3),
    ];
    for (start, (faults, expected)) in (0..).zip(cases) {
        world.expect(faults.iter().copied());
        assert_eq!(swaps(table.commit(batch(&table, start).await).await), expected, "{faults:?}");
        let rows = start + 1;
        assert_eq!(landed(&table).await, (rows, Some(rows as u64), rows as usize), "{faults:?}");
    }
}

#[tokio::test]
async fn a_writer_that_was_overtaken_commits_on_the_head_it_finds() {
    let world = World::new();
    let (one, two) = (world.writer().await, world.writer().await);
    let late = batch(&two, 0).await;
    assert_eq!(swaps(one.commit(batch(&one, 0).await).await), 1);
    assert!(matches!(two.commit(late).await, CommitOutcome::Drop));
    assert_eq!(swaps(two.commit(batch(&two, 1).await).await), 1);
    let gap = one.commit(batch(&one, 5).await).await;
    assert!(matches!(gap, CommitOutcome::Stop(StopReason::Gap { expected: 2, start: 5, .. })), "{gap:?}");
    assert_eq!(landed(&one).await, (2, Some(2), 2));
}

#[tokio::test]
async fn a_catalog_without_a_database_has_no_homes_and_says_what_to_do() {
    let error = World::new().lake.homes().await.unwrap_err();
    assert!(error.to_string().contains("set `catalog.uri` to sqlite:///path or postgres://"), "{error}");
}
