//! An epoch is never used twice in a boot.

use tempfile::TempDir;

use super::*;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

#[test]
fn every_run_gets_a_greater_epoch_and_a_new_boot_begins_at_its_clock() {
    let spool = TempDir::new().unwrap();
    let epochs: Vec<_> =
        [10, 10, 11, 90].map(|second| take_epoch(spool.path(), "boot-a", second * SECOND).unwrap()).into();
    assert_eq!(epochs, [10, 11, 12, 90]);
    assert_eq!(take_epoch(spool.path(), "boot-b", 7 * SECOND).unwrap(), 7);
}

#[test]
fn no_epoch_is_used_again_when_the_spool_is_new_or_its_record_is_damaged() {
    let spool = TempDir::new().unwrap();
    let before = take_epoch(spool.path(), "boot", 100 * SECOND).unwrap();
    for damage in ["", "boot", "boot x", "\u{0}\u{0}\u{0}", "boot 99999999999999999999", "boot -5"] {
        fs::write(spool.path().join("epoch"), damage).unwrap();
        assert!(take_epoch(spool.path(), "boot", 101 * SECOND).unwrap() > before, "{damage:?}");
    }
    fs::write(spool.path().join("epoch"), b"\xff\xfe").unwrap();
    assert!(take_epoch(spool.path(), "boot", 101 * SECOND).unwrap() > before);
    assert!(take_epoch(TempDir::new().unwrap().path(), "boot", 101 * SECOND).unwrap() > before);
}

#[test]
fn a_record_of_another_length_leaves_nothing_behind() {
    let spool = TempDir::new().unwrap();
    let path = spool.path().join("epoch");
    for before in ["boot 5\n", "boot 5", "a-much-longer-boot-id 8000000\n", &"x".repeat(200)] {
        fs::write(&path, before).unwrap();
        let first = take_epoch(spool.path(), "boot", 3 * SECOND).unwrap();
        assert_eq!(take_epoch(spool.path(), "boot", 3 * SECOND).unwrap(), first + 1, "{before:?}");
    }
}

#[test]
fn an_epoch_that_cannot_be_recorded_is_the_clocks() {
    let spool = TempDir::new().unwrap();
    let path = spool.path().join("epoch");
    std::os::unix::fs::symlink("/nonexistent/epoch", &path).unwrap();
    record_epoch(&path, "boot", 9).unwrap_err();
    assert_eq!([100, 101].map(|second| take_epoch(spool.path(), "boot", second * SECOND).unwrap()), [100, 101]);
}

#[test]
fn the_clocks_epoch_rises_through_years_of_one_boot_and_its_end_is_told() {
    let days: Vec<_> = (0..8 * 365).map(|day| clock_epoch(day * DAY)).collect();
    assert!(days.windows(2).all(|pair| pair[0] < pair[1]) && *days.last().unwrap() < EPOCHS_MAX);
    let turn = EPOCHS_MAX / 2;
    assert_eq!([turn, turn + 63, turn + 64].map(|second| clock_epoch(second * SECOND)), [turn, turn, turn + 1]);
    let spool = TempDir::new().unwrap();
    let error = take_epoch(spool.path(), "boot", 10 * 365 * DAY).unwrap_err();
    assert!(matches!(error, IdentityError::NoEpochLeft), "{error}");
    fs::write(spool.path().join("epoch"), format!("boot {}", EPOCHS_MAX - 1)).unwrap();
    assert!(matches!(take_epoch(spool.path(), "boot", DAY), Err(IdentityError::NoEpochLeft)));
}

#[test]
fn agents_that_start_together_get_different_epochs() {
    let spool = TempDir::new().unwrap();
    let mut epochs: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| take_epoch(spool.path(), "boot", 0).unwrap())).collect();
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
    assert!(named.node == "gpu-1" && named.epoch < unnamed.epoch);
    assert!(!unnamed.node.is_empty() && unnamed.boot_id.len() == 36);
    let error = Identity::establish("lab", Some(&"x".repeat(300)), spool.path()).unwrap_err();
    assert!(error.to_string().contains("node.name"), "{error}");
}
