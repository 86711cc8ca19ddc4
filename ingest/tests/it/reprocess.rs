//! Rows that are made again from bronze beside ingest: equal to what ingest made, and swapped once.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::util::display::array_value_to_string;
use event_schema::sketch::Sketch;
use ingest::repair::reprocess::{Report, Reprocess, ReprocessError, reprocess};
use lake::commit::{ActionOutcome, DeleteFiles, Evolve, Maintenance, Replace, RowCount};
use lake::{DataFile, TableHandle, TableSnapshot, Token};
use service_kit::clock::Clock;
use tables::def::{ColumnType, column};
use tables::registry::{self, Content, Table};

use super::*;

/// Each row as its cells by the names of their columns, in no order: the order of columns depends on a table's history.
fn cells(batch: &RecordBatch) -> Vec<String> {
    let mut rows = Vec::new();
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        let named = schema.fields().iter().zip(batch.columns());
        let named =
            named.map(|(field, column)| format!("{}={}", field.name(), array_value_to_string(column, row).unwrap()));
        rows.push(named.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" "));
    }
    rows.sort();
    rows
}

/// What partial aggregates come to, by their keys: how they are cut depends on the batch.
fn merged(batch: &RecordBatch) -> BTreeMap<String, (i64, i64, i64, Vec<u8>)> {
    let long = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
    let sketches = batch.column_by_name("sketch").unwrap().as_binary::<i32>();
    let mut totals: BTreeMap<String, (i64, i64, i64, Sketch)> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        let key = ["minute", "cluster", "node", "rank", "pid", "source", "op", "size_class"];
        let key = key.map(|name| array_value_to_string(batch.column_by_name(name).unwrap(), row).unwrap());
        let total = totals.entry(key.join(" ")).or_insert_with(|| (0, 0, 0, Sketch::default()));
        total.0 += long("count").value(row);
        total.1 += long("sum_duration_ns").value(row);
        total.2 += long("timed").value(row);
        total.3.merge(&Sketch::from_bytes(sketches.value(row)).unwrap());
    }
    totals.into_iter().map(|(key, (count, sum, timed, sketch))| (key, (count, sum, timed, sketch.to_bytes()))).collect()
}

/// What all refined tables hold.
#[derive(Debug, PartialEq)]
struct Held {
    records: BTreeMap<String, Vec<String>>,
    minutes: BTreeMap<String, (i64, i64, i64, Vec<u8>)>,
}

async fn held(place: &Place) -> Held {
    let mut records = BTreeMap::new();
    for table in registry::all().iter().filter(|table| matches!(table.content, Content::Records(_))) {
        let name = table.def.name;
        records.insert(name.to_string(), cells(&place.rows(name.namespace, name.name).await));
    }
    Held { records, minutes: merged(&place.rows("gold", "op_minute").await) }
}

fn refined() -> Vec<&'static Table> {
    registry::all().iter().filter(|table| table.is_refined()).collect()
}

fn table(namespace: &str, name: &str) -> &'static Table {
    registry::find(namespace, name).unwrap()
}

fn now_us() -> i64 {
    SystemClock.now_ns() / 1_000
}

async fn handle(place: &Place, table: &Table) -> TableHandle {
    place.lake().await.ensure_table(&table.def).await.unwrap()
}

async fn head(place: &Place, table: &Table) -> Arc<TableSnapshot> {
    place.lake().await.table(table.def.name.namespace, table.def.name.name).snapshot().await.unwrap()
}

#[track_caller]
fn committed(outcome: ActionOutcome) {
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
}

async fn all_since(place: &Place, since_us: i64) -> Vec<Report> {
    let mut reports = Vec::new();
    reprocess(&place.lake().await, refined(), since_us, &Drain::new(), &mut reports).await.unwrap();
    reports
}

fn report<'a>(reports: &'a [Report], table: &str) -> &'a Report {
    reports.iter().find(|report| report.table == table).unwrap()
}

