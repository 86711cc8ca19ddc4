//! Files that S3 has archived: a query says before it runs what is archived, and reads copies once they are there.

use lake::{Lake, LakeOptions};
use object_store::{Attribute, ObjectStore, ObjectStoreExt, PutOptions};
use objects::tiers::{Speed, Tiers};
use objects::{RestoreOrder, S3Options};
use query_engine::{Engine, Limits, Query, QueryError};
use tempfile::TempDir;

use crate::fixture::{Fixture, event};
use crate::s3::S3;

/// The lake of a directory and a bucket, with the rule that files move after so many days.
async fn lake(dir: &TempDir, s3: &S3, archive_after_days: u32) -> Lake {
    let tiers = Tiers { archive_after_days, ..Tiers::default() };
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.path().display()),
        warehouse: format!("s3://{}/warehouse", s3.bucket()),
        s3: Some(S3Options { tiers, ..s3.options() }),
    };
    Lake::open(options).await.unwrap()
}

/// The files of `silver.events`.
async fn files(lake: &Lake) -> Vec<String> {
    let snapshot = lake.table("silver", "events").snapshot().await.unwrap();
    snapshot.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect()
}

/// Moves an object to Deep Archive, as a rule of the bucket does.
async fn archive(lake: &Lake, location: &str) {
    let objects = lake.store().objects();
    let path = lake.store().path(location).unwrap();
    let content = objects.get(&path).await.unwrap().bytes().await.unwrap();
    let mut options = PutOptions::default();
    options.attributes.insert(Attribute::StorageClass, "DEEP_ARCHIVE".into());
    objects.put_opts(&path, content.into(), options).await.unwrap();
}

async fn rows(lake: &Lake, sql: &str) -> Result<usize, QueryError> {
    let engine = Engine::new(lake.clone(), Limits::default()).unwrap();
    let batches = engine.query(Query::parse(sql)?).await?.collect().await?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_archived_files_names_them_and_the_command_and_is_answered_once_they_are_restored() {
    let s3 = S3::up();
    let dir = TempDir::new().unwrap();
    let ruled = lake(&dir, &s3, 0).await;
    let mut fixture = Fixture::over(dir, ruled.clone());
    fixture.land_events("gpu-node-01", &[event(3, 1, 1_000, 0), event(3, 1, 3_000, 1)]).await;
    let sql = "SELECT op FROM silver.events";
    assert_eq!(rows(&ruled, sql).await.unwrap(), 2);
    let files = files(&ruled).await;
    for location in &files {
        archive(&ruled, location).await;
    }
    let command = "`causeway restore silver.events --from 2026-03-01 --to 2026-03-01`";
    // With the rule of 365 days nothing is asked for before the read, which fails by itself.
    let unruled = lake(&fixture.dir, &s3, 365).await;
    for (lake, beginning) in [(&ruled, "1 of the files lie in Glacier Deep Archive"), (&unruled, "data file `")] {
        let refused = rows(lake, sql).await.unwrap_err();
        let QueryError::Archived { message } = &refused else { panic!("{refused:?}") };
        assert!(message.starts_with(beginning) && message.ends_with(command), "{message}");
    }
    assert_eq!(rows(&ruled, "SELECT count(*) FROM silver.events").await.unwrap(), 1, "statistics read no file");
    for location in &files {
        ruled.store().restore(location, RestoreOrder { days: 1, speed: Speed::Bulk }).await.unwrap();
    }
    assert_eq!(rows(&ruled, sql).await.unwrap(), 2);
}
