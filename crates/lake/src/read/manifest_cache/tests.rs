use super::*;

fn files(n: u64) -> ManifestFiles {
    let file = ScanFile {
        location: String::new(),
        path: object_store::path::Path::default(),
        size_bytes: n,
        record_count: n,
        day: None,
        columns: vec![],
        split_offsets: vec![],
        sort_order_id: None,
        sequence_number: 0,
        snapshot_id: 0,
    };
    [Arc::new(file)].into()
}

#[test]
fn what_was_used_longest_ago_goes_first_and_the_bytes_stay_bounded() {
    let cache = ManifestCache::new(30);
    for (n, path) in ["a", "b", "c"].iter().enumerate() {
        cache.insert(path, files(n as u64), 10);
    }
    assert!(cache.get("a").is_some());
    cache.insert("d", files(3), 10);
    assert!(cache.get("b").is_none(), "a was used since");
    assert!(["a", "c", "d"].iter().all(|path| cache.get(path).is_some()));
    assert_eq!(cache.inner.lock().unwrap().bytes, 30);
}

#[test]
fn an_entry_larger_than_the_cache_is_kept_alone() {
    let cache = ManifestCache::new(30);
    cache.insert("small", files(1), 10);
    cache.insert("huge", files(2), 1_000);
    assert!(cache.get("huge").is_some() && cache.get("small").is_none());
}

#[test]
fn the_same_manifest_twice_counts_once() {
    let cache = ManifestCache::new(100);
    cache.insert("a", files(1), 10);
    cache.insert("a", files(1), 10);
    assert_eq!(cache.inner.lock().unwrap().bytes, 10);
}
