//! The protocol over a catalog in memory, whose replies can be lost at will and which, as a REST server, makes each version
//! from updates.

use std::sync::Arc;
use std::time::Duration;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use objects::Store;

use super::{
    ActionOutcome, CommitError, CommitOutcome, CommitRequest, Conflict, Maintenance, Replace, RowCount, SetProperties,
    StopReason,
};
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
        Self::within(Environment::default().commit_limit)
    }

    /// Each commit may try for this long.
    fn within(commit_limit: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
        let catalog = Arc::new(MemoryCatalog::default());
        let environment = Environment { jitter: no_pause, commit_limit, ..Environment::default() };
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
async fn a_commit_that_was_not_sent_in_time_blames_no_other_writer() {
    let world = World::within(Duration::ZERO);
    let table = world.writer().await;
    let outcome = table.commit(batch(&table, 0).await).await;
    let CommitOutcome::Unreachable(error) = &outcome else { panic!("{outcome:?}") };
    assert!(matches!(error, CommitError::SlowCatalog) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_catalog_without_a_database_has_no_homes_and_says_what_to_do() {
    let error = World::new().lake.homes().await.unwrap_err();
    assert!(error.to_string().contains("set `catalog.uri` to sqlite:///path or postgres://"), "{error}");
}

/// Rewrites all files of a table into one.
async fn rewrite(table: &TableHandle, rows_kept: &[i64]) -> Maintenance {
    let plan = table.reader().snapshot().await.unwrap().plan(&[]).await.unwrap();
    let inputs = plan.iter().map(|file| file.location.clone()).collect();
    let all: Vec<_> = rows_kept.iter().map(|seq| ("a", *seq, *seq)).collect();
    let outputs = table.write(&[rows(&all)]).await.unwrap();
    Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept })
}

#[tokio::test]
async fn a_replacement_lands_once_whatever_is_lost_of_its_commits() {
    use Fault::{LoseReply, LoseRequest, NotSent};
    let world = World::new();
    let table = world.writer().await;
    assert_eq!(swaps(table.commit(batch(&table, 0).await).await), 1);
    for faults in [[LoseReply, LoseReply], [LoseRequest, LoseReply], [NotSent, LoseRequest]] {
        let replace = rewrite(&table, &[0]).await;
        world.expect(faults);
        let outcome = table.maintain(&replace, Token::random()).await;
        assert!(matches!(outcome, ActionOutcome::Committed(_)), "{faults:?}: {outcome:?}");
        assert_eq!(landed(&table).await, (1, Some(1), 1), "{faults:?}");
        world.catalog.faults.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn a_replacement_that_lost_its_race_lands_beside_an_append_and_not_after_another_replacement() {
    let world = World::new();
    let (writer, maintainer) = (world.writer().await, world.writer().await);
    for start in 0..2 {
        assert_eq!(swaps(writer.commit(batch(&writer, start).await).await), 1);
    }
    let first = rewrite(&maintainer, &[0, 1]).await;
    let second = rewrite(&maintainer, &[0, 1]).await;
    assert_eq!(swaps(writer.commit(batch(&writer, 2).await).await), 1);
    let outcome = maintainer.maintain(&first, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    assert_eq!(landed(&writer).await, (3, Some(3), 2));
    let outcome = maintainer.maintain(&second, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Conflict(Conflict::FileGone { .. })), "{outcome:?}");
    assert_eq!(landed(&writer).await, (3, Some(3), 2));
}

#[tokio::test]
async fn a_change_without_a_snapshot_is_known_by_its_token_after_a_lost_reply() {
    let world = World::new();
    let table = world.writer().await;
    world.expect([Fault::LoseReply]);
    let set = [("causeway.pin.5".to_owned(), "9".to_owned())].into();
    let pin = Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() });
    let ActionOutcome::Committed(committed) = table.maintain(&pin, Token::random()).await else { panic!() };
    assert_eq!((committed.swaps, committed.metadata_version), (1, 1));
    let snapshot = table.reader().snapshot().await.unwrap();
    assert_eq!(snapshot.properties()["causeway.pin.5"], "9");
}
