//! Rows that are made again take the place of the former ones, over a real catalog and store.

use std::collections::BTreeSet;
use std::sync::Arc;

use event_schema::position::{OffsetRange, TopicPartition};
use lake::commit::{ActionOutcome, Conflict, Maintenance, Remake, Replace, RowCount, StopReason};
use lake::{CommitOutcome, CommitRequest, DataFile, TableHandle, TableSnapshot, Token};

use crate::actions::{committed, conflict, maintain};
use crate::maintained::current;
use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range};

on_both!(
    remade_rows_take_the_place_of_the_former_ones_and_what_others_landed_meanwhile_stays,
    a_remake_whose_inputs_are_gone_or_whose_messages_were_changed_meanwhile_is_a_conflict,
    messages_that_had_left_no_rows_are_remade_once,
    the_version_that_made_rows_follows_appends_remakes_and_roll_backs,
);

async fn snapshot(place: &Place) -> Arc<TableSnapshot> {
    place.lake().await.table("silver", "t").snapshot().await.unwrap()
}

async fn locations(place: &Place) -> BTreeSet<String> {
    snapshot(place).await.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect()
}

async fn rows(table: &TableHandle, ranges: &[OffsetRange]) -> Vec<DataFile> {
    batch(table, ranges).await.files
}

/// A batch that a version of the code made.
async fn land_as(table: &TableHandle, range: OffsetRange, version: u32) {
    let request = CommitRequest { refine_version: Some(version), ..batch(table, &[range]).await };
    let landed = table.commit(request).await;
    assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
}

async fn versions(place: &Place, end: i64) -> Vec<Option<u32>> {
    let refined = snapshot(place).await.refined(&TopicPartition::new("topic", 0));
    (0..end).step_by(10).map(|offset| refined.version(offset)).collect()
}

async fn remade_rows_take_the_place_of_the_former_ones_and_what_others_landed_meanwhile_stays(place: Place) {
    let maintainer = place.lake().await.ensure_table(&def()).await.unwrap();
    let writer = place.lake().await.ensure_table(&def()).await.unwrap();
    // As an older version made them: rows of some messages are missing.
    let mut short = batch(&writer, &[range(0, 0, 20)]).await;
    short.files = rows(&writer, &[range(0, 0, 13)]).await;
    assert!(matches!(writer.commit(short).await, CommitOutcome::Committed(_)));
    let planned = snapshot(&place).await;
    let inputs = locations(&place).await;
    let outputs = rows(&maintainer, &[range(0, 0, 20)]).await;
    land(&writer, &[range(0, 20, 30), range(1, 0, 5)]).await;

    let token = Token::random();
    let remake = Maintenance::Remake(Remake {
        planned_on: planned.sequence_number(),
        inputs,
        outputs,
        ranges: vec![range(0, 0, 20)],
        refine_version: 2,
    });
    assert_eq!(committed(maintainer.maintain(&remake, token).await), 1);
    assert_eq!(committed(maintainer.maintain(&remake, token).await), 0, "it is known by its token");
    let after = snapshot(&place).await;
    assert_eq!((after.total_records(), offsets(&writer).await), (Some(35), vec![30, 5]));
    let last = after.history().pop().unwrap();
    assert_eq!((&*last.operation, last.summary["causeway.remade"].as_str()), ("overwrite", "topic/0:0-20"));
    assert_eq!(last.summary["causeway.offsets"], "topic/0=30,topic/1=5", "the table can go back to it");
    land(&writer, &[range(0, 30, 40)]).await;
    place.assert_landed(&[40, 5]);
}

