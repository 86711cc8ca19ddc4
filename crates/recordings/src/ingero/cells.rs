//! A cell of a recording, and the field of an event or another row that it becomes. SQLite allows a value of any type
//! in any column.

use chrono::DateTime;
use event_schema::batch::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo, ValueRef};

/// Times that a tracer can have written, unix nanoseconds: from the year 2000 to 2100. Seconds, milliseconds and
/// microseconds since 1970 are all below.
const TIMES_NS: std::ops::Range<i64> = 946_684_800_000_000_000..4_102_444_800_000_000_000;
/// 2^53: every integer up to it has an exact 64-bit floating-point number (IEEE 754).
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Characters of a text that an error message shows.
const SHOWN_CHARS: usize = 40;

/// A value as SQLite stores it. Bytes of a text that are not UTF-8 are replaced with U+FFFD.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Long(i64),
    Double(f64),
    Text(String),
    /// Also a text that is longer than a cell may be, see [`super::tables::CELL_BYTES_MAX`].
    Blob,
}

/// What a column should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Unix nanoseconds.
    Time,
    /// Unix nanoseconds, or 0 for none.
    TimeOrNone,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 31 bits: not negative.
    Count,
    /// A whole number of 64 bits.
    Long,
    /// A whole number of 63 bits: not negative.
    Span,
    /// A finite number.
    Double,
    Text,
    /// A whole number or a text: the name of the row.
    Id,
}

impl Holds {
    fn expected(self) -> &'static str {
        match self {
            Self::Time => "unix nanoseconds between the years 2000 and 2100",
            Self::TimeOrNone => "unix nanoseconds between the years 2000 and 2100, or 0 for none",
            Self::Int => "an integer of 32 bits",
            Self::Count => "an integer of 32 bits that is not negative",
            Self::Long => "an integer of 64 bits",
            Self::Span => "an integer of 64 bits that is not negative",
            Self::Double => "a finite number",
            Self::Text => "a text",
            Self::Id => "an integer or a text",
        }
    }

    fn admits(self, number: i64) -> bool {
        match self {
            Self::Time => TIMES_NS.contains(&number),
            Self::TimeOrNone => number == 0 || TIMES_NS.contains(&number),
            Self::Int => i32::try_from(number).is_ok(),
            Self::Count => (0..=i64::from(i32::MAX)).contains(&number),
            Self::Span => number >= 0,
            Self::Long | Self::Id | Self::Double | Self::Text => true,
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Self::Time | Self::TimeOrNone)
    }

    /// The value of a cell that fits; `None` for one that does not.
    fn value(self, cell: &Cell) -> Option<Value> {
        match (self, cell) {
            (_, Cell::Blob) => None,
            (_, Cell::Null) => Some(Value::Null),
            (Self::Text | Self::Id, Cell::Text(text)) => Some(Value::Text(text.clone())),
            (Self::Text, Cell::Long(number)) => Some(Value::Text(number.to_string())),
            (Self::Text, Cell::Double(_)) => None,
            // Infinity and NaN have no form in JSON, and one of them makes every mean of its column useless.
            (Self::Double, cell) => double(cell).filter(|number| number.is_finite()).map(Value::Double),
            (_, cell) => {
                let number = long(cell).filter(|number| self.admits(*number))?;
                // The reference writes 0 for a time that it does not have, such as the end of a session that goes on.
                let is_none = self == Self::TimeOrNone && number == 0;
                Some(if is_none { Value::Null } else { Value::Long(number) })
            }
        }
    }
}

/// A cell that does not hold what its column should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` holds {value}: expected {expected}")]
pub struct Misfit {
    /// The column of the recording.
    pub column: &'static str,
    /// What the cell holds, shortened.
    pub value: String,
    /// What it should hold.
    pub expected: &'static str,
}

/// The value of a cell of `column`.
///
/// # Errors
/// The cell does not fit.
pub(super) fn fit(column: &'static str, holds: Holds, cell: &Cell) -> Result<Value, Misfit> {
    holds.value(cell).ok_or_else(|| misfit(column, holds, cell))
}

/// The fault of a cell of `column` that does not fit.
pub(super) fn misfit(column: &'static str, holds: Holds, cell: &Cell) -> Misfit {
    let as_time = match (holds.is_time(), cell) {
        // As a date the usual fault shows: seconds or milliseconds read as nanoseconds lie in January 1970.
        (true, Cell::Long(ns)) => format!(", which is {}", DateTime::from_timestamp_nanos(*ns).format("%FT%TZ")),
        _ => String::new(),
    };
    Misfit { column, value: format!("{}{as_time}", cell.shown()), expected: holds.expected() }
}

