//! The warehouse's objects: what is written as a stream, and tags, which S3 alone has.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Attribute, ObjectStore, PutOptions};
use objects::tiers::{Speed, StorageClass};
use objects::{ArchiveError, ObjectInfo, PART_BYTES, RestoreOrder, Restoring, StoreError, TagError, Tags, is_archived};

use crate::place::Place;

on_both!(an_object_written_in_parts_is_read_listed_and_deleted);

async fn an_object_written_in_parts_is_read_listed_and_deleted(place: Place) {
    let lake = place.lake().await;
    let store = lake.store();
    let location = format!("{}/silver/t/data/parts", store.root());
    let bytes: Bytes = (0..2 * PART_BYTES + 5).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let mut upload = store.upload(&location, &Tags::default()).await.unwrap();
    for piece in [0..100, 100..PART_BYTES + 7, PART_BYTES + 7..bytes.len()] {
        upload = upload.write(bytes.slice(piece)).await.unwrap();
    }
    assert!(store.head(&location).await.unwrap_err().is_not_found(), "it appears when it is complete");
    assert_eq!(upload.finish().await.unwrap(), bytes.len() as u64);
    let ends = [PART_BYTES as u64 - 3..PART_BYTES as u64 + 3, bytes.len() as u64 - 2..bytes.len() as u64];
    let parts = store.get_ranges(&location, &ends).await.unwrap();
    assert_eq!(parts, ends.map(|range| bytes.slice(range.start as usize..range.end as usize)));
    let empty = store.upload(&format!("{location}-0"), &Tags::default()).await.unwrap();
    assert_eq!(empty.finish().await.unwrap(), 0);

    let below = format!("{}/silver/t", store.root());
    let mut listed: Vec<ObjectInfo> = store.list(&below).unwrap().try_collect().await.unwrap();
    listed.sort_by_key(|info| info.size_bytes);
    assert_eq!(listed.iter().map(|info| info.size_bytes).collect::<Vec<_>>(), [0, bytes.len() as u64]);
    assert_eq!(store.head(&location).await.unwrap(), listed[1]);
    store.delete(&location).await.unwrap();
    assert!(store.head(&location).await.unwrap_err().is_not_found());

    let aborted = store.upload(&location, &Tags::default()).await.unwrap();
    aborted.write(bytes).await.unwrap().abort().await;
    assert!(store.head(&location).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_written_with_an_object_and_replaced_on_one_that_exists() {
    let place = Place::served().await;
    let lake = place.lake().await;
    let store = lake.store();
    let at = |name: &str| format!("{}/silver/t/data/ts_day=2026-01-01/{name}", store.root());
    let tags = Tags::new([("causeway.tier", "hot"), ("team", "a b+c=d/e@f")]).unwrap();
    assert!(store.supports_tags());

    store.put(&at("plain"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.tags(&at("plain")).await.unwrap(), Tags::default());
    store.put_tagged(&at("put"), Bytes::from_static(b"x"), &tags).await.unwrap();
    assert_eq!(store.tags(&at("put")).await.unwrap(), tags);
    let upload = store.upload(&at("upload"), &tags).await.unwrap().write(Bytes::from_static(b"x")).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(store.tags(&at("upload")).await.unwrap(), tags);

    let cold = Tags::new([("causeway.tier", "cold")]).unwrap();
    for name in ["plain", "put", "upload"] {
        store.set_tags(&at(name), &cold).await.unwrap();
        assert_eq!(store.tags(&at(name)).await.unwrap(), cold, "all tags are replaced");
    }
    store.set_tags(&at("plain"), &Tags::default()).await.unwrap();
    assert!(store.tags(&at("plain")).await.unwrap().is_empty());
    assert_eq!(store.get(&at("put")).await.unwrap(), "x");

    let gone = at("nothing");
    for refused in [store.tags(&gone).await.map(|_| ()), store.set_tags(&gone, &cold).await] {
        assert!(matches!(&refused, Err(TagError::NotFound { location }) if *location == gone), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_object_is_known_as_one_and_is_read_once_a_copy_was_restored() {
    let place = Place::served().await;
    let lake = place.lake().await;
    let store = lake.store();
    let at = |name: &str| format!("{}/silver/t/data/ts_day=2026-01-01/{name}", store.root());
    for (name, header, class) in [
        ("plain", None, StorageClass::Standard),
        ("cool", Some("GLACIER_IR"), StorageClass::InstantRetrieval),
        ("old", Some("DEEP_ARCHIVE"), StorageClass::DeepArchive),
    ] {
        let mut options = PutOptions::default();
        if let Some(header) = header {
            options.attributes.insert(Attribute::StorageClass, header.into());
        }
        let path = store.path(&at(name)).unwrap();
        store.objects().put_opts(&path, Bytes::from_static(b"x").into(), options).await.unwrap();
        let storage = store.storage(&at(name)).await.unwrap();
        assert_eq!((storage.class, storage.is_readable()), (class, !class.is_archive()), "{name}");
    }
    assert_eq!(store.get(&at("cool")).await.unwrap(), "x");
    let refused = store.get(&at("old")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Get { source, .. } if is_archived(source)), "{refused:?}");

    let order = RestoreOrder { days: 3, speed: Speed::Bulk };
    let refused = store.restore(&at("plain"), order).await;
    assert!(matches!(refused, Err(ArchiveError::NotArchived { .. })), "{refused:?}");
    let refused = store.restore(&at("nothing"), order).await;
    assert!(matches!(refused, Err(ArchiveError::NotFound { .. })), "{refused:?}");
    assert_eq!(store.restore(&at("old"), order).await.unwrap(), Restoring::Started);
    // This server makes copies at once.
    let storage = store.storage(&at("old")).await.unwrap();
    assert!(storage.class == StorageClass::DeepArchive && storage.is_readable(), "{storage:?}");
    assert_eq!(store.get(&at("old")).await.unwrap(), "x");
    assert_eq!(store.restore(&at("old"), order).await.unwrap(), Restoring::Restored);
}
