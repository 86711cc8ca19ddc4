//! The actions that maintain a table beside its writers, over a real catalog and store; what they leave is read by PyIceberg.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::{NextOffset, TopicPartition};
use lake::commit::{
    ActionOutcome, Conflict, DeleteFiles, Evolve, Expire, Holder, Maintenance, Replace, RowCount, SetProperties,
    StopReason,
};
use lake::{CommitOutcome, CommitRequest, DataFile, TableHandle, TableSnapshot, Token};
use tables::def::{ColumnType, Partition, TableDef, column};

use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range};

on_both!(
    a_replacement_keeps_every_row_and_what_others_landed_meanwhile,
    a_replacement_whose_inputs_are_gone_or_whose_rows_differ_is_a_conflict,
    deleted_files_take_their_rows_and_leave_the_offsets,
    snapshots_that_are_current_named_or_pinned_do_not_expire,
    properties_are_set_and_removed_but_not_those_of_the_protocol,
    a_table_grows_a_column_and_another_partitioning,
    a_rolled_back_table_has_the_rows_and_offsets_of_its_snapshot_and_lands_the_rest_again,
    a_roll_back_whose_offsets_cannot_be_known_is_refused,
);

async fn snapshot(place: &Place) -> std::sync::Arc<TableSnapshot> {
    place.lake().await.table("silver", "t").snapshot().await.unwrap()
}

/// Locations of the live files that hold rows of a partition.
async fn files_of(place: &Place, part: i32) -> BTreeSet<String> {
    let part = lake::ColumnRange::equals("part", lake::Value::Int(part));
    let plan = snapshot(place).await.plan(&[part]).await.unwrap();
    plan.iter().map(|file| file.location.clone()).collect()
}

pub(crate) async fn maintain(table: &TableHandle, action: Maintenance) -> ActionOutcome {
    table.maintain(&action, Token::random()).await
}