/// Two logs in three parts, each of which ingest has read by itself: with repetitions, in part and as a whole, and a dead
/// letter. Returns the time between the first and the second.
async fn filled(place: &Place) -> i64 {
    let (mut a, mut b) = (writer(&place.spool(), 0), writer(&place.spool(), 1));
    append(&mut a, &[message("a", 0, 20), message("a", 10, 20)]);
    append(&mut b, &[message("b", 0, 30)]);
    place.ingest().await.unwrap();
    let since_us = now_us();
    append(&mut a, &[message("a", 25, 10), Bytes::from_static(b"no message"), message("a", 0, 20)]);
    append(&mut b, &[message("b", 20, 30), message("b", 50, 0)]);
    place.ingest().await.unwrap();
    append(&mut a, &[message("a", 35, 5)]);
    place.ingest().await.unwrap();
    since_us
}

/// The rows of `silver.events` as an older version might have made them: each operation is another one.
async fn spoil(place: &Place) {
    let events = table("silver", "events");
    let rows = place.rows("silver", "events").await;
    let op = rows.schema().index_of("op").unwrap();
    let mut columns = rows.columns().to_vec();
    let other = columns[op].as_primitive::<arrow::datatypes::Int32Type>().iter().map(|op| op.map(|op| op + 1));
    columns[op] = Arc::new(other.collect::<arrow::array::Int32Array>()) as ArrayRef;
    let spoiled = RecordBatch::try_new(rows.schema(), columns).unwrap();
    rewrite(place, events, vec![spoiled]).await;
}

/// Puts rows in the place of all that a table has, in one file per day.
async fn rewrite(place: &Place, table: &Table, rows: Vec<RecordBatch>) {
    let handle = handle(place, table).await;
    let inputs = head(place, table).await.plan(&[]).await.unwrap();
    let inputs = inputs.iter().map(|file| file.location.clone()).collect();
    let outputs: Vec<DataFile> = handle.write(&rows).await.unwrap();
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept });
    committed(handle.maintain(&replace, Token::random()).await);
}

