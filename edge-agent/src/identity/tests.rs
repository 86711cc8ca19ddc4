//! An epoch is never used twice in a boot.

use tempfile::TempDir;

use super::*;

#[test]
fn every_run_gets_the_next_epoch_and_a_new_boot_begins_at_zero() {
    let spool = TempDir::new().unwrap();
    let epochs: Vec<_> = (0..3).map(|_| take_epoch(spool.path(), "boot-a").unwrap()).collect();
    assert_eq!(epochs, [0, 1, 2]);
    assert_eq!(take_epoch(spool.path(), "boot-b").unwrap(), 0);
}

#[test]
fn agents_that_start_together_get_different_epochs() {
    let spool = TempDir::new().unwrap();
    let mut epochs: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| take_epoch(spool.path(), "boot").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (0..8).collect::<Vec<_>>());
}

#[test]
fn the_configured_name_wins_over_the_hosts() {
    let spool = TempDir::new().unwrap();
    let named = Identity::establish("lab", Some("gpu-1"), spool.path()).unwrap();
    let unnamed = Identity::establish("lab", None, spool.path()).unwrap();
    assert_eq!((named.node.as_str(), named.epoch, unnamed.epoch), ("gpu-1", 0, 1));
    assert!(!unnamed.node.is_empty() && unnamed.boot_id.len() == 36);
    let error = Identity::establish("lab", Some(&"x".repeat(300)), spool.path()).unwrap_err();
    assert!(error.to_string().contains("node.name"), "{error}");
}