async fn a_remake_whose_inputs_are_gone_or_whose_messages_were_changed_meanwhile_is_a_conflict(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let first = snapshot(&place).await;
    land(&table, &[range(0, 10, 20)]).await;
    let planned_on = snapshot(&place).await.sequence_number();
    let inputs = locations(&place).await;
    let remake = async |inputs: BTreeSet<String>, planned_on| {
        let outputs = rows(&table, &[range(0, 0, 20)]).await;
        Maintenance::Remake(Remake { planned_on, inputs, outputs, ranges: vec![range(0, 0, 20)], refine_version: 1 })
    };
    let outputs = rows(&table, &[range(0, 0, 20)]).await;
    let compaction = Replace { inputs: inputs.clone(), outputs, rows: RowCount::Kept };
    assert_eq!(committed(maintain(&table, Maintenance::Replace(compaction)).await), 1);
    let gone = conflict(maintain(&table, remake(inputs.clone(), planned_on).await).await);
    assert!(matches!(&gone, Conflict::FileGone { path } if inputs.contains(path)), "{gone:?}");
    // A rewrite keeps every row: the plan of before it holds, with the files of now.
    assert_eq!(committed(maintain(&table, remake(locations(&place).await, planned_on).await).await), 1);

    let planned_on = snapshot(&place).await.sequence_number();
    let back = table.roll_back(first.snapshot_id().unwrap(), current(&table).await, Token::random()).await;
    assert_eq!(committed(back), 1);
    land(&table, &[range(0, 10, 20)]).await;
    let changed = conflict(maintain(&table, remake(locations(&place).await, planned_on).await).await);
    assert_eq!(changed, Conflict::Rewritten { sequence: planned_on + 1 });
    place.assert_landed(&[20]);
    let empty = remake(BTreeSet::new(), planned_on + 2).await;
    let Maintenance::Remake(empty) = empty else { panic!("a remake") };
    let stopped = maintain(&table, Maintenance::Remake(Remake { outputs: Vec::new(), ..empty })).await;
    assert!(matches!(stopped, ActionOutcome::Stop(StopReason::Request(_))), "{stopped:?}");
}

async fn messages_that_had_left_no_rows_are_remade_once(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let nothing = CommitRequest { files: Vec::new(), ..batch(&table, &[range(0, 0, 10)]).await };
    assert!(matches!(table.commit(nothing).await, CommitOutcome::Committed(_)));
    let planned_on = snapshot(&place).await.sequence_number();
    // Two at once: neither has an input whose absence would show the other.
    for expected in [Ok(1), Err(Conflict::Rewritten { sequence: planned_on + 1 })] {
        let outputs = rows(&table, &[range(0, 0, 10)]).await;
        let remake =
            Remake { planned_on, inputs: BTreeSet::new(), outputs, ranges: vec![range(0, 0, 10)], refine_version: 1 };
        match expected {
            Ok(swaps) => assert_eq!(committed(maintain(&table, Maintenance::Remake(remake)).await), swaps),
            Err(refused) => assert_eq!(conflict(maintain(&table, Maintenance::Remake(remake)).await), refused),
        }
    }
    place.assert_landed(&[10]);
}

async fn the_version_that_made_rows_follows_appends_remakes_and_roll_backs(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land_as(&table, range(0, 10, 20), 1).await;
    land_as(&table, range(0, 20, 30), 1).await;
    assert_eq!(versions(&place, 30).await, [None, Some(1), Some(1)]);
    let properties = snapshot(&place).await.properties().clone();
    assert_eq!(properties["causeway.refined.topic/0"], "10:1", "a version that stays is written once");
    let before = snapshot(&place).await;

    let remake = Remake {
        planned_on: before.sequence_number(),
        inputs: locations(&place).await,
        outputs: rows(&table, &[range(0, 0, 30)]).await,
        ranges: vec![range(0, 0, 20)],
        refine_version: 2,
    };
    assert_eq!(committed(maintain(&table, Maintenance::Remake(remake)).await), 1);
    assert_eq!(versions(&place, 30).await, [Some(2), Some(2), Some(1)]);
    land_as(&table, range(0, 30, 40), 2).await;
    assert_eq!(versions(&place, 40).await, [Some(2), Some(2), Some(1), Some(2)]);

    assert_eq!(
        committed(table.roll_back(before.snapshot_id().unwrap(), current(&table).await, Token::random()).await),
        1
    );
    assert_eq!(versions(&place, 30).await, [None, None, Some(1)], "which version made them before is not kept");
    land_as(&table, range(0, 30, 40), 1).await;
    assert_eq!(versions(&place, 40).await, [None, None, Some(1), Some(1)]);
    place.assert_landed(&[40]);
}
