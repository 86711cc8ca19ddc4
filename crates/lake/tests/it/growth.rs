//! What a long history of small commits leaves behind.

use std::time::Duration;

use lake::ReadError;

use crate::place::Place;
use crate::rows::{def, land, offsets, range};

on_both!(hundreds_of_small_commits_leave_few_manifests_and_every_file_listed_once);

/// On a directory more than one full class of merged manifests (16 × 16); the test's S3 is too slow for that.
fn commits(place: &Place) -> i64 {
    if place.options.s3.is_none() { 300 } else { 100 }
}

async fn hundreds_of_small_commits_leave_few_manifests_and_every_file_listed_once(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let (commits, mut most) = (commits(&place), 0);
    for i in 0..commits {
        land(&table, &[range(0, i, i + 1)]).await;
        most = most.max(table.reader().snapshot().await.unwrap().manifest_count());
    }
    // At most fifteen of single files, of sixteen files, and of two hundred and fifty-six.
    assert!(most <= 3 * 15, "{most}");
    assert_eq!(offsets(&table).await, [commits]);
    let found = place.assert_landed(&[commits]);
    println!("{commits} commits: at most {most} manifests at any time, {} at the end", found["manifests"]);
    assert_eq!(found["files"].as_i64(), Some(commits));
    assert_eq!(found["distinct_files"].as_i64(), Some(commits));
    assert!(found["manifests"].as_i64().unwrap() <= 3 * 15, "{found}");
    // All are of the last hour: none has left.
    let before_all = table.reader().snapshot_as_of(0).await.unwrap_err();
    assert!(matches!(before_all, ReadError::NoSnapshot { .. }), "{before_all}");
    let head = table.reader().snapshot().await.unwrap();
    let bytes = head.store().size(head.metadata_location()).await.unwrap();
    println!("metadata of {commits} snapshots: {bytes} bytes, {} each", bytes / commits as u64);
    // Two megabytes for the 6,400 snapshots of two years, and 20 kB for what does not grow: the schema, a hundred
    // names of previous files.
    assert!(bytes < 20_000 + commits as u64 * (2_000_000 / 6_400), "{bytes}");
    let kept = || async { place.objects().await.iter().filter(|name| name.ends_with(".metadata.json")).count() };
    // The table's, the hundred before it, and what is just being deleted.
    let few = async {
        while kept().await > 101 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), few).await.expect("old metadata files are deleted");
    assert_eq!(kept().await as i64, (commits + 1).min(101));
}
