//! Old days of a table are dropped, unless a hold or a pin keeps them.

use std::collections::HashMap;

use lake::commit::{ActionOutcome, Maintenance, Pin, SetProperties};
use lake::{CommitRequest, TableHandle, Token};
use maintenance::retention::{self, Plan, RETENTION_DAYS, RETENTION_HOLD};

use crate::place::Place;
use crate::rows::{NEW_YEAR, def, offsets, range, row, swaps};

on_both!(old_days_leave_a_table_as_whole_files_and_stay_where_they_are_pinned_or_held);

const DAY: i64 = 86_400_000_000;

async fn committed(table: &TableHandle, action: Maintenance) {
    let outcome = table.maintain(&action, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
}

async fn set(table: &TableHandle, key: &str, value: &str) {
    let set = [(key.to_owned(), value.to_owned())].into();
    committed(table, Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() })).await;
}

/// What retention asks on the third day of the year.
async fn plan(table: &TableHandle) -> Plan {
    let snapshot = table.reader().snapshot().await.unwrap();
    let files = snapshot.plan(&[]).await.unwrap();
    let properties: &HashMap<String, String> = snapshot.properties();
    let today = i32::try_from((NEW_YEAR + 2 * DAY) / DAY).unwrap();
    retention::plan(files.iter().map(|file| (file.location.as_str(), file.day)), properties, today).unwrap()
}

async fn old_days_leave_a_table_as_whole_files_and_stay_where_they_are_pinned_or_held(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    for day in 0..3 {
        let files = table.write(&[row(0, day, NEW_YEAR + day * DAY)]).await.unwrap();
        let request = CommitRequest::new(vec![range(0, day, day + 1)], Token::random(), files);
        assert_eq!(swaps(table.commit(request).await), 1);
    }
    assert!(matches!(plan(&table).await, Plan::Keep), "a table keeps everything unless it says otherwise");
    let snapshot = table.reader().snapshot().await.unwrap().snapshot_id().unwrap();
    let pin = Pin { snapshot, owner: "report".to_owned(), reason: "quarter".to_owned(), until_ms: None };
    committed(&table, Maintenance::Pin(lake::commit::PinSnapshot { pin })).await;
    set(&table, RETENTION_DAYS, "1").await;
    set(&table, RETENTION_HOLD, "case 4711").await;
    let held = plan(&table).await;
    assert!(matches!(&held, Plan::Held { reason, files: 1 } if reason == "case 4711"), "{held:?}");

    let remove = [RETENTION_HOLD.to_owned()].into();
    committed(&table, Maintenance::SetProperties(SetProperties { remove, ..SetProperties::default() })).await;
    let Plan::Drop { change, .. } = plan(&table).await else { panic!("nothing holds it") };
    committed(&table, Maintenance::DeleteFiles(change)).await;
    let rows = async |snapshot: lake::TableSnapshot| snapshot.plan(&[]).await.unwrap().len();
    assert_eq!(rows((*table.reader().snapshot().await.unwrap()).clone()).await, 2);
    assert_eq!(rows(table.reader().snapshot_by_id(snapshot).await.unwrap()).await, 3, "the pin still reads them");
    assert_eq!(offsets(&table).await, [3], "nothing is read again");
    assert!(matches!(plan(&table).await, Plan::Keep));
}
