//! Times in requests: a date and time (RFC 3339, or less of it), a Unix time, a word, or a duration back from now.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime};
use service_kit::config::HumanDuration;

/// Date and time without a zone, which is UTC then; seconds and their fraction may be left out.
const WITHOUT_ZONE: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
/// Date and time with a zone that RFC 3339 does not write so.
const WITH_ZONE: [&str; 4] =
    ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error(
        "`{text}` is not a time: write 2026-03-01T12:00:00Z, 2026-03-01 12:00 (UTC) or 2026-03-01, a Unix time in seconds to \
         nanoseconds, `now`, `today` or `yesterday`, or a duration back from now such as 90s, 5m, 12h or 30d"
    )]
    NotATime { text: String },
    #[error("`{text}` is not within the years 0001 to 9999")]
    OutOfCalendar { text: String },
}

/// Unix milliseconds of a text; the error lists the forms that are accepted.
///
/// # Errors
/// The text is no time, or a time that the calendar does not hold (years 0001 to 9999).
pub fn parse_time(text: &str, now_ms: i64) -> Result<i64, TimeError> {
    let trimmed = text.trim();
    // No text has two of these forms, so their order decides nothing.
    let found = calendar(trimmed).or_else(|| unix(trimmed)).or_else(|| word(trimmed, now_ms));
    let time_ms = match found {
        Some(time_ms) => time_ms,
        None => back(trimmed, now_ms).ok_or_else(|| TimeError::NotATime { text: text.to_owned() })?,
    };
    // RFC 3339 has four digits for the year: another year could not be printed in the answer.
    if in_calendar(time_ms) { Ok(time_ms) } else { Err(TimeError::OutOfCalendar { text: text.to_owned() }) }
}

fn in_calendar(time_ms: i64) -> bool {
    let time = DateTime::from_timestamp_millis(time_ms);
    time.is_some_and(|time| (1..=9999).contains(&chrono::Datelike::year(&time)))
}

/// A date, or a date and a time of day.
fn calendar(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    // `Z` in either case, which the patterns for zones do not accept.
    let zulu = text.strip_suffix(['Z', 'z']);
    let plain = zulu.unwrap_or(text);
    if let Some(time) = WITHOUT_ZONE.iter().find_map(|form| NaiveDateTime::parse_from_str(plain, form).ok()) {
        return Some(time.and_utc().timestamp_millis());
    }
    if let Some(time) = WITH_ZONE.iter().find_map(|form| DateTime::parse_from_str(text, form).ok()) {
        return Some(time.timestamp_millis());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, distinguished by their magnitude: each reads as a
/// time between 1973 and 5138. Smaller numbers are more likely durations whose unit is missing.
fn unix(text: &str) -> Option<i64> {
    if text.contains('.') {
        let whole: i64 = text.split('.').next()?.parse().ok()?;
        // A double has 53 bits: of a Unix time below 10^11 s it keeps fractions far below the millisecond.
        let seconds: f64 = text.parse().ok()?;
        return (100_000_000..100_000_000_000).contains(&whole).then(|| whole_ms(seconds));
    }
    let number: i64 = text.parse().ok()?;
    // The bounds also rule out an overflow: the product of the first arm stays below 10^14.
    match number {
        100_000_000..100_000_000_000 => Some(number * 1_000),
        100_000_000_000..100_000_000_000_000 => Some(number),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number / 1_000),
        100_000_000_000_000_000.. => Some(number / 1_000_000),
        _ => None,
    }
}

/// Seconds as milliseconds, less what is below one.
#[expect(clippy::cast_possible_truncation, reason = "`as` cuts the fraction off, and `unix` bounds the number")]
fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
}

/// `now`, and the midnight (UTC) at which `today` or `yesterday` began.
fn word(text: &str, now_ms: i64) -> Option<i64> {
    let today = DateTime::from_timestamp_millis(now_ms)?.date_naive();
    let day = match text.to_ascii_lowercase().as_str() {
        "now" => return Some(now_ms),
        "today" => today,
        "yesterday" => today.checked_sub_days(Days::new(1))?,
        _ => return None,
    };
    Some(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis())
}

/// A duration back from now, also with the sign that Grafana and PromQL write: `5m`, `-5m`, `now-5m`.
fn back(text: &str, now_ms: i64) -> Option<i64> {
    // `now+1h` keeps its sign and is refused: no row is from the future.
    let duration = text.strip_prefix("now").map_or(text, str::trim_start);
    let duration = duration.strip_prefix('-').unwrap_or(duration);
    let back: HumanDuration = duration.trim_start().parse().ok()?;
    // A duration beyond the range saturates, and the caller refuses the result as outside the calendar.
    Some(now_ms.saturating_sub(i64::try_from(back.0.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-04-03 12:00:00 UTC.
    const NOON_MS: i64 = 1_775_217_600_000;
    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_time_is_read_as_people_and_tools_write_it() {
        let noon = [
            "2026-04-03T12:00:00Z",
            "2026-04-03t12:00:00z",
            "2026-04-03T12:00:00",
            "2026-04-03 12:00:00",
            "2026-04-03 12:00",
            "2026-04-03T12:00Z",
            "2026-04-03T14:00:00+02:00",
            "2026-04-03 14:00+0200",
            "2026-04-03T12:00:00.000",
            "1775217600",
            "1775217600000",
            "1775217600000000",
            "1775217600000000000",
            "1775217600.0",
            " now ",
            "NOW",
        ];
        for text in noon {
            assert_eq!(parse_time(text, NOON_MS), Ok(NOON_MS), "{text}");
        }
        assert_eq!(parse_time("2026-04-03", 0), Ok(NOON_MS - 12 * HOUR_MS));
        assert_eq!(parse_time("today", NOON_MS), Ok(NOON_MS - 12 * HOUR_MS));
        assert_eq!(parse_time("yesterday", NOON_MS), Ok(NOON_MS - 36 * HOUR_MS));
        assert_eq!(parse_time("2026-04-03T12:00:00.250", 0), Ok(NOON_MS + 250));
    }

    #[test]
    fn a_duration_goes_back_from_now_with_or_without_a_sign() {
        for text in ["1h", "-1h", "now-1h", "now - 1h", "60m", "3600s"] {
            assert_eq!(parse_time(text, NOON_MS), Ok(NOON_MS - HOUR_MS), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is() {
        for text in ["", "tomorrow", "5", "-5", "5x", "2026-13-01", "2026-02-30", "12:00", "99999999", "1e9", "now+1h"]
        {
            assert!(
                parse_time(text, NOON_MS).unwrap_err().to_string().contains("is not a time: write 2026-"),
                "{text}"
            );
        }
        for text in ["100000000000000d", "-99999d 999999999d"] {
            let refused = parse_time(text, NOON_MS).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
    }
}
