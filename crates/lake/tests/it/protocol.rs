//! What a table does with a batch, by what landed before.

use event_schema::position::{NextOffset, TopicPartition};
use futures::TryStreamExt;
use futures::future::join_all;
use lake::commit::{StopReason, parse_ranges};
use lake::{ColumnRange, CommitOutcome, CommitRequest, TableHandle, TableIdent, Token, Value};

use crate::place::Place;
use crate::rows::{NEW_YEAR, batch, def, land, offsets, range, row, swaps};

on_both!(
    a_table_made_by_four_at_once_is_one_table,
    one_request_lands_once_however_often_it_is_committed,
    a_batch_is_trimmed_dropped_or_fenced_by_what_landed_before,
    offsets_move_without_rows,
    a_gap_lands_only_when_it_is_explained,
    a_plan_leaves_out_days_and_files_that_cannot_match,
    a_snapshot_stays_what_it_was,
    a_replaced_table_stops_its_writers,
    a_table_restored_from_a_backup_stops_the_writer_that_saw_it_later,
);

const DAY: i64 = 86_400_000_000;

impl Place {
    /// A writer that looks like one of its own process.
    async fn writer(&self) -> TableHandle {
        self.lake().await.ensure_table(&def()).await.unwrap()
    }

    /// How many rows somebody reads who has nothing in memory.
    async fn count_rows(&self) -> usize {
        let snapshot = self.lake().await.table("silver", "t").snapshot().await.unwrap();
        let rows: Vec<_> = snapshot.scan_batches(&["seq"], &[]).await.unwrap().try_collect().await.unwrap();
        rows.iter().map(|batch| batch.num_rows()).sum()
    }
}

async fn a_table_made_by_four_at_once_is_one_table(place: Place) {
    let lakes = join_all((0..4).map(|_| place.lake())).await;
    let def = def();
    let made = join_all(lakes.iter().map(|lake| lake.ensure_table(&def))).await;
    for (i, table) in (0..).zip(made) {
        land(&table.unwrap(), &[range(0, i, i + 1)]).await;
    }
    assert_eq!(lakes[0].list().await.unwrap(), [TableIdent::new("silver", "t")]);
    assert_eq!(place.count_rows().await, 4);
    let absent = lakes[0].table("silver", "nothing").snapshot().await.unwrap_err();
    assert_eq!(absent.to_string(), "table silver.nothing does not exist");
}

async fn one_request_lands_once_however_often_it_is_committed(place: Place) {
    let table = place.writer().await;
    let request = batch(&table, &[range(0, 0, 2)]).await;
    assert_eq!(swaps(table.commit(request.clone()).await), 1);
    assert_eq!(swaps(table.commit(request.clone()).await), 0);
    assert_eq!(swaps(place.writer().await.commit(request.clone()).await), 0);
    assert_eq!(place.count_rows().await, 2);

    let same_files = CommitRequest::new(vec![range(0, 2, 4)], Token::random(), request.files);
    let refused = table.commit(same_files).await;
    assert!(matches!(refused, CommitOutcome::Stop(StopReason::Request(_))), "{refused:?}");
}

async fn a_batch_is_trimmed_dropped_or_fenced_by_what_landed_before(place: Place) {
    let (old, new) = (place.writer().await, place.writer().await);
    land(&old, &[range(0, 0, 4), range(1, 0, 2)]).await;

    let prefix_landed = new.commit(batch(&new, &[range(0, 2, 6), range(1, 2, 3)]).await).await;
    let CommitOutcome::Trim(keep) = prefix_landed else { panic!("{prefix_landed:?}") };
    assert_eq!(keep, [range(0, 4, 6), range(1, 2, 3)]);
    land(&new, &keep).await;

    let replay = old.commit(batch(&old, &[range(0, 0, 4)]).await).await;
    assert!(matches!(replay, CommitOutcome::Drop), "{replay:?}");
    let overtaken = old.commit(batch(&old, &[range(0, 4, 5), range(1, 2, 3)]).await).await;
    assert!(matches!(overtaken, CommitOutcome::Drop), "the old owner is fenced: {overtaken:?}");
    land(&old, &[range(2, 0, 1)]).await;
    assert_eq!(offsets(&new).await, [6, 3, 1]);
    place.assert_landed(&[6, 3, 1]);
}

async fn offsets_move_without_rows(place: Place) {
    let table = place.writer().await;
    let mut empty = CommitRequest::new(vec![range(0, 0, 2)], Token::random(), vec![]);
    empty.properties.insert("causeway.log.t/0".to_owned(), "7".to_owned());
    assert_eq!(swaps(table.commit(empty).await), 1);
    assert_eq!((offsets(&table).await, place.count_rows().await), (vec![2], 0));
    land(&table, &[range(0, 2, 3)]).await;
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    assert_eq!(snapshot.properties()["causeway.log.t/0"], "7");
    assert_eq!((snapshot.total_records(), place.count_rows().await), (Some(1), 1));
}

async fn a_gap_lands_only_when_it_is_explained(place: Place) {
    let table = place.writer().await;
    land(&table, &[range(0, 0, 2)]).await;
    let mut behind = batch(&table, &[range(0, 5, 6)]).await;
    let stopped = table.commit(behind.clone()).await;
    let gap = StopReason::Gap { at: TopicPartition::new("topic", 0), expected: 2, start: 5 };
    assert!(matches!(&stopped, CommitOutcome::Stop(reason) if *reason == gap), "{stopped:?}");
    behind.gaps.push(range(0, 2, 5));
    assert_eq!(swaps(table.commit(behind).await), 1);
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    assert_eq!(snapshot.gaps(), [range(0, 2, 5)]);
    assert_eq!(parse_ranges(&snapshot.summary()["causeway.ranges"]), Some(vec![range(0, 5, 6)]));
    let next = (TopicPartition::new("topic", 0), NextOffset(6));
    assert_eq!(snapshot.offsets().into_iter().collect::<Vec<_>>(), [next]);
    assert_eq!(place.count_rows().await, 3);
}

