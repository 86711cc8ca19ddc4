//! What other programs did to the lake.

use std::time::Duration;

use arrow::array::{Array, Int64Array};
use futures::TryStreamExt;
use lake::commit::{CommitError, StopReason};
use lake::{CommitOutcome, EnsureError, ReadError};
use object_store::ObjectStoreExt;

use crate::place::Place;
use crate::rows::{batch, def, land, offsets, range, report};

on_both!(
    a_table_of_another_schema_is_refused_column_by_column,
    offsets_that_another_program_removed_stop_the_writer,
    a_metadata_file_that_is_gone_is_named,
    damaged_metadata_is_named_and_left_alone,
    metadata_outside_the_warehouse_is_not_read,
    columns_are_read_by_id_through_rename_and_addition,
    a_damaged_data_file_is_named,
    a_table_altered_under_its_writer_stops_it_unless_the_files_still_fit,
    rows_another_program_deleted_stay_away_and_the_offsets_go_on,
);

async fn a_table_of_another_schema_is_refused_column_by_column(place: Place) {
    place.pyiceberg(
        "catalog.create_namespace('silver')\n\
         columns = [pa.field('seq', pa.string()), pa.field('ts', pa.timestamp('us', 'UTC'))]\n\
         catalog.create_table('silver.t', schema=pa.schema(columns))",
    );
    let refused = place.lake().await.ensure_table(&def()).await.unwrap_err();
    assert!(matches!(refused, EnsureError::Mismatch(_)), "{refused:?}");
    let report = report(&refused);
    for part in [
        "table silver.t was made with another schema: part: expected required int with id 1, found seq optional string \
         with id 1 (move the table out of the way, another program made it)",
        "seq: expected required long with id 2, found optional string with id 1 (move the table out of the way",
        "ts: expected required timestamptz with id 3, found optional timestamptz with id 2 (move the table out of the way",
        "partition: expected day(field 3), found unpartitioned",
    ] {
        assert!(report.contains(part), "{part:?} in {report}");
    }
}

async fn offsets_that_another_program_removed_stop_the_writer(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10), range(1, 0, 10)]).await;
    place.pyiceberg(
        "with catalog.load_table('silver.t').transaction() as change:\n    \
             change.remove_properties('causeway.offset.topic/1')",
    );
    let outcome = table.commit(batch(&table, &[range(0, 10, 20), range(1, 10, 20)]).await).await;
    assert!(matches!(outcome, CommitOutcome::Stop(StopReason::OffsetsMissing)), "{outcome:?}");
    place.assert_landed(&[10, 10]);
}

async fn rows_another_program_deleted_stay_away_and_the_offsets_go_on(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land(&table, &[range(1, 0, 10)]).await;
    place.pyiceberg("catalog.load_table('silver.t').delete('part == 1')");
    // Enough commits for the manifest that lists the deleted file to be merged into another.
    for i in 1..20 {
        land(&table, &[range(0, 10 * i, 10 * (i + 1))]).await;
    }
    assert_eq!(offsets(&table).await, [200, 10]);
    place.assert_landed(&[200]);
}

async fn a_metadata_file_that_is_gone_is_named(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    place.sql("UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '/00001-', '/00009-')").await;

    let error = place.lake().await.table("silver", "t").snapshot().await.unwrap_err();
    assert!(report(&error).contains("/silver/t/metadata/00009-"), "{}", report(&error));
    let refused = place.lake().await.ensure_table(&def()).await.unwrap_err();
    assert!(report(&refused).contains("/silver/t/metadata/00009-"), "{}", report(&refused));
    // A writer that is running does not wait for it.
    let writer = place.impatient_lake(Duration::from_millis(300)).await;
    place.sql("UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '/00009-', '/00001-')").await;
    let table = writer.ensure_table(&def()).await.unwrap();
    let request = batch(&table, &[range(0, 10, 20)]).await;
    place.sql("UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '/00001-', '/00009-')").await;
    let outcome = table.commit(request).await;
    let CommitOutcome::Unreachable(error @ CommitError::Head(_)) = outcome else { panic!("{outcome:?}") };
    assert!(report(&error).contains("/silver/t/metadata/00009-"), "{}", report(&error));
}

