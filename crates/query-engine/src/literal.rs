//! Values as literals of the SQL that we write ourselves.

use chrono::DateTime;

/// A text.
pub fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A time of the type of the lake's times. What lies beyond the calendar becomes its end.
pub fn instant(unix_ns: i64) -> String {
    let time = DateTime::from_timestamp_nanos(unix_ns);
    format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f+00:00"))
}
