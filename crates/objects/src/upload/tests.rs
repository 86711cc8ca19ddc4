use futures::TryStreamExt;

use super::*;
use crate::list::ObjectInfo;

fn local() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
    (dir, store)
}

fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

async fn listed(store: &Store) -> Vec<ObjectInfo> {
    store.list(store.root()).unwrap().try_collect().await.unwrap()
}

#[tokio::test]
async fn what_is_written_in_pieces_of_any_size_is_one_object() {
    let (_dir, store) = local();
    for (number, pieces) in [vec![], vec![1], vec![PART_BYTES], vec![PART_BYTES - 1, 3], vec![5 * PART_BYTES + 1, 0, 7]]
        .into_iter()
        .enumerate()
    {
        let location = format!("{}/data/{number}", store.root());
        let mut rest = content(pieces.iter().sum());
        let all = rest.clone();
        let mut upload = store.upload(&location, &Tags::default()).await.unwrap();
        for piece in pieces {
            upload = upload.write(rest.split_to(piece)).await.unwrap();
            assert!(upload.buffered_bytes < PART_BYTES && upload.sent.len() <= PARTS_AT_ONCE);
        }
        assert!(store.head(&location).await.unwrap_err().is_not_found(), "it appears when it is complete");
        assert_eq!(upload.finish().await.unwrap(), all.len() as u64);
        assert_eq!(store.get(&location).await.unwrap(), all);
        let info = store.head(&location).await.unwrap();
        assert_eq!((info.location.as_str(), info.size_bytes), (location.as_str(), all.len() as u64));
    }
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let (dir, store) = local();
    let location = format!("{}/data/a", store.root());
    let upload =
        store.upload(&location, &Tags::default()).await.unwrap().write(content(2 * PART_BYTES + 5)).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 1, "the file it is written to");
    upload.abort().await;
    assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 0);
    assert_eq!(listed(&store).await, []);
}

#[tokio::test]
async fn a_completion_that_fails_is_an_error_and_makes_no_object() {
    let (dir, store) = local();
    let location = format!("{}/data/a", store.root());
    let upload = store.upload(&location, &Tags::default()).await.unwrap().write(content(PART_BYTES + 5)).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    let error = upload.finish().await.unwrap_err();
    assert!(matches!(error, UploadError::Complete { .. }) && error.is_transient(), "{error:?}");
    assert!(store.head(&location).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_location_outside_the_warehouse_is_neither_written_nor_listed() {
    let (_dir, store) = local();
    let upload = store.upload("file:///elsewhere/a", &Tags::default()).await.unwrap_err();
    assert!(matches!(upload, UploadError::Outside(_)) && !upload.is_transient(), "{upload:?}");
    assert!(store.list("file:///elsewhere").is_err());
}

#[tokio::test]
async fn a_list_has_what_lies_below_a_location_with_size_and_time() {
    let (_dir, store) = local();
    for (name, bytes) in [("data/a", 3), ("data/x/b", 4), ("data2/c", 5)] {
        store.put(&format!("{}/{name}", store.root()), content(bytes)).await.unwrap();
    }
    assert_eq!(listed(&store).await.len(), 3);
    let below = format!("{}/data", store.root());
    let mut found: Vec<_> = store.list(&below).unwrap().try_collect::<Vec<_>>().await.unwrap();
    found.sort_by_key(|info| info.size_bytes);
    let names: Vec<_> = found.iter().map(|info| (info.location.as_str(), info.size_bytes)).collect();
    assert_eq!(names, [(format!("{below}/a").as_str(), 3), (format!("{below}/x/b").as_str(), 4)]);
    for info in &found {
        assert_eq!(store.head(&info.location).await.unwrap(), *info);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!((now - 60_000..=now).contains(&info.modified_unix_ms), "{info:?} at {now}");
    }
}