#[track_caller]
pub(crate) fn committed(outcome: ActionOutcome) -> u32 {
    match outcome {
        ActionOutcome::Committed(committed) => committed.swaps,
        other => panic!("not committed: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn conflict(outcome: ActionOutcome) -> Conflict {
    match outcome {
        ActionOutcome::Conflict(conflict) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

/// The properties that every action carries on.
async fn carried(place: &Place) -> BTreeMap<String, String> {
    let snapshot = snapshot(place).await;
    let carried = snapshot.properties().iter();
    let carried = carried.filter(|(key, _)| key.starts_with("causeway.offset") || key.starts_with("causeway.gap"));
    carried.map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn rewritten(table: &TableHandle, part: i32, end: i64) -> Vec<DataFile> {
    batch(table, &[range(part, 0, end)]).await.files
}

async fn a_replacement_keeps_every_row_and_what_others_landed_meanwhile(place: Place) {
    let maintainer = place.lake().await.ensure_table(&def()).await.unwrap();
    let writer = place.lake().await.ensure_table(&def()).await.unwrap();
    for start in [0, 10, 20] {
        land(&writer, &[range(0, start, start + 10)]).await;
    }
    let before = snapshot(&place).await;
    let inputs = files_of(&place, 0).await;
    let outputs = rewritten(&maintainer, 0, 30).await;
    land(&writer, &[range(0, 30, 40), range(1, 0, 5)]).await;
    let expected = carried(&place).await;

    let token = Token::random();
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept });
    assert_eq!(committed(maintainer.maintain(&replace, token).await), 1);
    assert_eq!(committed(maintainer.maintain(&replace, token).await), 0, "it is known by its token");
    let after = snapshot(&place).await;
    assert_eq!(after.plan(&[]).await.unwrap().len(), 2, "one file in the place of three, and that of the writer");
    assert_eq!(after.total_records(), Some(45));
    assert_eq!(after.history().last().unwrap().operation, "replace");
    assert_eq!((carried(&place).await, offsets(&writer).await), (expected, vec![40, 5]));
    let old = place.lake().await.table("silver", "t").snapshot_by_id(before.snapshot_id().unwrap()).await.unwrap();
    assert_eq!(old.plan(&[]).await.unwrap().len(), 3, "the snapshot before still has its files");
    land(&writer, &[range(0, 40, 50)]).await;
    place.assert_landed(&[50, 5]);
}

async fn a_replacement_whose_inputs_are_gone_or_whose_rows_differ_is_a_conflict(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land(&table, &[range(0, 10, 20)]).await;
    let inputs = files_of(&place, 0).await;
    let replace = |outputs, rows| Maintenance::Replace(Replace { inputs: inputs.clone(), outputs, rows });
    let short = rewritten(&table, 0, 19).await;
    let lost_row = maintain(&table, replace(short.clone(), RowCount::Kept)).await;
    assert_eq!(conflict(lost_row), Conflict::RowCount { inputs: 20, outputs: 19 });
    let first = replace(rewritten(&table, 0, 20).await, RowCount::Kept);
    let second = replace(rewritten(&table, 0, 20).await, RowCount::Kept);
    assert_eq!(committed(maintain(&table, first).await), 1);
    let late = conflict(maintain(&table, second).await);
    assert!(matches!(&late, Conflict::FileGone { path } if inputs.contains(path)), "{late:?}");
    place.assert_landed(&[20]);

    let same = Maintenance::Replace(Replace {
        inputs: short.iter().map(|file| file.file_path().to_owned()).collect(),
        outputs: short,
        rows: RowCount::Folded,
    });
    let refused = maintain(&table, same).await;
    assert!(matches!(refused, ActionOutcome::Stop(StopReason::Request(_))), "{refused:?}");
}

async fn deleted_files_take_their_rows_and_leave_the_offsets(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land(&table, &[range(1, 0, 10)]).await;
    let expected = carried(&place).await;
    let delete = Maintenance::DeleteFiles(DeleteFiles { files: files_of(&place, 1).await });
    assert_eq!(committed(maintain(&table, delete.clone()).await), 1);
    assert_eq!((carried(&place).await, offsets(&table).await), (expected, vec![10, 10]));
    place.assert_landed(&[10]);
    assert!(matches!(conflict(maintain(&table, delete).await), Conflict::FileGone { .. }));
    // Enough commits for the manifest that lists the deleted file to be merged into another.
    for i in 1..20 {
        land(&table, &[range(0, 10 * i, 10 * (i + 1))]).await;
    }
    place.assert_landed(&[200]);
}

async fn snapshots_that_are_current_named_or_pinned_do_not_expire(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let mut ids = Vec::new();
    for start in 0..5 {
        land(&table, &[range(0, start, start + 1)]).await;
        ids.push(snapshot(&place).await.snapshot_id().unwrap());
    }
    place.pyiceberg(&format!(
        "catalog.load_table('silver.t').manage_snapshots().create_tag({}, 'kept').commit()",
        ids[1]
    ));
    let far = i64::MAX.to_string();
    let pin = SetProperties { set: [(format!("causeway.pin.{}", ids[2]), far)].into(), ..SetProperties::default() };
    assert_eq!(committed(maintain(&table, Maintenance::SetProperties(pin)).await), 1);
    let expire = |snapshots: &[i64]| Maintenance::Expire(Expire { snapshots: snapshots.iter().copied().collect() });
    for (id, holder) in [(ids[1], Holder::Reference), (ids[2], Holder::Pin), (ids[4], Holder::Current)] {
        let refused = conflict(maintain(&table, expire(&[ids[0], id])).await);
        assert_eq!(refused, Conflict::SnapshotHeld { snapshot: id, holder });
    }
    assert_eq!(
        committed(maintain(&table, expire(&[ids[0], ids[3], 7])).await),
        1,
        "one that is unknown is passed over"
    );
    let left: Vec<i64> = snapshot(&place).await.history().iter().map(|past| past.snapshot_id).collect();
    assert_eq!(left, [ids[1], ids[2], ids[4]]);
    assert_eq!(offsets(&table).await, [5]);
    land(&table, &[range(0, 5, 6)]).await;
    place.assert_landed(&[6]);
}

async fn properties_are_set_and_removed_but_not_those_of_the_protocol(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let set = |key: &str, value: &str| {
        let set = [(key.to_owned(), value.to_owned())].into();
        Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() })
    };
    assert_eq!(committed(maintain(&table, set("history.expire.max-snapshot-age-ms", "1000")).await), 1);
    assert_eq!(snapshot(&place).await.properties()["history.expire.max-snapshot-age-ms"], "1000");
    let remove = ["history.expire.max-snapshot-age-ms".to_owned()].into();
    let remove = Maintenance::SetProperties(SetProperties { remove, ..SetProperties::default() });
    assert_eq!(committed(maintain(&table, remove).await), 1);
    assert!(!snapshot(&place).await.properties().contains_key("history.expire.max-snapshot-age-ms"));
    for key in [
        "causeway.offset.topic/0",
        "causeway.tokens",
        "causeway.offset-count",
        "causeway.gap.topic/0:0-1",
        "causeway.refined.topic/0",
        "causeway.rewritten",
    ] {
        let refused = maintain(&table, set(key, "0")).await;
        assert!(matches!(refused, ActionOutcome::Stop(StopReason::Request(_))), "{key}: {refused:?}");
    }
    assert_eq!(offsets(&table).await, [10]);
}

async fn a_table_grows_a_column_and_another_partitioning(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let expected = carried(&place).await;
    let mut columns = def().columns;
    columns[0].kind = ColumnType::Long;
    columns.push(tables::def::Column { required: false, ..column(4, "note", ColumnType::String, "added later") });
    let grown = TableDef { columns, partition: Partition::Unpartitioned, ..def() };
    let evolve = |def: &TableDef| Maintenance::Evolve(Box::new(Evolve { def: def.clone() }));
    assert_eq!(committed(maintain(&table, evolve(&grown)).await), 1);
    assert_eq!(carried(&place).await, expected);
    let stopped = table.commit(batch(&table, &[range(0, 10, 20)]).await).await;
    assert!(matches!(stopped, CommitOutcome::Stop(StopReason::Altered(_))), "{stopped:?}");

    let table = place.lake().await.ensure_table(&grown).await.unwrap();
    let rows = crate::rows::row(0, 10, crate::rows::NEW_YEAR);
    let note: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::StringArray::from(vec!["new"]));
    let schema = rows.schema();
    let named = schema.fields().iter().map(|f| f.name().clone()).zip(rows.columns().to_vec());
    let rows = arrow::array::RecordBatch::try_from_iter(named.chain([("note".to_owned(), note)])).unwrap();
    let files = table.write(&[rows]).await.unwrap();
    let landed = table.commit(CommitRequest::new(vec![range(0, 10, 11)], Token::random(), files)).await;
    assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
    place.assert_landed(&[11]);
    place.pyiceberg(
        "rows = catalog.load_table('silver.t').scan().to_arrow().to_pylist()\n\
         assert sorted(str(row['note']) for row in rows) == ['None'] * 10 + ['new'], rows",
    );

    let mut required = grown.clone();
    required.columns.push(tables::def::Column { required: true, ..column(5, "must", ColumnType::Long, "") });
    let Conflict::Schema(mismatch) = conflict(maintain(&table, evolve(&required)).await) else { panic!("a mismatch") };
    assert!(mismatch.to_string().contains("must: expected required long with id 5, found nothing"), "{mismatch}");
}

