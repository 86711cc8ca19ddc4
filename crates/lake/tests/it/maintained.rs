//! What PyIceberg's maintenance and its writes do to a table of ours while its writer goes on.

use event_schema::position::OffsetRange;
use lake::commit::{ActionOutcome, CommitOutcome, Conflict, Maintenance, Replace, RowCount, StopReason};
use lake::{TableHandle, Token};

use crate::attachments::{attach, attached, nexts};
use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range, read, recorded, rows_of};

on_both!(
    snapshots_that_pyiceberg_expires_leave_rows_offsets_and_later_attachments,
    a_snapshot_that_a_tag_keeps_is_read_and_ends_what_an_auditor_can_follow,
    files_that_pyiceberg_wrote_are_read_appended_to_and_rewritten,
    rows_that_pyiceberg_appended_are_read_and_move_no_offset,
    a_roll_back_of_pyiceberg_is_brought_to_an_end_by_one_of_ours,
    a_branch_of_pyiceberg_is_left_alone_and_is_no_place_to_go_back_to,
);

async fn ids(table: &TableHandle) -> Vec<i64> {
    table.reader().snapshot().await.unwrap().history().iter().map(|past| past.snapshot_id).collect()
}

/// Of each snapshot of the history, whether it follows the one before it.
async fn follows(table: &TableHandle) -> Vec<bool> {
    table.reader().snapshot().await.unwrap().history().iter().map(|past| past.follows).collect()
}

pub(crate) async fn current(table: &TableHandle) -> Option<i64> {
    table.reader().snapshot().await.unwrap().snapshot_id()
}

/// The table has the rows of these ranges.
async fn assert_rows(place: &Place, ranges: &[OffsetRange], after: &str) {
    assert_eq!(read(place).await.unwrap(), rows_of(ranges), "after {after}");
}

async fn snapshots_that_pyiceberg_expires_leave_rows_offsets_and_later_attachments(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    for start in 0..3 {
        attach(&table, start).await;
    }
    land(&table, &[range(1, 0, 10)]).await;
    let before = recorded(&place).await;
    let newest = attached(&place).await;
    assert_eq!(nexts(&newest), [3, 2]);
    let second = ids(&table).await[1];
    place.pyiceberg(&format!("catalog.load_table('silver.t').maintenance.expire_snapshots().by_id({second}).commit()"));
    assert_eq!(recorded(&place).await, before, "offsets and tokens");
    assert_eq!(attached(&place).await, newest[..1], "PyIceberg takes the entry of the expired snapshot out");
    assert_rows(&place, &[range(0, 0, 3), range(1, 0, 10)], "the expiry of one").await;
    assert_eq!(follows(&table).await, [true, false, true]);
    attach(&table, 3).await;

    place.pyiceberg(
        "from datetime import datetime, timedelta\n\
         later = datetime.now() + timedelta(days=1)\n\
         catalog.load_table('silver.t').maintenance.expire_snapshots().older_than(later).commit()",
    );
    assert_eq!(ids(&table).await.len(), 1);
    assert_eq!(nexts(&attached(&place).await), [4], "that of the current snapshot");
    attach(&table, 4).await;
    assert_eq!(nexts(&attached(&place).await), [5, 4]);
    place.assert_landed(&[5, 10]);
}

async fn a_snapshot_that_a_tag_keeps_is_read_and_ends_what_an_auditor_can_follow(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    for start in 0..3 {
        land(&table, &[range(0, start, start + 1)]).await;
    }
    let tagged = ids(&table).await[0];
    place.pyiceberg(&format!(
        "from datetime import datetime, timedelta\n\
         with catalog.load_table('silver.t').manage_snapshots() as change:\n    \
             change.create_tag({tagged}, 'release')\n\
         later = datetime.now() + timedelta(days=1)\n\
         catalog.load_table('silver.t').maintenance.expire_snapshots().older_than(later).commit()"
    ));
    land(&table, &[range(0, 3, 4)]).await;
    assert_eq!(follows(&table).await, [true, false, true]);
    let kept = table.reader().snapshot_by_id(tagged).await.unwrap();
    assert_eq!(kept.total_records(), Some(1));
    assert_eq!(kept.plan(&[]).await.unwrap().len(), 1);
    place.assert_landed(&[4]);
}

