use object_store::memory::InMemory;
use uuid::Uuid;

use super::*;
use crate::checksum::{seal, stamp};

/// A sealed file of `body` bytes in front of its footer, stored under its name.
async fn stored(body: usize) -> (Arc<InMemory>, Path, Bytes) {
    let mut file: Vec<u8> = (0..body).map(|at| (at * 31 % 251) as u8).collect();
    file.extend_from_slice(b"footer\x06\0\0\0PAR1");
    let (bytes, checksum) = seal(file).unwrap();
    let store = Arc::new(InMemory::new());
    let path = Path::from(format!("data/{}.parquet", stamp(Uuid::now_v7(), checksum)));
    store.put(&path, bytes.clone().into()).await.unwrap();
    (store, path, bytes)
}

fn problem(error: &Error) -> String {
    Damage::behind(error).unwrap_or_else(|| panic!("{error} is no damage")).to_string()
}

#[tokio::test]
async fn ranges_of_a_sound_file_are_given_as_they_are() {
    for body in [10, 16_384, 300_000] {
        let (store, path, bytes) = stored(body).await;
        let checked = Checked::new(store);
        let size = bytes.len() as u64;
        let ranges = [size - 8..size, 0..4, 3..9, body as u64 / 2..body as u64, 0..size];
        let found = checked.get_ranges(&path, &ranges).await.unwrap();
        for (range, found) in ranges.iter().zip(found) {
            assert_eq!(found, bytes.slice(range.start as usize..range.end as usize), "{range:?} of {size}");
        }
        assert_eq!(checked.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
        assert_eq!(checked.get_range(&path, 2..7).await.unwrap(), bytes.slice(2..7));
        assert_eq!(checked.head(&path).await.unwrap().size, size);
    }
}

#[tokio::test]
async fn only_the_damaged_part_of_a_file_is_refused() {
    let (store, path, bytes) = stored(200_000).await;
    let mut damaged = bytes.to_vec();
    damaged[50_000] ^= 4;
    store.put(&path, damaged.into()).await.unwrap();
    let checked = Checked::new(store);
    assert_eq!(checked.get_range(&path, 0..49_152).await.unwrap(), bytes.slice(..49_152));
    assert_eq!(checked.get_range(&path, 65_536..200_000).await.unwrap(), bytes.slice(65_536..200_000));
    for range in [49_999..50_001, 49_152..49_153, 65_535..65_536, 0..200_000] {
        let error = checked.get_range(&path, range).await.unwrap_err();
        assert_eq!(problem(&error), "bytes 49152 to 65536 do not match their checksum");
    }
    assert!(checked.get(&path).await.is_err());
}

#[tokio::test]
async fn a_file_that_is_empty_cut_or_another_one_is_damaged_and_one_that_is_gone_is_not_found() {
    let (store, path, bytes) = stored(200_000).await;
    let (_, _, other) = stored(200_001).await;
    for (content, problem_text) in [
        (Bytes::new(), "it has 0 bytes"),
        (bytes.slice(..5), "it has 5 bytes"),
        (bytes.slice(..150_000), "it does not end as a Parquet file does"),
        (other, "the checksums in front of its footer are damaged"),
    ] {
        store.put(&path, content.into()).await.unwrap();
        let error = Checked::new(Arc::clone(&store)).get_range(&path, 0..10).await.unwrap_err();
        assert_eq!(problem(&error), problem_text);
    }
    store.delete(&path).await.unwrap();
    let error = Checked::new(store).get_range(&path, 0..10).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn an_object_with_one_checksum_is_checked_whole_and_others_pass() {
    let store = Arc::new(InMemory::new());
    let manifest = Bytes::from_static(b"entries of a manifest");
    let path = Path::from(format!("metadata/{}-m.avro", stamp(Uuid::now_v7(), crc32c::crc32c(&manifest))));
    store.put(&path, manifest.clone().into()).await.unwrap();
    let checked = Checked::new(Arc::clone(&store));
    assert_eq!(checked.get(&path).await.unwrap().bytes().await.unwrap(), manifest);
    assert_eq!(checked.get_ranges(&path, &[0..7, 8..10]).await.unwrap(), ["entries", "of"]);
    store.put(&path, Bytes::from_static(b"entries of a manifesT").into()).await.unwrap();
    assert!(problem(&checked.get(&path).await.unwrap_err()).starts_with("the checksum of its 21 bytes is "));
    assert!(checked.get_range(&path, 0..2).await.is_err());
    let foreign = Path::from("data/part-0.parquet");
    store.put(&foreign, Bytes::from_static(b"anything").into()).await.unwrap();
    assert_eq!(checked.get_range(&foreign, 0..3).await.unwrap(), "any");
}
