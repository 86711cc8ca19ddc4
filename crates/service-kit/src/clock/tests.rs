use super::*;

#[test]
fn a_manual_clock_moves_only_by_hand() {
    let clock = ManualClock::at(1_500_000);
    assert_eq!((clock.now_ns(), clock.now_ms()), (1_500_000, 1));
    clock.advance(Duration::from_millis(2));
    assert_eq!((clock.now_ns(), clock.now_ms()), (3_500_000, 3));
}

#[test]
fn the_system_clock_shows_unix_time() {
    // 2024-01-01 and 2100-01-01.
    assert!((1_704_067_200_000..4_102_444_800_000).contains(&SystemClock.now_ms()));
}
