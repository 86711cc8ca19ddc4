//! Forms of durations and times.

use super::*;

#[test]
fn durations_read_as_go_writes_them() {
    let reported: Vec<String> = [
        0,
        1,
        999,
        1_000,
        734_136,
        1_052_216,
        25_799_899,
        1_000_000_000,
        1_500_000_000,
        62_500_000_000,
        3_600_000_000_000,
        -2_000,
    ]
    .into_iter()
    .map(go_duration)
    .collect();
    assert_eq!(
        reported,
        [
            "0s",
            "1ns",
            "999ns",
            "1µs",
            "734.136µs",
            "1.052216ms",
            "25.799899ms",
            "1s",
            "1.5s",
            "1m2.5s",
            "1h0m0s",
            "-2µs",
        ]
    );
}

#[test]
fn instants_read_as_rfc_3339() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(1_775_218_723_111_028_602), "2026-04-03T12:18:43.111Z");
    assert_eq!(rfc3339(1_709_164_799_999_000_000), "2024-02-28T23:59:59.999Z");
    assert_eq!(rfc3339(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000Z");
    assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
}
