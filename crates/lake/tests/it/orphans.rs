//! What no snapshot needs is found and removed, and nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use event_schema::position::NextOffset;
use lake::commit::{ActionOutcome, Expire, Maintenance, Pin, Replace, RowCount};
use lake::{Attachment, Environment, Lake, TableHandle, TableIdent, Token};
use maintenance::orphans::{self, OrphanError, Policy};

use crate::place::Place;
use crate::rows::{batch, def, land, range, swaps};

on_both!(
    what_lost_commits_and_expired_snapshots_left_is_removed_and_nothing_else,
    a_file_that_is_committed_after_it_was_found_stays,
    a_table_whose_manifest_is_gone_has_no_orphans_but_an_error,
    a_table_that_shares_its_place_is_refused,
    a_run_is_limited_and_the_next_one_goes_on,
);

/// Ten days from now: what lies in the store is older than any guard.
fn later() -> i64 {
    (Environment::default().unix_ms)() + 10 * 86_400_000
}

async fn later_lake(place: &Place) -> Lake {
    Lake::open_with(place.options.clone(), Environment { unix_ms: later, ..Environment::default() }).await.unwrap()
}

fn ident() -> TableIdent {
    TableIdent::new("silver", "t")
}

async fn find(lake: &Lake) -> orphans::Report {
    orphans::find(lake, &ident(), &Policy::default()).await.unwrap()
}

fn locations(report: &orphans::Report) -> BTreeSet<String> {
    report.orphans.iter().map(|orphan| orphan.location.clone()).collect()
}

async fn current(table: &TableHandle) -> i64 {
    table.reader().snapshot().await.unwrap().snapshot_id().unwrap()
}

/// PyIceberg reads every snapshot, and finds so many rows in them.
fn read_every_snapshot(place: &Place, rows: &[i64]) {
    place.pyiceberg(&format!(
        "table = catalog.load_table('silver.t')\n\
         rows = [table.scan(snapshot_id=s.snapshot_id).to_arrow().num_rows for s in table.snapshots()]\n\
         assert sorted(rows) == {rows:?}, rows"
    ));
}

async fn what_lost_commits_and_expired_snapshots_left_is_removed_and_nothing_else(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let first = current(&table).await;
    land(&table, &[range(0, 10, 20)]).await;
    let expired = current(&table).await;
    let snapshot = table.reader().snapshot().await.unwrap();
    let inputs = snapshot.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect();
    let outputs = batch(&table, &[range(0, 0, 20)]).await.files;
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept });
    assert!(matches!(table.maintain(&replace, Token::random()).await, ActionOutcome::Committed(_)));
    let mut seen = batch(&table, &[range(0, 20, 30)]).await;
    let at = range(0, 0, 1).at;
    let attachment =
        Attachment { kind: "test-seen-v1", at: at.clone(), next: NextOffset(30), bytes: Bytes::from("seen") };
    seen.attachments.push(attachment);
    assert_eq!(swaps(table.commit(seen).await), 1);
    // The rows of the second batch are only in the snapshot that expires; those of the first are in one that is pinned.
    let pin = Pin { snapshot: first, owner: "report".to_owned(), reason: String::new(), until_ms: None };
    assert!(matches!(table.pin(pin, Token::random()).await, ActionOutcome::Committed(_)));
    let second_file =
        snapshot.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect::<BTreeSet<_>>();
    let pinned = table.reader().snapshot_by_id(first).await.unwrap();
    let first_file: BTreeSet<_> = pinned.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect();
    let expire = Maintenance::Expire(Expire { snapshots: [expired].into() });
    assert!(matches!(table.maintain(&expire, Token::random()).await, ActionOutcome::Committed(_)));
    // Uploaded by a commit that was never made.
    let lost = batch(&table, &[range(0, 30, 40)]).await.files[0].file_path().to_owned();
    let notes = format!("{}/silver/t/data/notes.txt", place.lake().await.store().root());
    place.lake().await.store().put(&notes, Bytes::from("not ours")).await.unwrap();

    let young = find(&place.lake().await).await;
    assert_eq!((locations(&young), young.young >= 3, young.unknown), (BTreeSet::new(), true, 1), "{young:?}");
    let lake = later_lake(&place).await;
    let found = find(&lake).await;
    let names = locations(&found);
    let expected: BTreeSet<_> = second_file.difference(&first_file).cloned().chain([lost]).collect();
    let data: BTreeSet<_> = names.iter().filter(|name| name.ends_with(".parquet")).cloned().collect();
    assert_eq!(data, expected);
    let lists = names.iter().filter(|name| name.contains(&format!("/snap-{expired}-"))).count();
    assert_eq!((lists, names.iter().any(|name| name.ends_with(".stats"))), (1, false), "{names:?}");
    assert_eq!(found.listed, found.reachable + found.unknown + names.len() as u64, "{found:?}");

    let removed = orphans::remove(&lake, &ident(), &found).await.unwrap();
    assert_eq!((removed.removed as usize, removed.bytes), (names.len(), found.bytes()));
    assert_eq!([removed.kept, removed.failed, removed.damaged], [const { Vec::<String>::new() }; 3]);
    assert_eq!(locations(&find(&lake).await), BTreeSet::new());
    place.lake().await.store().get(&notes).await.unwrap();
    let head = table.reader().snapshot().await.unwrap();
    let attached = head.attachments("test-seen-v1", &at);
    assert_eq!(head.read_attachment(&attached[0]).await.unwrap(), "seen");
    read_every_snapshot(&place, &[10, 20, 30]);
    place.assert_landed(&[30]);
}