async fn a_plan_leaves_out_days_and_files_that_cannot_match(place: Place) {
    let table = place.writer().await;
    for (seq, (part, day)) in (0..).zip([(1, 0), (2, 0), (1, 1), (3, 2)]) {
        let rows = [row(part, seq, NEW_YEAR + day * DAY), row(part, seq, NEW_YEAR + day * DAY + 9)];
        let files = table.write(&rows).await.unwrap();
        assert_eq!(
            swaps(table.commit(CommitRequest::new(vec![range(0, seq, seq + 1)], Token::random(), files)).await),
            1
        );
    }
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let plan = async |filters: &[ColumnRange]| {
        let files = snapshot.plan(filters).await.unwrap();
        let mut seqs: Vec<_> = files.iter().map(|file| file.column(2).unwrap().lower.clone()).collect();
        seqs.sort_by_key(|seq| if let Some(Value::Long(seq)) = seq { *seq } else { -1 });
        seqs
    };
    let files = |seqs: &[i64]| seqs.iter().map(|seq| Some(Value::Long(*seq))).collect::<Vec<_>>();
    let time = |from: i64, to: i64| {
        ColumnRange::between("ts", Some(Value::Timestamptz(NEW_YEAR + from)), Some(Value::Timestamptz(NEW_YEAR + to)))
    };
    let part = ColumnRange::equals("part", Value::Int(1));
    assert_eq!(plan(&[]).await, files(&[0, 1, 2, 3]));
    assert_eq!(plan(&[time(0, DAY - 1)]).await, files(&[0, 1]));
    assert_eq!(plan(&[time(10, DAY)]).await, files(&[2]), "by the bounds within a day");
    assert_eq!(plan(&[time(-DAY, -1)]).await, files(&[]));
    assert_eq!(plan(std::slice::from_ref(&part)).await, files(&[0, 2]));
    assert_eq!(plan(&[part, time(DAY, 3 * DAY)]).await, files(&[2]));
    let error = snapshot.plan(&[ColumnRange::equals("prat", Value::Int(1))]).await.unwrap_err();
    assert_eq!(error.to_string(), "table silver.t has no column prat");
}

async fn a_snapshot_stays_what_it_was(place: Place) {
    let table = place.writer().await;
    let reader = place.lake().await.table("silver", "t");
    let empty = reader.snapshot().await.unwrap();
    assert_eq!((empty.snapshot_id(), empty.plan(&[]).await.unwrap().len()), (None, 0));
    land(&table, &[range(0, 0, 1)]).await;
    let pinned = reader.snapshot().await.unwrap();
    land(&table, &[range(0, 1, 2)]).await;
    let newest = reader.snapshot().await.unwrap();
    assert_eq!((pinned.plan(&[]).await.unwrap().len(), newest.plan(&[]).await.unwrap().len()), (1, 2));

    let by_id = reader.snapshot_by_id(pinned.snapshot_id().unwrap()).await.unwrap();
    assert_eq!(by_id.plan(&[]).await.unwrap(), pinned.plan(&[]).await.unwrap());
    let by_time = reader.snapshot_as_of(pinned.timestamp_ms().unwrap()).await.unwrap();
    // Both may have been made in one millisecond.
    assert!([pinned.snapshot_id(), newest.snapshot_id()].contains(&by_time.snapshot_id()));
    assert!(reader.snapshot_by_id(1).await.is_err());
    assert!(reader.snapshot_as_of(0).await.is_err());
    let history: Vec<_> = newest.history().iter().map(|past| Some(past.snapshot_id)).collect();
    assert_eq!(history, [pinned.snapshot_id(), newest.snapshot_id()]);
}

async fn a_replaced_table_stops_its_writers(place: Place) {
    let old = place.writer().await;
    land(&old, &[range(0, 0, 1)]).await;
    place.sql("DELETE FROM iceberg_tables").await;
    let gone = old.commit(batch(&old, &[range(0, 1, 2)]).await).await;
    assert!(matches!(gone, CommitOutcome::Stop(StopReason::TableDropped)), "{gone:?}");
    let new = place.writer().await;
    let replaced = old.commit(batch(&old, &[range(0, 1, 2)]).await).await;
    assert!(matches!(replaced, CommitOutcome::Stop(StopReason::TableReplaced { .. })), "{replaced:?}");
    land(&new, &[range(0, 0, 1)]).await;
    assert_eq!(place.count_rows().await, 1);
}

async fn a_table_restored_from_a_backup_stops_the_writer_that_saw_it_later(place: Place) {
    let table = place.writer().await;
    land(&table, &[range(0, 0, 1)]).await;
    land(&table, &[range(0, 1, 2)]).await;
    place.sql("UPDATE iceberg_tables SET metadata_location = previous_metadata_location").await;
    let stopped = table.commit(batch(&table, &[range(0, 2, 3)]).await).await;
    assert!(matches!(stopped, CommitOutcome::Stop(StopReason::WentBack { seen: 2, found: 1 })), "{stopped:?}");
    // A restart lands again what the restore lost.
    land(&place.writer().await, &[range(0, 1, 3)]).await;
    place.assert_landed(&[3]);
}