async fn a_rolled_back_table_has_the_rows_and_offsets_of_its_snapshot_and_lands_the_rest_again(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land(&table, &[range(1, 0, 5)]).await;
    let target = snapshot(&place).await;
    let (id, expected) = (target.snapshot_id().unwrap(), carried(&place).await);
    land(&table, &[range(0, 10, 20)]).await;
    let mut behind_gap = batch(&table, &[range(1, 8, 9), range(2, 0, 5)]).await;
    behind_gap.gaps.push(range(1, 5, 8));
    assert!(matches!(table.commit(behind_gap).await, CommitOutcome::Committed(_)));
    assert_eq!(offsets(&table).await, [20, 9, 5]);
    let head = snapshot(&place).await;
    let rolled_back = head.snapshot_id().unwrap();
    let planned = head.plan_roll_back(id).unwrap();
    assert_eq!((planned.offsets, planned.later_gaps), (target.offsets(), vec![range(1, 5, 8)]));
    // A plan is of the head that was read, whatever was committed since.
    assert_eq!(target.plan_roll_back(id).unwrap().offsets, target.offsets());
    assert_eq!(target.plan_roll_back(rolled_back), Err(Conflict::NotInHistory { snapshot: rolled_back }));

    let from = head.snapshot_id();
    assert_eq!(conflict(table.roll_back(id, Some(id), Token::random()).await), Conflict::Moved);
    assert_eq!(offsets(&table).await, [20, 9, 5], "what was landed after the plan stays");
    let token = Token::random();
    assert_eq!(committed(table.roll_back(id, from, token).await), 1);
    assert_eq!(committed(table.roll_back(id, from, token).await), 0, "it is known by its token");
    let after = snapshot(&place).await;
    assert_eq!((carried(&place).await, after.total_records(), after.gaps()), (expected, Some(15), vec![]));
    place.assert_landed(&[10, 5]);
    assert_eq!(
        conflict(table.roll_back(rolled_back, after.snapshot_id(), Token::random()).await),
        Conflict::NotInHistory { snapshot: rolled_back }
    );

    // A writer that was running goes on where it believes to be, and stops; a restarted one reads the offsets.
    let running = table.commit(batch(&table, &[range(0, 20, 30)]).await).await;
    assert!(matches!(running, CommitOutcome::Stop(StopReason::Gap { expected: 10, start: 20, .. })), "{running:?}");
    let restarted = place.lake().await.ensure_table(&def()).await.unwrap();
    assert_eq!(offsets(&restarted).await, [10, 5]);
    land(&restarted, &[range(0, 10, 30), range(1, 5, 9), range(2, 0, 5)]).await;
    place.assert_landed(&[30, 9, 5]);
    let ranges: Vec<_> = snapshot(&place)
        .await
        .history()
        .into_iter()
        .filter_map(|mut past| past.summary.remove("causeway.ranges"))
        .collect();
    assert_eq!(
        ranges,
        ["topic/0:0-10", "topic/1:0-5", "topic/0:10-30,topic/1:5-9,topic/2:0-5"],
        "what was rolled back is no history"
    );
}

