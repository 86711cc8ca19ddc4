//! Values as literals in the SQL of internal statements.

use chrono::DateTime;

/// A text as a string literal.
pub fn text(value: &str) -> String {
    // SQL doubles a quote in a string literal. A backslash needs no escape, because the dialect gives it no meaning
    // there.
    format!("'{}'", value.replace('\'', "''"))
}

/// A time (unix nanoseconds) as a literal of the type of the lake's times. Digits below the microsecond are cut.
pub fn instant(unix_ns: i64) -> String {
    // Cannot fail: 64 bits of nanoseconds reach from 1677 to 2262, all within chrono's calendar.
    let time = DateTime::from_timestamp_nanos(unix_ns);
    format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f+00:00"))
}