async fn files_that_pyiceberg_wrote_are_read_appended_to_and_rewritten(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    attach(&table, 10).await;
    let newest = attached(&place).await;
    let mut next = 11;
    for change in [
        "table.overwrite(table.scan().to_arrow())",
        "rows = table.scan().to_arrow()\n\
         late = pa.array([row + 10**6 for row in rows['ts'].cast(pa.int64()).to_pylist()])\n\
         rows = rows.set_column(2, rows.schema.field('ts'), late.cast(rows.schema.field('ts').type))\n\
         done = table.upsert(rows, join_cols=['part', 'seq'])\n\
         assert done.rows_updated == rows.num_rows and done.rows_inserted == 0, done",
    ] {
        let before = (recorded(&place).await, attached(&place).await);
        place.pyiceberg(&format!("table = catalog.load_table('silver.t')\n{change}"));
        assert_eq!((recorded(&place).await, attached(&place).await), before, "{change}");
        assert_rows(&place, &[range(0, 0, next)], change).await;
        assert_eq!(land(&table, &[range(0, next, next + 1)]).await, 1);
        next += 1;
        assert_eq!(offsets(&table).await, [next]);
        assert_rows(&place, &[range(0, 0, next)], "the next commit").await;
    }
    assert_eq!(attached(&place).await, newest);
    place.assert_landed(&[next]);

    let snapshot = table.reader().snapshot().await.unwrap();
    let inputs = snapshot.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect();
    let outputs = batch(&table, &[range(0, 0, next)]).await.files;
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept });
    let outcome = table.maintain(&replace, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    place.pyiceberg("catalog.load_table('silver.t').delete('part == 0 and seq == 4')");
    assert_eq!(read(&place).await.unwrap(), rows_of(&[range(0, 0, 4), range(0, 5, next)]), "a file written again");
    assert_eq!(offsets(&table).await, [next]);
}

async fn rows_that_pyiceberg_appended_are_read_and_move_no_offset(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    place.pyiceberg(
        "table = catalog.load_table('silver.t')\n\
         rows = table.scan().to_arrow()\n\
         part = pa.array([7] * rows.num_rows, pa.int32())\n\
         table.append(rows.set_column(0, rows.schema.field('part'), part))",
    );
    assert_eq!(offsets(&table).await, [10]);
    assert_rows(&place, &[range(0, 0, 10), range(7, 0, 10)], "an append").await;
    land(&table, &[range(0, 10, 20)]).await;
    assert_rows(&place, &[range(0, 0, 20), range(7, 0, 10)], "the next commit").await;
}

async fn a_roll_back_of_pyiceberg_is_brought_to_an_end_by_one_of_ours(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let target = ids(&table).await[0];
    attach(&table, 10).await;
    place.pyiceberg(&format!(
        "with catalog.load_table('silver.t').manage_snapshots() as change:\n    \
             change.rollback_to_snapshot({target})"
    ));
    assert_rows(&place, &[range(0, 0, 10)], "PyIceberg's roll back").await;
    assert_eq!(offsets(&table).await, [11], "the message that was taken out would not be read again");
    // The writer that runs goes on behind it, which is taken back too.
    land(&table, &[range(0, 11, 12)]).await;
    let outcome = table.roll_back(target, current(&table).await, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    assert_eq!((offsets(&table).await, nexts(&attached(&place).await)), (vec![10], vec![]));
    let running = table.commit(batch(&table, &[range(0, 12, 13)]).await).await;
    assert!(matches!(running, CommitOutcome::Stop(StopReason::Gap { expected: 10, .. })), "{running:?}");
    land(&table, &[range(0, 10, 13)]).await;
    place.assert_landed(&[13]);
}

async fn a_branch_of_pyiceberg_is_left_alone_and_is_no_place_to_go_back_to(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let first = ids(&table).await[0];
    place.pyiceberg(&format!(
        "table = catalog.load_table('silver.t')\n\
         with table.manage_snapshots() as change:\n    \
             change.create_branch({first}, 'other')\n\
         table = catalog.load_table('silver.t')\n\
         table.append(table.scan().to_arrow(), branch='other')"
    ));
    let on_branch = ids(&table).await[1];
    assert_rows(&place, &[range(0, 0, 10)], "an append to another branch").await;
    land(&table, &[range(0, 10, 20)]).await;
    let refused = table.roll_back(on_branch, current(&table).await, Token::random()).await;
    let ActionOutcome::Conflict(conflict) = refused else { panic!("{refused:?}") };
    assert_eq!(conflict, Conflict::NotInHistory { snapshot: on_branch });
    let outcome = table.roll_back(first, current(&table).await, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    assert_eq!(offsets(&table).await, [10]);
    place.pyiceberg(
        "table = catalog.load_table('silver.t')\n\
         assert table.scan().use_ref('other').to_arrow().num_rows == 20, table.refs()",
    );
    place.assert_landed(&[10]);
}