async fn a_roll_back_whose_offsets_cannot_be_known_is_refused(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let current = async || snapshot(&place).await.snapshot_id().unwrap();
    land(&table, &[range(0, 0, 1)]).await;
    let first = current().await;
    // A snapshot of another program does not say where the table stood.
    place.pyiceberg("table = catalog.load_table('silver.t')\ntable.append(table.scan().to_arrow().slice(0, 0))");
    let foreign = current().await;
    assert_ne!(first, foreign);
    land(&table, &[range(0, 1, 2)]).await;
    let expired = current().await;
    land(&table, &[range(0, 2, 3)]).await;
    assert_eq!(snapshot(&place).await.plan_roll_back(foreign).unwrap().offsets, before_one());
    let expire = Maintenance::Expire(Expire { snapshots: [expired].into() });
    assert_eq!(committed(maintain(&table, expire).await), 1);
    let from = snapshot(&place).await.snapshot_id();
    let refused = conflict(table.roll_back(foreign, from, Token::random()).await);
    let Conflict::OffsetsUnknown { problem } = refused else { panic!("{refused:?}") };
    assert_eq!(problem, "its snapshot with sequence number 3 has left the metadata");
    assert_eq!(committed(table.roll_back(first, from, Token::random()).await), 1, "it says its offsets itself");
    assert_eq!(offsets(&table).await, [1]);
    place.assert_landed(&[1]);
}

/// The offsets of a table that has landed one message of the first partition.
fn before_one() -> BTreeMap<TopicPartition, NextOffset> {
    [(TopicPartition::new("topic", 0), NextOffset(1))].into()
}
