//! How names, durations, times and counts are written in answers.

use std::borrow::Cow;

/// Text with its control characters escaped, so that a name cannot break a line or move the cursor.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        return Cow::Owned(text.chars().flat_map(escaped).collect());
    }
    Cow::Borrowed(text)
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let plain = (!c.is_control()).then_some(c);
    let escape = c.is_control().then(|| c.escape_default());
    plain.into_iter().chain(escape.into_iter().flatten())
}

/// `1 wait`, `2 waits`; the first word of several takes the ending.
pub(crate) fn count(n: u64, what: &str) -> String {
    let (noun, rest) = what.split_once(" of ").map_or((what, String::new()), |(noun, of)| (noun, format!(" of {of}")));
    let ending = match noun {
        _ if n == 1 => "",
        noun if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{n} {noun}{ending}{rest}")
}

/// A duration as Go writes it: `734.136µs`, `1.052216ms`, `1m2.5s`.
pub fn go_duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let body = match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(ns, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(ns, 6)),
        _ => {
            let minutes = ns / 60_000_000_000;
            let rest = ns % 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{}s", decimal(rest, 9)),
                (0, m) => format!("{m}m{}s", decimal(rest, 9)),
                (h, m) => format!("{h}h{m}m{}s", decimal(rest, 9)),
            }
        }
    };
    format!("{sign}{body}")
}

/// `value / 10^digits` without trailing zeros.
fn decimal(value: u64, digits: u32) -> String {
    let unit = 10_u64.pow(digits);
    let width = digits as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    // Zeros first, then the point: trimming both at once would turn "10.000" into "1".
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Unix nanoseconds as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(ns: i64) -> String {
    let days = ns.div_euclid(86_400_000_000_000);
    let of_day_ms = ns.rem_euclid(86_400_000_000_000) / 1_000_000;
    // Nanoseconds in an `i64` end in the year 2262, so that four digits are enough. RFC 3339 allows no other number.
    let (year, month, day) = civil(days);
    let hour = of_day_ms / 3_600_000;
    let minute = of_day_ms / 60_000 % 60;
    let second = of_day_ms / 1_000 % 60;
    let ms = of_day_ms % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar: counts from 1 March of year 0, so that the
/// leap day comes last (`civil_from_days` of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    // Days from 0000-03-01 to 1970-01-01. 146,097 days are an era of 400 years, after which the calendar repeats.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in every five, which gives their lengths without a table.
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