/// Every file of a table becomes one, as a compactor does it.
async fn compact(place: &Place, table: &Table) {
    let name = table.def.name;
    let rows = place.rows(name.namespace, name.name).await;
    rewrite(place, table, vec![rows]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_made_again_equal_those_that_landed() {
    let place = Place::new();
    let since_us = filled(&place).await;
    let before = held(&place).await;
    let offsets = head(&place, table("silver", "events")).await.offsets();
    for since_us in [0, since_us] {
        let reports = all_since(&place, since_us).await;
        assert_eq!(held(&place).await, before);
        let events = report(&reports, "silver.events");
        // Of the second part: 25..30 had landed before, in both logs.
        let rows = if since_us == 0 { 90 } else { 5 + 20 + 5 };
        assert_eq!((events.rows, events.former_rows), (Some(rows), rows), "{events:?}");
        assert!(events.snapshot.is_some());
        assert_eq!(events.former_versions, [Some(1)]);
        assert!(report(&reports, "silver.stacks").snapshot.is_none(), "it has no rows");
    }
    assert_eq!(head(&place, table("silver", "events")).await.offsets(), offsets);
    assert_eq!(place.ingest().await.unwrap(), Summary::default(), "nothing is read again");
    let nothing = all_since(&place, now_us()).await;
    assert!(nothing.iter().all(|report| report.snapshot.is_none() && report.ranges.is_empty()), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_older_version_made_are_replaced_from_the_time_on_and_older_ones_are_carried_over() {
    let place = Place::new();
    let since_us = filled(&place).await;
    let right = held(&place).await;
    spoil(&place).await;
    let wrong = held(&place).await;
    assert_ne!(wrong, right);
    let lake = place.lake().await;
    let plan = Reprocess::plan(&lake, &[table("silver", "events")], since_us).await.unwrap();
    let preview = plan.preview().await.unwrap().remove(0);
    assert_eq!((preview.rows, preview.former_rows, preview.former_files), (Some(30), 30, 1), "{preview:?}");
    assert_eq!((preview.carried_rows, preview.snapshot), (60, None));
    assert_eq!(held(&place).await, wrong, "a preview changes nothing");

    let mut reports = Vec::new();
    reprocess(&lake, vec![table("silver", "events")], since_us, &Drain::new(), &mut reports).await.unwrap();
    assert_eq!((reports[0].rows, reports[0].carried_rows), (Some(30), 60));
    let mixed = held(&place).await;
    let of = |held: &Held| held.records["silver.events"].iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(mixed.records["silver.events"].len(), 90);
    assert_eq!(of(&mixed).intersection(&of(&right)).count(), 30, "made again");
    assert_eq!(of(&mixed).intersection(&of(&wrong)).count(), 60, "carried over");
    all_since(&place, 0).await;
    assert_eq!(held(&place).await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lands_between_making_and_swapping_stays() {
    let place = Place::new();
    let since_us = filled(&place).await;
    spoil(&place).await;
    let mut again = Reprocess::plan(&place.lake().await, &refined(), since_us).await.unwrap();
    again.make().await.unwrap();
    append(&mut writer(&place.spool(), 0), &[message("a", 30, 50)]);
    place.ingest().await.unwrap();
    let mut reports = Vec::new();
    let left = again.swap(&mut reports).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let mut expected: Vec<i64> = (0..80).chain(0..50).collect();
    expected.sort_unstable();
    assert_eq!(place.longs("silver", "events", "seq").await, expected);
    assert_eq!(place.longs("gold", "op_minute", "count").await.iter().sum::<i64>(), 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_before_the_swap_changes_nothing() {
    let place = Place::new();
    filled(&place).await;
    let before = held(&place).await;
    let snapshot = head(&place, table("silver", "events")).await.snapshot_id();
    let mut again = Reprocess::plan(&place.lake().await, &refined(), 0).await.unwrap();
    again.make().await.unwrap();
    drop(again);
    assert_eq!(head(&place, table("silver", "events")).await.snapshot_id(), snapshot);
    assert_eq!(held(&place).await, before);
    let drain = Drain::new();
    drain.cancel();
    let ended = reprocess(&place.lake().await, refined(), 0, &drain, &mut Vec::new()).await;
    assert!(matches!(ended, Err(ReprocessError::Interrupted)), "{ended:?}");
    assert_eq!(head(&place, table("silver", "events")).await.snapshot_id(), snapshot);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_rewritten_meanwhile_are_found_anew() {
    let place = Place::new();
    let since_us = filled(&place).await;
    let right = held(&place).await;
    spoil(&place).await;
    let mut again = Reprocess::plan(&place.lake().await, &refined(), since_us).await.unwrap();
    again.make().await.unwrap();
    compact(&place, table("silver", "events")).await;
    compact(&place, table("gold", "op_minute")).await;
    let mut reports = Vec::new();
    let left = again.swap(&mut reports).await.unwrap();
    // Partial aggregates name no message: what was rewritten may hold those of later ones.
    assert_eq!(left.iter().map(|table| table.def.name.to_string()).collect::<Vec<_>>(), ["gold.op_minute"]);
    assert_eq!(report(&reports, "silver.events").rows, Some(30));
    assert_eq!(held(&place).await.minutes, right.minutes);
    let mut reports = Vec::new();
    reprocess(&place.lake().await, left, since_us, &Drain::new(), &mut reports).await.unwrap();
    assert!(reports[0].snapshot.is_some());
    assert_eq!(held(&place).await.minutes, right.minutes);
    all_since(&place, 0).await;
    assert_eq!(held(&place).await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_rolled_back_meanwhile_is_made_anew() {
    let place = Place::new();
    filled(&place).await;
    let right = held(&place).await;
    let events = table("silver", "events");
    let mut again = Reprocess::plan(&place.lake().await, &[events], 0).await.unwrap();
    again.make().await.unwrap();
    let now = head(&place, events).await;
    let first = now.history()[0].snapshot_id;
    committed(handle(&place, events).await.roll_back(first, now.snapshot_id(), Token::random()).await);
    place.ingest().await.unwrap();
    let left = again.swap(&mut Vec::new()).await.unwrap();
    assert_eq!(left.len(), 1, "its rows were read again");
    assert_eq!(held(&place).await, right);
    all_since(&place, 0).await;
    assert_eq!(held(&place).await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_taken_away_with_their_files_come_back() {
    let place = Place::new();
    filled(&place).await;
    let right = held(&place).await;
    for table in [table("silver", "events"), table("gold", "op_minute")] {
        let files = head(&place, table).await.plan(&[]).await.unwrap();
        let files = files.iter().map(|file| file.location.clone()).collect();
        let delete = Maintenance::DeleteFiles(DeleteFiles { files });
        committed(handle(&place, table).await.maintain(&delete, Token::random()).await);
    }
    assert_ne!(held(&place).await, right);
    all_since(&place, 0).await;
    assert_eq!(held(&place).await, right);
}

/// Tables as they were before events had the column `duration_weight`.
fn older_tables() -> &'static [Table] {
    let mut tables = registry::all().to_vec();
    let events = tables.iter_mut().find(|table| table.def.name.to_string() == "silver.events").unwrap();
    events.def.columns.retain(|column| column.name != "duration_weight");
    Box::leak(tables.into_boxed_slice())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_a_schema_step_get_the_values_that_it_brought() {
    let (place, fresh) = (Place::new(), Place::new());
    let parts = [vec![message("a", 0, 20), message("a", 10, 20)], vec![message("a", 30, 5)]];
    append(&mut writer(&fresh.spool(), 0), &parts.concat());
    fresh.ingest().await.unwrap();
    let right = held(&fresh).await;

    append(&mut writer(&place.spool(), 0), &parts[0]);
    let options = Options { until: Until::CaughtUp, ..Options::default() };
    let lake = place.lake().await;
    let older = Ingest::open(Parts { tables: older_tables(), ..parts_of(&lake) }, options).await.unwrap();
    older.run(Box::new(LogSource::new(place.spool(), topics::READ)), Drain::new()).await.unwrap();
    let older_events =
        older_tables().iter().find(|table| table.content == Content::Records(RecordKind::Event)).unwrap();
    let evolve = Maintenance::Evolve(Box::new(Evolve { def: table("silver", "events").def.clone() }));
    committed(handle(&place, older_events).await.maintain(&evolve, Token::random()).await);
    append(&mut writer(&place.spool(), 0), &parts[1]);
    place.ingest().await.unwrap();
    assert_ne!(held(&place).await, right, "the older rows have no value");

    all_since(&place, 0).await;
    assert_eq!(held(&place).await, right);
    let weights = place.rows("silver", "events").await;
    assert_eq!(weights.column_by_name("duration_weight").unwrap().null_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_column_of_a_newer_version_stays_as_it_is() {
    let place = Place::new();
    filled(&place).await;
    let events = table("silver", "events");
    let mut newer = events.def.clone();
    newer.columns.push(column(900, "new", ColumnType::Long, "of a newer version").optional());
    // Made before, as by a command that looks, and then takes long.
    let mut planned = Reprocess::plan(&place.lake().await, &[events], 0).await.unwrap();
    planned.make().await.unwrap();
    let evolve = Maintenance::Evolve(Box::new(Evolve { def: newer }));
    committed(handle(&place, events).await.maintain(&evolve, Token::random()).await);
    let before = head(&place, events).await.snapshot_id();
    let refused = [
        planned.swap(&mut Vec::new()).await.unwrap_err(),
        Reprocess::plan(&place.lake().await, &[events], 0).await.unwrap_err(),
    ];
    for error in refused {
        assert!(error.to_string().contains("columns that this version does not know: new;"), "{error}");
    }
    assert_eq!(head(&place, events).await.snapshot_id(), before);
}

/// As [`parts`], with a readiness of its own.
fn parts_of(lake: &Lake) -> Parts<'_> {
    parts(lake, Box::leak(Box::new(Readiness::new())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_bronze_lost_is_named_and_nothing_is_changed() {
    let place = Place::new();
    filled(&place).await;
    let before = held(&place).await;
    let bronze = table("bronze", "messages");
    let rows = place.rows("bronze", "messages").await;
    let offsets: &Int64Array = rows.column_by_name("log_offset").unwrap().as_primitive();
    let partitions = rows.column_by_name("log_partition").unwrap().as_primitive::<arrow::datatypes::Int32Type>();
    let others = (0..rows.num_rows()).map(|row| Some((partitions.value(row), offsets.value(row)) != (1, 1)));
    let others = arrow::compute::filter_record_batch(&rows, &others.collect()).unwrap();
    let handle = handle(&place, bronze).await;
    let inputs = head(&place, bronze).await.plan(&[]).await.unwrap();
    let inputs = inputs.iter().map(|file| file.location.clone()).collect();
    let outputs = handle.write(&[others]).await.unwrap();
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Folded });
    committed(handle.maintain(&replace, Token::random()).await);
    let refused = reprocess(&place.lake().await, refined(), 0, &Drain::new(), &mut Vec::new()).await.unwrap_err();
    let text = service_kit::run::report(&refused);
    assert!(text.contains("bronze.messages does not hold causeway.events.v1/1@1"), "{text}");
    assert_eq!(held(&place).await, before);
}