async fn a_file_that_is_committed_after_it_was_found_stays(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let late = batch(&table, &[range(0, 10, 20)]).await;
    let lake = later_lake(&place).await;
    let found = find(&lake).await;
    let file = late.files[0].file_path().to_owned();
    assert_eq!(locations(&found), [file.clone()].into());
    // The listing is stale now.
    assert_eq!(swaps(table.commit(late).await), 1);
    let removed = orphans::remove(&lake, &ident(), &found).await.unwrap();
    assert_eq!((removed.removed, removed.kept, removed.damaged), (0, vec![file], vec![]));
    place.assert_landed(&[20]);
}

async fn a_table_whose_manifest_is_gone_has_no_orphans_but_an_error(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let mut objects = place.objects().await;
    objects.retain(|name| name.ends_with("-m.avro"));
    let store = place.lake().await.store().clone();
    store.delete(&format!("{}/{}", store.root(), objects[0])).await.unwrap();
    let lake = later_lake(&place).await;
    let error = orphans::find(&lake, &ident(), &Policy::default()).await.unwrap_err();
    assert!(matches!(error, OrphanError::Read(_)) && error.to_string().contains("-m.avro"), "{error}");
}

async fn a_table_that_shares_its_place_is_refused(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let columns = "metadata_location, previous_metadata_location, iceberg_type";
    place
        .sql(&format!(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, {columns}) \
             SELECT catalog_name, table_namespace, 'u', {columns} FROM iceberg_tables"
        ))
        .await;
    let lake = later_lake(&place).await;
    let error = orphans::find(&lake, &ident(), &Policy::default()).await.unwrap_err();
    assert!(matches!(&error, OrphanError::Shared { other, .. } if other.name == "u"), "{error}");
    let hasty = Policy { older_than: Duration::from_secs(3_600), ..Policy::default() };
    let error = orphans::find(&lake, &ident(), &hasty).await.unwrap_err();
    assert!(matches!(error, OrphanError::TooYoung { asked_s: 3_600, .. }), "{error}");
}

async fn a_run_is_limited_and_the_next_one_goes_on(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    for start in [10, 20, 30] {
        batch(&table, &[range(0, start, start + 1)]).await;
    }
    let lake = later_lake(&place).await;
    let policy = Policy { most: 2, ..Policy::default() };
    for (found, more) in [(2, 1), (1, 0), (0, 0)] {
        let report = orphans::find(&lake, &ident(), &policy).await.unwrap();
        assert_eq!((report.orphans.len(), report.more), (found, more));
        let removed = orphans::remove(&lake, &ident(), &report).await.unwrap();
        assert_eq!(removed.removed, found as u64);
    }
    place.assert_landed(&[10]);
}

#[tokio::test]
async fn a_file_that_the_clock_of_the_store_makes_old_is_as_young_as_its_name() {
    let place = Place::embedded();
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let file = batch(&table, &[range(0, 10, 20)]).await.files[0].file_path().to_owned();
    let path = file.trim_start_matches("file://");
    std::fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let found = find(&lake).await;
    assert_eq!((found.young, found.orphans), (1, vec![]));
    // A name without a time has the clock of the store alone.
    let unnamed = format!("{}/other.parquet", path.rsplit_once('/').unwrap().0);
    std::fs::write(&unnamed, "x").unwrap();
    std::fs::File::open(&unnamed).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(locations(&find(&lake).await), [format!("file://{unnamed}")].into());
}