/// A whole number, also one that was written as text or as floating point without loss.
#[expect(clippy::cast_possible_truncation, reason = "the guard admits whole numbers up to 2^53 only")]
fn long(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Long(number) => Some(*number),
        Cell::Text(text) => text.parse().ok(),
        // Above 2^53 neighbouring integers share a float: a time in nanoseconds would be silently rounded. Below, the
        // cast is exact.
        Cell::Double(number) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => Some(*number as i64),
        _ => None,
    }
}

fn double(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Long(number) => Some(*number as f64),
        Cell::Double(number) => Some(*number),
        Cell::Text(text) => text.parse().ok(),
        _ => None,
    }
}

impl Cell {
    /// Reads column `at` of a row.
    ///
    /// # Errors
    /// The row has no such column.
    pub(super) fn read(row: &SqliteRow, at: usize) -> Result<Self, sqlx::Error> {
        let raw = row.try_get_raw(at)?;
        // Asked first: sqlx reports the declared type of the column for a NULL, so that it would pass for a number.
        if raw.is_null() {
            return Ok(Self::Null);
        }
        let kind = raw.type_info().name().to_owned();
        Ok(match kind.as_str() {
            // Unchecked: `kind` is the type of this cell, which SQLite stores with each one
            // (sqlite.org/datatype3.html).
            "INTEGER" => Self::Long(row.try_get_unchecked(at)?),
            "REAL" => Self::Double(row.try_get_unchecked(at)?),
            "TEXT" => {
                let bytes: Vec<u8> = row.try_get_unchecked(at)?;
                // The kernel cuts names at 15 bytes (`TASK_COMM_LEN`), also within a character.
                Self::Text(
                    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
                )
            }
            _ => Self::Blob,
        })
    }

    /// As a message shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Long(number) => number.to_string(),
            Self::Double(number) => format!("{number:?}"),
            Self::Text(text) if text.chars().count() > SHOWN_CHARS => {
                format!("the text {:?}…", text.chars().take(SHOWN_CHARS).collect::<String>())
            }
            Self::Text(text) => format!("the text {text:?}"),
            Self::Blob => "a BLOB, or a text of more than 16 MiB".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(holds: Holds, cell: Cell) -> Option<Value> {
        fit("c", holds, &cell).ok()
    }

    #[test]
    fn a_number_fits_in_whichever_type_it_was_written_without_loss() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for cell in [Cell::Long(7), Cell::Double(7.0), text("7")] {
            assert_eq!(fitted(Holds::Count, cell.clone()), Some(Value::Long(7)), "{cell:?}");
            assert_eq!(fitted(Holds::Double, cell.clone()), Some(Value::Double(7.0)), "{cell:?}");
        }
        for cell in
            [Cell::Double(7.5), text("7.5"), text("seven"), text(""), text(" 7"), Cell::Double(1e300), Cell::Blob]
        {
            assert_eq!(fitted(Holds::Long, cell.clone()), None, "{cell:?}");
        }
        // As floating point it has lost its last digits.
        assert_eq!(fitted(Holds::Time, Cell::Double(1.78e18)), None);
        assert_eq!(fitted(Holds::Double, Cell::Double(f64::INFINITY)), None);
        assert_eq!(fitted(Holds::Double, text("NaN")), None);
    }

    #[test]
    fn null_stays_null_and_no_time_is_none() {
        for holds in [Holds::Time, Holds::Int, Holds::Long, Holds::Double, Holds::Text, Holds::Id] {
            assert_eq!(fitted(holds, Cell::Null), Some(Value::Null), "{holds:?}");
        }
        assert_eq!(fitted(Holds::TimeOrNone, Cell::Long(0)), Some(Value::Null));
        assert_eq!(fitted(Holds::Int, Cell::Long(0)), Some(Value::Long(0)));
    }

    #[test]
    fn a_number_out_of_range_is_named_with_what_was_expected() {
        let said = |holds, number| fit("c", holds, &Cell::Long(number)).unwrap_err().to_string();
        assert_eq!(said(Holds::Int, 4_294_967_295), "column `c` holds 4294967295: expected an integer of 32 bits");
        assert!(said(Holds::Count, -1).contains("holds -1: expected an integer of 32 bits that is not negative"));
        for time in [i64::MIN, -1, 0, 1_780_000_000, 1_780_000_000_000, i64::MAX] {
            assert!(said(Holds::Time, time).contains("expected unix nanoseconds between the years 2000 and 2100"));
        }
        let micros = said(Holds::Time, 1_780_000_000_000_000);
        assert!(micros.contains("holds 1780000000000000, which is 1970-01-21T14:26:40Z"), "{micros}");
    }

    #[test]
    fn a_text_is_shown_without_its_control_characters_and_not_whole() {
        assert_eq!(Cell::Text("a\u{1b}[2J\n".to_owned()).shown(), "the text \"a\\u{1b}[2J\\n\"");
        assert!(Cell::Text("x".repeat(1_000_000)).shown().len() < 100);
    }
}
