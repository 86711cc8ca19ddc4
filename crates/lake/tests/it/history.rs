//! Snapshots that are thinned while a simulated clock goes on, and what still reaches them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use lake::commit::{
    ActionOutcome, Conflict, KEEP_DAYS, KEEP_EVERY, KEEP_HOURS, KEEP_MINUTES, Maintenance, Pin, SetProperties,
    StopReason,
};
use lake::{Environment, Lake, ReadError, TableHandle, TableReader, Token};
use tokio::sync::{Mutex, MutexGuard};

use crate::place::Place;
use crate::rows::{def, land, offsets, range};

on_both!(
    commits_leave_what_the_grid_keeps_and_times_and_offsets_of_it,
    a_pinned_snapshot_stays_until_its_last_pin_ends,
    a_tag_holds_its_snapshot_and_finds_it_by_name,
    a_roll_back_stays_as_long_as_what_it_took_out,
);

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn now() -> i64 {
    CLOCK.load(Ordering::SeqCst)
}

fn advance(ms: i64) {
    CLOCK.fetch_add(ms, Ordering::SeqCst);
}

/// A lake whose clock is [`CLOCK`], which one test has at a time. It begins at the present: a change without a snapshot is
/// dated by the real clock, and must not be older than a snapshot. So pins and properties are set before it goes on.
async fn timed(place: &Place) -> (Lake, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let alone = ALONE.lock().await;
    CLOCK.store((Environment::default().unix_ms)(), Ordering::SeqCst);
    let environment = Environment { unix_ms: now, ..Environment::default() };
    (Lake::open_with(place.options.clone(), environment).await.unwrap(), alone)
}

/// Every snapshot for ten seconds, one a minute for two minutes, one an hour for an hour.
const GRID: [(&str, &str); 5] = [
    (KEEP_EVERY, "10s"),
    (KEEP_MINUTES, "2m"),
    (KEEP_HOURS, "1h"),
    (KEEP_DAYS, "1h"),
    ("history.expire.min-snapshots-to-keep", "1"),
];

async fn table(lake: &Lake) -> TableHandle {
    let table = lake.ensure_table(&def()).await.unwrap();
    let set = GRID.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    committed(maintain(&table, Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() })).await);
    table
}

async fn maintain(table: &TableHandle, action: Maintenance) -> ActionOutcome {
    table.maintain(&action, Token::random()).await
}

#[track_caller]
fn committed(outcome: ActionOutcome) {
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
}

async fn times(reader: &TableReader) -> Vec<i64> {
    reader.snapshot().await.unwrap().history().iter().map(|past| past.committed_ms).collect()
}

async fn current(reader: &TableReader) -> i64 {
    reader.snapshot().await.unwrap().snapshot_id().unwrap()
}

/// The times that the grid keeps, found by asking each time for itself.
fn expected(times: &[i64], now: i64) -> Vec<i64> {
    let is_last = |at: i64, unit: i64| !times.iter().any(|other| *other > at && other / unit == at / unit);
    let kept = times.iter().copied().filter(|at| {
        let age = now - at;
        age < 10 * SECOND || (age < 2 * MINUTE && is_last(*at, MINUTE)) || (age < HOUR && is_last(*at, HOUR))
    });
    kept.collect()
}

async fn commits_leave_what_the_grid_keeps_and_times_and_offsets_of_it(place: Place) {
    let (lake, _alone) = timed(&place).await;
    let table = table(&lake).await;
    // Two minutes before an hour begins.
    let hour = (now() / HOUR + 1) * HOUR;
    CLOCK.store(hour + 58 * MINUTE, Ordering::SeqCst);
    let reader = table.reader();
    let mut made = Vec::new();
    let mut ends = BTreeMap::new();
    for i in 0..40 {
        advance(7 * SECOND);
        land(&table, &[range((i % 2) as i32, i / 2, i / 2 + 1)]).await;
        made.push(now());
        ends.insert(now(), offsets(&table).await);
        assert_eq!(times(reader).await, expected(&made, now()), "after commit {i}");
    }
    let kept = times(reader).await;
    assert!(kept.contains(&(made[16])) && kept.len() < 8, "the last of the hour: {kept:?}");

    // Any time is reached: by the newest snapshot that is not younger.
    for at in &made[16..] {
        let found = reader.snapshot_as_of(*at).await.unwrap();
        assert_eq!(found.timestamp_ms(), kept.iter().copied().filter(|kept| kept <= at).max(), "{at}");
    }
    let before_all = reader.snapshot_as_of(made[15]).await.unwrap_err();
    assert!(matches!(before_all, ReadError::Expired { oldest_ms, .. } if oldest_ms == made[16]), "{before_all}");
    // Most snapshots behind it are gone, and yet it says where each partition stood.
    let oldest = reader.snapshot_as_of(made[16]).await.unwrap().snapshot_id().unwrap();
    committed(table.roll_back(oldest, Some(current(reader).await), Token::random()).await);
    assert_eq!(offsets(&table).await, ends[&made[16]]);
    place.assert_landed(&ends[&made[16]]);
    let history = reader.snapshot().await.unwrap().history();
    assert_eq!(history.iter().map(|past| past.follows).collect::<Vec<_>>(), [false, true]);
}

