//! Times in requests: RFC 3339, or a duration back from now (`90s`, `5m`, `12h`, `30d`).

use chrono::DateTime;
use service_kit::config::HumanDuration;

/// Unix milliseconds of a text; the error says what is accepted.
///
/// # Errors
/// The text is neither a time nor a duration, or reaches too far.
pub(super) fn parse_time(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return within_reach(text, time.timestamp_millis());
    }
    let back: HumanDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is neither a time (2026-03-01T12:00:00Z) nor a duration back from now (5m)"))?;
    within_reach(text, now_ms.saturating_sub(i64::try_from(back.0.as_millis()).unwrap_or(i64::MAX)))
}

/// Years 1 to 9999: what SQL can compare with.
fn within_reach(text: &str, unix_ms: i64) -> Result<i64, String> {
    const REACH_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;
    if REACH_MS.contains(&unix_ms) {
        return Ok(unix_ms);
    }
    Err(format!("`{text}` is a time outside of the years 1 to 9999: give one such as 2026-03-01T12:00:00Z, or 30d"))
}

/// A time as RFC 3339 in UTC, milliseconds.
pub(crate) fn rfc3339(unix_ms: i64) -> Option<String> {
    DateTime::from_timestamp_millis(unix_ms).map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_back_are_read_and_the_rest_is_refused() {
        assert_eq!(parse_time("1970-01-01T00:00:02Z", 0), Ok(2_000));
        assert_eq!(parse_time("5m", 1_000_000), Ok(700_000));
        for far in ["99999999999999d", "1000000d", "+12345-01-01T00:00:00Z"] {
            assert!(parse_time(far, 0).is_err(), "{far}");
        }
        assert!(parse_time("700000d", 0).is_ok());
        assert!(parse_time("99999999999999d", 0).unwrap_err().contains("outside of the years"));
        assert!(parse_time("yesterday", 0).unwrap_err().contains("`yesterday`"));
    }
}
