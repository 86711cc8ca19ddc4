//! Times as text.

use chrono::{DateTime, SecondsFormat};

/// A time in RFC 3339, UTC, with milliseconds: `2026-04-03T12:00:00.000Z`. `None` for a time outside chrono's calendar.
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    DateTime::from_timestamp_millis(unix_ms).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
