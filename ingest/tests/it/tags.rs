//! In S3, the files that a commit names are tagged, so that a rule of the bucket may move them.

use tables::registry;

use super::s3::S3;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_commit_names_are_tagged_where_their_table_tiers_and_no_others() {
    let s3 = S3::up();
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 20)]);
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", place.dir.path().display()),
        warehouse: format!("s3://{}/warehouse", s3.bucket()),
        s3: Some(s3.options()),
    };
    let lake = Lake::open(options).await.unwrap();
    let once = Options { until: Until::CaughtUp, commit_interval: Duration::from_millis(20), ..Options::default() };
    let readiness = Readiness::new();
    let ingest = Ingest::open(parts(&lake, &readiness), once).await.unwrap();
    ingest.run(Box::new(LogSource::new(place.spool(), topics::READ)), Drain::new()).await.unwrap();
    let mut with_files = Vec::new();
    for table in registry::all() {
        let name = table.def.name;
        let snapshot = lake.table(name.namespace, name.name).snapshot().await.unwrap();
        for file in snapshot.plan(&[]).await.unwrap() {
            let tags = lake.store().tags(&file.location).await.unwrap();
            let expected = table.def.tiers.then_some("complete");
            assert_eq!(tags.get("processing_status"), expected, "{name} {}", file.location);
            with_files.push(name.to_string());
        }
    }
    for name in ["bronze.messages", "silver.events", "ops.ledger"] {
        assert!(with_files.iter().any(|found| found == name), "{name} in {with_files:?}");
    }
}
