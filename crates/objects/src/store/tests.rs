use super::*;

fn local() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("file://{}/warehouse", dir.path().display()), None).unwrap();
    (dir, store)
}

#[tokio::test]
async fn what_was_put_is_read_back_and_lies_under_the_warehouse() {
    let (dir, store) = local();
    let location = format!("{}/silver/events/data/ab/ts_day=2026-01-01/f.parquet", store.root());
    store.put(&location, Bytes::from_static(b"rows")).await.unwrap();
    assert_eq!(store.get(&location).await.unwrap(), "rows");
    assert_eq!(store.get_ranges(&location, &[1..3, 0..1]).await.unwrap(), ["ow", "r"]);
    let on_disk = dir.path().join("warehouse/silver/events/data/ab/ts_day=2026-01-01/f.parquet");
    assert_eq!(std::fs::read(on_disk).unwrap(), b"rows");
}

#[test]
fn locations_outside_the_warehouse_are_refused() {
    let (_dir, store) = local();
    let root = store.root().to_owned();
    for location in [
        "file:///etc/passwd",
        "s3://bucket/warehouse/x",
        &format!("{root}/../secret"),
        &format!("{root}/a/../../secret"),
        &format!("{root}-other/x"),
        &root,
        &format!("{root}/"),
        &format!("{root}/a//x"),
        &root.replace("file:///", "file:/"),
        &format!("{}/../secret", root.replace("file:///", "file:/")),
        &format!("{}/x", root.replace("file:///", "file:////")),
        &format!("{}/x", root.replace("file:///", "file://")),
        "",
    ] {
        assert!(store.path(location).is_err(), "{location}");
    }
    assert_eq!(store.path(&format!("{root}/a%2e%2e/b")).unwrap().as_ref(), "a%2e%2e/b", "an escape stays a name");
}

#[tokio::test]
async fn a_file_is_the_same_however_its_url_is_written() {
    let (_dir, store) = local();
    let location = format!("{}/silver/t/f.parquet", store.root());
    store.put(&location, Bytes::from_static(b"rows")).await.unwrap();
    let as_hadoop_writes_it = location.replace("file:///", "file:/");
    assert_eq!(store.path(&as_hadoop_writes_it).unwrap(), store.path(&location).unwrap());
    assert_eq!(store.get(&as_hadoop_writes_it).await.unwrap(), "rows");
    store.delete(&as_hadoop_writes_it).await.unwrap();
    assert!(store.get(&location).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_absent_object_is_told_apart_from_a_broken_store() {
    let (_dir, store) = local();
    let error = store.get(&format!("{}/nothing", store.root())).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn a_relative_warehouse_and_a_bucketless_one_are_refused() {
    for warehouse in ["data/warehouse", "file://relative", "s3://", "gs://bucket"] {
        assert!(matches!(Store::open(warehouse, None), Err(StoreError::Warehouse(_))), "{warehouse}");
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let options = S3Options { secret_access_key: Some("hunter2".into()), ..S3Options::default() };
    assert!(!format!("{options:?}").contains("hunter2"));
}
