//! Appends go on while files are replaced, and neither waits for the other.

use std::time::Duration;

use lake::{Lake, TableHandle};
use tokio::time::Instant;

use crate::fleet::{SAME_DAY_NS, compact, listed, options};
use crate::place::Place;
use crate::rows::{TIME_LIMIT, def, land, offsets, range};

on_both!(appends_and_replacements_land_beside_one_another);

const COMMITS: i64 = 60;
const ROWS: i64 = 10;

/// Lands a batch about every 50 ms, twenty times as often as ingest; the longest time that one took.
async fn append(table: TableHandle) -> Duration {
    let mut longest = Duration::ZERO;
    for batch in 0..COMMITS {
        let began = Instant::now();
        land(&table, &[range(0, batch * ROWS, (batch + 1) * ROWS)]).await;
        longest = longest.max(began.elapsed());
        tokio::time::sleep_until(began + Duration::from_millis(50)).await;
    }
    longest
}

async fn files(lake: &Lake) -> usize {
    lake.table("silver", "t").snapshot().await.unwrap().plan(&[]).await.unwrap().len()
}

async fn appends_and_replacements_land_beside_one_another(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    let appending = tokio::spawn(append(place.lake().await.ensure_table(&def()).await.unwrap()));
    let tables = listed(def());
    let mut replaced = 0;
    while !appending.is_finished() {
        let done = compact(&lake, tables, options(), SAME_DAY_NS).await;
        assert_eq!(done.failed, 0);
        replaced += done.replaced;
    }
    let longest = appending.await.unwrap();
    println!("{replaced} replacements beside {COMMITS} appends, of which the longest took {longest:?}");
    assert!(replaced >= 2, "{replaced}: the appends starve the compactor");
    assert!(longest < TIME_LIMIT / 6, "{longest:?}: the compactor starves the appends");
    compact(&lake, tables, options(), SAME_DAY_NS).await;
    assert!(files(&lake).await <= 16, "{} files", files(&lake).await);
    assert_eq!(offsets(&table).await, [COMMITS * ROWS]);
    place.assert_landed(&[COMMITS * ROWS]);
}