async fn damaged_metadata_is_named_and_left_alone(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let location = table.reader().snapshot().await.unwrap().metadata_location().to_owned();
    let damaged = "{\"format-version\": 2, \"tab";
    lake.store().put(&location, damaged.into()).await.unwrap();
    let error = place.lake().await.table("silver", "t").snapshot().await.unwrap_err();
    assert!(report(&error).starts_with(&format!("{location} is damaged: the checksum of its ")), "{}", report(&error));
    let refused = place.lake().await.ensure_table(&def()).await.unwrap_err();
    assert!(report(&refused).starts_with(&format!("{location} is damaged: ")), "{}", report(&refused));
    let path = lake.store().path(&location).unwrap();
    let size = lake.store().objects().head(&path).await.unwrap().size;
    assert_eq!(size, damaged.len() as u64, "nothing wrote it again");
}

async fn metadata_outside_the_warehouse_is_not_read(place: Place) {
    let lake = place.lake().await;
    lake.ensure_table(&def()).await.unwrap();
    for outside in ["file:///etc/passwd", "s3://other/silver/t/metadata/00000-a.metadata.json"] {
        place.sql(&format!("UPDATE iceberg_tables SET metadata_location = '{outside}'")).await;
        let error = place.lake().await.table("silver", "t").snapshot().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("{outside} lies outside the warehouse")), "{error}");
    }
}

async fn columns_are_read_by_id_through_rename_and_addition(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 3)]).await;
    place.pyiceberg(
        "from pyiceberg.types import StringType\n\
         with catalog.load_table('silver.t').update_schema() as change:\n    \
             change.rename_column('seq', 'sequence').add_column('note', StringType())",
    );
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let read = snapshot.scan_batches(&["note", "sequence"], &[]).await.unwrap();
    let batches: Vec<_> = read.try_collect().await.unwrap();
    assert_eq!(batches[0].column(0).null_count(), 3);
    assert_eq!(**batches[0].column(1), Int64Array::from(vec![0, 1, 2]));
    let refused = place.lake().await.ensure_table(&def()).await.unwrap_err();
    let expected = "seq: expected required long with id 2, found sequence required long with id 2 (rename it back)";
    assert!(report(&refused).contains(expected), "{}", report(&refused));
}

async fn a_damaged_data_file_is_named(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 1_000)]).await;
    let snapshot = table.reader().snapshot().await.unwrap();
    let location = snapshot.plan(&[]).await.unwrap()[0].location.clone();
    let whole = lake.store().get(&location).await.unwrap();
    let middle = whole.len() / 2;
    let damages = [
        ("cut in the middle", whole.slice(..middle)),
        ("empty", whole.slice(..0)),
        ("zeros", vec![0; whole.len()].into()),
        ("noise for data", [&vec![0xa5; middle], &whole[middle..]].concat().into()),
    ];
    for (damage, bytes) in damages {
        lake.store().put(&location, bytes).await.unwrap();
        let rows = snapshot.scan_batches(&[], &[]).await.unwrap().try_collect::<Vec<_>>().await;
        let error = rows.expect_err(damage);
        println!("{damage}: {}", report(&error));
        assert!(report(&error).contains(&location), "{damage}: {}", report(&error));
        assert!(matches!(error, ReadError::CorruptFile { .. }), "{damage}: {error:?}");
    }
}

async fn a_table_altered_under_its_writer_stops_it_unless_the_files_still_fit(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    let schema = |change: &str| {
        let open =
            "from pyiceberg.types import StringType\nwith catalog.load_table('silver.t').update_schema() as change:";
        place.pyiceberg(&format!("{open}\n    change.{change}"));
    };
    schema("add_column('note', StringType())");
    land(&table, &[range(0, 10, 20)]).await;
    let refused = async |next: i64, report: &str| {
        let outcome = table.commit(batch(&table, &[range(0, next, next + 10)]).await).await;
        let CommitOutcome::Stop(StopReason::Altered(problem)) = outcome else { panic!("{outcome:?}") };
        assert!(problem.contains(report), "{problem}");
    };
    schema("rename_column('seq', 'sequence')");
    refused(20, "expected required long with id 2, found sequence required long with id 2 (rename it back)").await;
    schema("rename_column('sequence', 'seq')");
    land(&table, &[range(0, 20, 30)]).await;
    place.pyiceberg(
        "from pyiceberg.transforms import BucketTransform\n\
         with catalog.load_table('silver.t').update_spec() as change:\n    \
             change.add_field('seq', BucketTransform(4), 'bucket')",
    );
    refused(30, "partition: expected day(field 3), found day(field 3), bucket[4](field 2)").await;
    place.assert_landed(&[30]);
}
