//! How much of a table's history is kept: as properties of the table say, or the default.

use std::collections::HashMap;

use crate::table::schema::SNAPSHOTS_TO_KEEP;

/// How long every snapshot is kept.
pub const KEEP_EVERY: &str = "causeway.history.every";
/// How long one snapshot of each minute is kept.
pub const KEEP_MINUTES: &str = "causeway.history.minute";
/// How long one snapshot of each hour is kept.
pub const KEEP_HOURS: &str = "causeway.history.hour";
/// How long one snapshot of each day is kept.
pub const KEEP_DAYS: &str = "causeway.history.day";

/// Milliseconds of the units, which divide one another: the last snapshot of an hour is the last of its minute.
pub(super) const MINUTE_MS: i64 = 60_000;
pub(super) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Which snapshots of a table are kept by their age: fewer, the older they are. Ages are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Every snapshot up to this age.
    pub(crate) every_ms: i64,
    /// One of each minute up to this age, and so on.
    pub(crate) minutes_ms: i64,
    pub(crate) hours_ms: i64,
    pub(crate) days_ms: i64,
    /// At least so many of the newest, whatever their age.
    pub(crate) newest: usize,
}

impl Grid {
    /// Every one for an hour, one a minute for a day, one an hour for 30 days, one a day for two years.
    pub const DEFAULT: Self =
        Self { every_ms: HOUR_MS, minutes_ms: DAY_MS, hours_ms: 30 * DAY_MS, days_ms: 730 * DAY_MS, newest: 100 };

    /// A coarse unit is kept for as long as a finer one at least: `thin` could otherwise take out the representative of
    /// an hour that a later call needs.
    pub(crate) fn new(every_ms: i64, minutes_ms: i64, hours_ms: i64, days_ms: i64) -> Self {
        let minutes_ms = minutes_ms.max(every_ms);
        let hours_ms = hours_ms.max(minutes_ms);
        Self { every_ms, minutes_ms, hours_ms, days_ms: days_ms.max(hours_ms), newest: Self::DEFAULT.newest }
    }

    /// Keeps so many of the newest, and nothing by age.
    #[cfg(test)]
    pub(crate) fn of_newest(newest: usize) -> Self {
        Self { newest, ..Self::new(0, 0, 0, 0) }
    }

    /// As the properties of a table say. A value that cannot be read counts as the default: another program may have
    /// set it, and commits must go on.
    pub(crate) fn of(properties: &HashMap<String, String>) -> Self {
        let default = Self::DEFAULT;
        let age = |key: &str, default: i64| properties.get(key).and_then(|text| parse_age(text)).unwrap_or(default);
        let grid = Self::new(
            age(KEEP_EVERY, default.every_ms),
            age(KEEP_MINUTES, default.minutes_ms),
            age(KEEP_HOURS, default.hours_ms),
            age(KEEP_DAYS, default.days_ms),
        );
        let newest = properties.get(SNAPSHOTS_TO_KEEP).and_then(|n| n.parse().ok()).unwrap_or(default.newest);
        // The newest snapshot becomes the current one: it stays whatever the property says.
        Self { newest: newest.max(1), ..grid }
    }
}

/// Reads an age such as `90s`, `10m`, `1h` or `730d`, in milliseconds.
pub fn parse_age(text: &str) -> Option<i64> {
    let unit = text.chars().next_back()?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => MINUTE_MS,
        'h' => HOUR_MS,
        'd' => DAY_MS,
        _ => return None,
    };
    // Unsigned: a negative age would keep nothing.
    let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
    i64::from(count).checked_mul(unit_ms)
}

/// Why a property of the history would have no effect; `None` for any other property, and for a good value.
pub(crate) fn problem(key: &str, value: &str) -> Option<String> {
    let is_age = [KEEP_EVERY, KEEP_MINUTES, KEEP_HOURS, KEEP_DAYS].contains(&key);
    (is_age && parse_age(value).is_none())
        .then(|| format!("{key} = {value:?} is no age: write it as 90s, 10m, 1h or 730d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit_and_no_sign() {
        assert_eq!(["90s", "10m", "1h", "730d"].map(parse_age), [90_000, 600_000, HOUR_MS, 730 * DAY_MS].map(Some));
        for text in ["", "h", "10", "-1h", "1w", "1.5h", "1 h", "1hh", "10µ"] {
            assert_eq!(parse_age(text), None, "{text}");
            assert!(problem(KEEP_DAYS, text).is_some_and(|problem| problem.contains("write it as 90s")), "{text}");
        }
        assert_eq!((problem(KEEP_DAYS, "1d"), problem("comment", "1 h")), (None, None));
    }

    #[test]
    fn a_table_says_how_long_and_a_coarse_unit_outlives_a_finer_one() {
        let set = [(KEEP_EVERY, "10m"), (KEEP_DAYS, "0d"), (KEEP_HOURS, "soon"), (SNAPSHOTS_TO_KEEP, "0")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let thirty = 30 * DAY_MS;
        let expected = Grid { every_ms: 600_000, minutes_ms: DAY_MS, hours_ms: thirty, days_ms: thirty, newest: 1 };
        assert_eq!(Grid::of(&set), expected);
        assert_eq!(Grid::of(&HashMap::new()), Grid::DEFAULT);
    }
}