async fn a_pinned_snapshot_stays_until_its_last_pin_ends(place: Place) {
    let (lake, _alone) = timed(&place).await;
    let table = table(&lake).await;
    let reader = table.reader();
    land(&table, &[range(0, 0, 1)]).await;
    let snapshot = current(reader).await;
    let pin =
        |owner: &str, until_ms| Pin { snapshot, owner: owner.to_owned(), reason: "a slow rank".to_owned(), until_ms };
    let pins = [pin("incident-12", Some(now() + HOUR)), pin("report.nccl", Some(now() + 4 * HOUR))];
    for pin in pins.iter().cloned().chain([pin("withdrawn", None)]) {
        committed(table.pin(pin, Token::random()).await);
    }
    committed(table.unpin(snapshot, "withdrawn", Token::random()).await);
    let malformed = table.pin(pin("two words", None), Token::random()).await;
    assert!(matches!(malformed, ActionOutcome::Stop(StopReason::Request(_))), "{malformed:?}");
    assert_eq!(reader.snapshot().await.unwrap().pins(), pins);

    advance(3 * HOUR);
    land(&table, &[range(0, 1, 2)]).await;
    let left = reader.snapshot().await.unwrap();
    assert_eq!((left.pins(), left.history().len()), (pins[1..].to_vec(), 2), "a pin that has ended leaves");
    let files = reader.snapshot_by_id(snapshot).await.unwrap().plan(&[]).await.unwrap();
    assert_eq!(files.len(), 1);

    advance(HOUR);
    land(&table, &[range(0, 2, 3)]).await;
    assert!(reader.snapshot_by_id(snapshot).await.is_err());
    let late = table.pin(pins[1].clone(), Token::random()).await;
    assert!(matches!(late, ActionOutcome::Conflict(Conflict::NotInHistory { .. })), "{late:?}");
    assert!(reader.snapshot().await.unwrap().pins().is_empty());
}

async fn a_tag_holds_its_snapshot_and_finds_it_by_name(place: Place) {
    let (lake, _alone) = timed(&place).await;
    let table = table(&lake).await;
    let reader = table.reader();
    land(&table, &[range(0, 0, 1)]).await;
    let tagged = current(reader).await;
    place.pyiceberg(&format!(
        "catalog.load_table('silver.t').manage_snapshots().create_tag({tagged}, 'before').commit()"
    ));
    for start in 1..3 {
        advance(2 * HOUR);
        land(&table, &[range(0, start, start + 1)]).await;
    }
    let found = reader.snapshot_of_ref("before").await.unwrap();
    assert_eq!((found.snapshot_id(), found.total_records()), (Some(tagged), Some(1)));
    assert_eq!(reader.snapshot_of_ref("main").await.unwrap().total_records(), Some(3));
    let unknown = reader.snapshot_of_ref("after").await.unwrap_err();
    assert_eq!(unknown.to_string(), r#"table silver.t has no branch or tag "after"; it has ["before", "main"]"#);
    place.assert_landed(&[3]);
}

async fn a_roll_back_stays_as_long_as_what_it_took_out(place: Place) {
    let (lake, _alone) = timed(&place).await;
    let table = table(&lake).await;
    let reader = table.reader();
    land(&table, &[range(0, 0, 1)]).await;
    let target = current(reader).await;
    land(&table, &[range(0, 1, 2)]).await;
    let wrong = current(reader).await;
    let pin =
        Pin { snapshot: wrong, owner: "incident".to_owned(), reason: String::new(), until_ms: Some(now() + 3 * HOUR) };
    committed(table.pin(pin, Token::random()).await);
    committed(table.roll_back(target, Some(wrong), Token::random()).await);
    let roll_back = current(reader).await;

    advance(2 * HOUR);
    land(&table, &[range(0, 1, 2)]).await;
    let ids: BTreeSet<i64> = reader.snapshot().await.unwrap().history().iter().map(|past| past.snapshot_id).collect();
    assert_eq!(ids, [roll_back, current(reader).await].into(), "what was rolled back is pinned, and no history");
    reader.snapshot_by_id(wrong).await.unwrap();
    // First what was taken out, then the roll back.
    for (start, is_there) in [(2, true), (3, false)] {
        advance(2 * HOUR);
        land(&table, &[range(0, start, start + 1)]).await;
        assert!(reader.snapshot_by_id(wrong).await.is_err());
        assert_eq!(reader.snapshot_by_id(roll_back).await.is_ok(), is_there);
    }
    place.assert_landed(&[4]);
}
