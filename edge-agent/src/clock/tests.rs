//! A beacon holds what it promises.

use super::*;

#[test]
fn two_beacons_agree_within_their_error_bounds_and_the_clocks_drift() {
    let (first, second) = (beacon().unwrap(), beacon().unwrap());
    assert!(first.error_ns > 0 && first.error_ns < 1_000_000, "{first:?}");
    let offset = |beacon: &Beacon| beacon.wall_ns - beacon.boot_ns;
    let slack = first.error_ns + second.error_ns + 100_000;
    assert!((offset(&first) - offset(&second)).abs() <= slack, "{first:?} {second:?}");
}
