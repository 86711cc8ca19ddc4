//! Retention: which days of a table are dropped, file by file and without rewriting any. Pure.

use std::collections::{BTreeSet, HashMap};

use lake::commit::DeleteFiles;

/// Property of a table: how many days are kept besides the current one (UTC), by the table's day partition.
pub const RETENTION_DAYS: &str = "causeway.retention.days";
/// Property of a table: why nothing may be dropped, for instance a legal hold. It stops every drop, whatever it says.
pub const RETENTION_HOLD: &str = "causeway.retention.hold";

/// What retention asks of a table.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Nothing is old enough, or the table keeps everything.
    Keep,
    /// Files are old enough, and a hold stops their drop.
    Held {
        /// The reason that the hold names.
        reason: String,
        /// How many files would be dropped.
        files: usize,
    },
    /// Whole days leave the table. Their files stay in the store for as long as a snapshot that is kept or pinned reads
    /// them.
    Drop {
        /// The newest of the days, days since 1970-01-01.
        newest: i32,
        /// The change to commit.
        change: DeleteFiles,
    },
}

/// A property that cannot be read: nothing is dropped until it is corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{RETENTION_DAYS} = {value:?} is no number of days from 1 on: nothing is dropped")]
pub struct Unreadable {
    /// The value found.
    pub value: String,
}

/// Plans the drop of the days that a table does not keep, of its live files by location and day partition. Files
/// without a day are never dropped: their rows may be of any time. `today` is the current day, days since 1970-01-01
/// (UTC).
///
/// # Errors
/// [`RETENTION_DAYS`] is no number of days.
pub fn plan<'f>(
    files: impl IntoIterator<Item = (&'f str, Option<i32>)>,
    properties: &HashMap<String, String>,
    today: i32,
) -> Result<Plan, Unreadable> {
    let Some(value) = properties.get(RETENTION_DAYS) else { return Ok(Plan::Keep) };
    // 0 is refused: a mistyped value must not empty a table.
    let days = value.trim().parse::<i32>().ok().filter(|days| *days > 0);
    let days = days.ok_or_else(|| Unreadable { value: value.clone() })?;
    let first_kept = today.saturating_sub(days);
    let mut old = BTreeSet::new();
    let mut newest = i32::MIN;
    for (location, day) in files {
        let Some(day) = day.filter(|day| *day < first_kept) else { continue };
        newest = newest.max(day);
        old.insert(location.to_owned());
    }
    if old.is_empty() {
        return Ok(Plan::Keep);
    }
    Ok(match properties.get(RETENTION_HOLD) {
        Some(reason) => Plan::Held { reason: reason.clone(), files: old.len() },
        None => Plan::Drop { newest, change: DeleteFiles { files: old } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, Option<i32>); 5] =
        [("a", Some(10)), ("b", Some(10)), ("c", Some(11)), ("d", Some(13)), ("e", None)];

    fn plan_of(properties: &[(&str, &str)]) -> Result<Plan, Unreadable> {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        plan(FILES, &properties, 13)
    }

    #[test]
    fn whole_days_before_those_that_are_kept_are_dropped() {
        for (days, dropped, last) in [("1", vec!["a", "b", "c"], 11), ("2", vec!["a", "b"], 10)] {
            let Ok(Plan::Drop { newest, change }) = plan_of(&[(RETENTION_DAYS, days)]) else { panic!("{days}") };
            assert_eq!((newest, change.files.iter().map(String::as_str).collect::<Vec<_>>()), (last, dropped));
        }
        for keeps in [vec![], vec![(RETENTION_DAYS, "3")], vec![(RETENTION_DAYS, "2147483647")]] {
            assert!(matches!(plan_of(&keeps), Ok(Plan::Keep)), "{keeps:?}");
        }
    }

    #[test]
    fn a_hold_stops_every_drop_and_says_why() {
        for reason in ["case 4711", ""] {
            let held = plan_of(&[(RETENTION_DAYS, "1"), (RETENTION_HOLD, reason)]);
            assert!(matches!(&held, Ok(Plan::Held { reason: why, files: 3 }) if why == reason), "{held:?}");
        }
        assert!(matches!(plan_of(&[(RETENTION_DAYS, "9"), (RETENTION_HOLD, "x")]), Ok(Plan::Keep)));
    }

    #[test]
    fn a_number_of_days_that_cannot_be_read_drops_nothing() {
        for value in ["0", "-1", "1y", "", "99999999999"] {
            assert_eq!(plan_of(&[(RETENTION_DAYS, value)]).unwrap_err(), Unreadable { value: value.to_owned() });
        }
    }
}
