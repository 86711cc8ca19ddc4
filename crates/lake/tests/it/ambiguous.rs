//! Commits whose fate is unknown: PostgreSQL behind a proxy that cuts the connection where it hurts.

use std::time::Duration;

use futures::TryStreamExt;
use lake::commit::CommitError;
use lake::{CommitOutcome, Environment, Lake, TableHandle};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::place::Place;
use crate::proxy::Proxy;
use crate::rows::{TIME_LIMIT, batch, def, land, offsets, range, report, settle, swaps};

/// The swap's parameters name a metadata file; no other request does.
const SWAP: &str = "to=server&contains=metadata.json";

/// A table behind a proxy, with one batch of ten offsets in it.
async fn behind_proxy(place: &Place, commit_limit: Duration) -> (TableHandle, Proxy) {
    let (options, proxy) = place.behind_proxy();
    let lake = Lake::open_with(options, Environment { commit_limit, ..Environment::default() }).await.unwrap();
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    (table, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cut_off_before_at_or_after_the_catalog_lands_once() {
    let place = Place::served().await;
    let (table, proxy) = behind_proxy(&place, Duration::from_secs(30)).await;
    // How it is cut, and how many swaps that may take: the lost one, and another if it was not carried out.
    let cuts = [("reply", 1..=1), ("before", 2..=2), ("after", 1..=2), ("reply", 1..=1), ("before", 2..=2)];
    for (i, (then, expected)) in (1..).zip(cuts) {
        proxy.arm(&format!("{SWAP}&then={then}"));
        let took = land(&table, &[range(0, 10 * i, 10 * (i + 1))]).await;
        assert!(expected.contains(&took), "{then}: {took} swaps");
        assert_eq!(proxy.fired(), i as u64, "{then}");
        assert_eq!(offsets(&table).await, [10 * (i + 1)], "{then}");
    }
    place.assert_landed(&[60]);
}

/// Another program's transaction that holds the table's row in the catalog: swaps wait for it.
struct HeldRow {
    holder: PgConnection,
    /// A transaction sees the server's activity as it was at its first look; this connection is in none.
    watcher: PgConnection,
}

impl HeldRow {
    async fn hold(place: &Place) -> Self {
        let mut holder = PgConnection::connect(&place.options.catalog_uri).await.unwrap();
        holder.execute("BEGIN; SELECT 1 FROM iceberg_tables FOR UPDATE").await.unwrap();
        Self { holder, watcher: PgConnection::connect(&place.options.catalog_uri).await.unwrap() }
    }

    async fn until_waiting(&mut self, swaps: i64) {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND wait_event_type = 'Lock' AND query LIKE 'UPDATE iceberg_tables%'";
        let deadline = tokio::time::Instant::now() + TIME_LIMIT;
        while self.watcher.fetch_one(count).await.unwrap().get::<i64, _>(0) != swaps {
            assert!(tokio::time::Instant::now() < deadline, "never were {swaps} swaps waiting");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the sessions whose swaps wait, so that these are never carried out.
    async fn end_waiting(&mut self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock'";
        self.watcher.execute(end).await.unwrap();
        self.until_waiting(0).await;
    }

    async fn release(mut self) {
        self.holder.execute("COMMIT").await.unwrap();
        self.holder.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_carried_out_late_makes_the_repeated_one_fail() {
    let place = Place::served().await;
    let (table, proxy) = behind_proxy(&place, Duration::from_secs(30)).await;
    let mut row = HeldRow::hold(&place).await;
    proxy.arm(&format!("{SWAP}&then=after"));
    let request = batch(&table, &[range(0, 10, 20)]).await;
    let commit = tokio::spawn({
        let table = table.clone();
        async move { table.commit(request).await }
    });
    // The one that was cut off, and the one after reading a head that had not moved.
    row.until_waiting(2).await;
    row.release().await;
    assert_eq!(swaps(commit.await.unwrap()), 2);
    place.assert_landed(&[20]);

    // Both attempts left a file of this version; names rise with time, and the head is the first.
    let snapshot = table.reader().snapshot().await.unwrap();
    let directory = snapshot.store().path(&format!("{}/silver/t/metadata", snapshot.store().root())).unwrap();
    let files: Vec<_> = snapshot.store().objects().list(Some(&directory)).try_collect().await.unwrap();
    let names = files.iter().filter_map(|file| file.location.filename());
    let mut versions: Vec<_> = names.filter(|name| name.starts_with("00002-")).collect();
    versions.sort_unstable();
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert!(snapshot.metadata_location().ends_with(versions[0]), "{}", snapshot.metadata_location());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_stays_away_leaves_the_commit_unknown_and_the_next_one_settles_it() {
    let place = Place::served().await;
    let (table, proxy) = behind_proxy(&place, Duration::from_secs(2)).await;
    for (round, carried_out) in [(1, true), (2, false)] {
        let mut row = HeldRow::hold(&place).await;
        let request = batch(&table, &[range(0, 10 * round, 10 * (round + 1))]).await;
        let sent = (table.clone(), request.clone());
        let commit = tokio::spawn(async move { sent.0.commit(sent.1).await });
        row.until_waiting(1).await;
        proxy.set("refuse");
        let outcome = commit.await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Unknown(CommitError::Catalog(_))), "{outcome:?}");
        if !carried_out {
            row.end_waiting().await;
        }
        row.release().await;
        proxy.set("pass");
        // A swap in the server's hands is carried out at its own time; either way the batch is there once.
        let took = settle(&table, &request).await;
        assert!(carried_out || took == 1, "{took} swaps");
        assert_eq!(offsets(&table).await, [10 * (round + 1)]);
        assert_eq!(settle(&table, &request).await, 0, "it has landed");
    }
    place.assert_landed(&[30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_not_there_is_unreachable_and_the_same_request_lands_later() {
    let place = Place::served().await;
    let (table, proxy) = behind_proxy(&place, Duration::from_secs(2)).await;
    let request = batch(&table, &[range(0, 10, 20)]).await;
    for mode in ["refuse", "blackhole"] {
        proxy.set(mode);
        let started = std::time::Instant::now();
        let outcome = table.commit(request.clone()).await;
        let CommitOutcome::Unreachable(error) = outcome else { panic!("{outcome:?}") };
        println!("{mode}: {} after {:?}", report(&error), started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "{mode}: {:?}", started.elapsed());
        proxy.set("pass");
    }
    assert_eq!(settle(&table, &request).await, 1);
    place.assert_landed(&[20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_at_random_bytes_lose_and_repeat_nothing() {
    let place = Place::served().await;
    let (table, proxy) = behind_proxy(&place, Duration::from_secs(30)).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut next = 10;
    for _ in 0..20 {
        let to = ["server", "client"][random.random_range(0..2)];
        let then = ["before", "after", "reply"][random.random_range(0..3)];
        proxy.arm(&format!("to={to}&then={then}&bytes={}", random.random_range(1..3_000)));
        let end = next + random.random_range(1..20);
        land(&table, &[range(0, next, end)]).await;
        next = end;
    }
    println!("{} connections were cut", proxy.fired());
    assert!(proxy.fired() >= 5, "seed {seed}: only {} connections were cut", proxy.fired());
    proxy.disarm();
    assert_eq!(offsets(&table).await, [next], "seed {seed}");
    place.assert_landed(&[next]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_at_its_commit_is_not_taken_for_done() {
    let place = Place::served().await;
    let table = place.impatient_lake(Duration::from_secs(2)).await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    place
        .sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused at commit'; END $$;
             CREATE CONSTRAINT TRIGGER refusal AFTER UPDATE ON iceberg_tables
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let request = batch(&table, &[range(0, 10, 20)]).await;
    let outcome = table.commit(request.clone()).await;
    let CommitOutcome::Unknown(error) = outcome else { panic!("{outcome:?}") };
    assert!(report(&error).contains("refused at commit"), "{}", report(&error));
    assert_eq!(offsets(&table).await, [10]);
    place.assert_landed(&[10]);
    place.sql("DROP TRIGGER refusal ON iceberg_tables").await;
    assert_eq!(settle(&table, &request).await, 1);
    place.assert_landed(&[20]);
}
