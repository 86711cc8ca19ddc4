//! A piece of work on one table. It is idempotent: done a second time it finds that its inputs are gone. Which process
//! does it is agreed by a lease, whose name is the same for all processes that plan it.

use std::fmt;

use tables::def::TableName;

/// A piece of work on one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The table.
    pub table: TableName,
    /// The snapshot that it was planned on.
    pub base: i64,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done. A new kind of work is a variant here, its plan in a module of this crate, and its arm in
/// `Worker::perform` of the service.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Files are merged and sorted.
    Rewrite(Rewrite),
}

/// Files that become fewer, or sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewrite {
    /// Days since 1970-01-01 of the partition; `None` in an unpartitioned table.
    pub day: Option<i32>,
    /// The files that are read, in the order of their earliest rows.
    pub inputs: Vec<Input>,
    /// Files that are expected to be written.
    pub outputs: u64,
    /// Why these files.
    pub why: Why,
}

/// A file that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Full location, as the manifests name the file.
    pub location: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Rows of the file, as the manifests count them.
    pub rows: u64,
    /// The manifests say that its rows are in the table's sort order.
    pub is_sorted: bool,
    /// Bytes of its largest row group in the store: what a reader of it holds.
    pub row_group_bytes: u64,
    /// Bytes of a decoded row, estimated.
    pub row_bytes: u64,
}

/// Why files were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Enough files of about so many rows (a power of the fan-in) are there.
    Level(u32),
    /// Files that are too large for a level and too small for the target are enough for a file of the target size.
    NearTarget,
    /// The day is over: what is left of it is merged once.
    ClosedDay,
    /// The rows are not in the table's sort order.
    Unsorted,
}

/// What opening a file costs a reader, in bytes that it could have read meanwhile.
pub const OPEN_BYTES: u64 = 4 << 20;

impl Rewrite {
    /// Bytes that are read; about as many are written, and read again to be checked.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.size_bytes).sum()
    }

    /// Rows that are read.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|input| input.rows).sum()
    }

    /// What a reader of the whole partition saves for each byte that is rewritten, in bytes.
    pub fn gain(&self) -> f64 {
        let saved = (self.inputs.len() as u64).saturating_sub(self.outputs);
        // A file that is not sorted is read whole where a sorted one is read in part.
        let unsorted: u64 = self.inputs.iter().filter(|input| !input.is_sorted).map(|input| input.size_bytes).sum();
        (saved.saturating_mul(OPEN_BYTES).saturating_add(unsorted)) as f64 / self.bytes().max(1) as f64
    }
}

impl Task {
    /// The name of the lease. Two tasks of one table that may have an input in common have the same name.
    pub fn lease(&self) -> String {
        let Self { table, work: Work::Rewrite(rewrite), .. } = self;
        // A file belongs to one level of one day. Where a day is closed between two plans, levels and the day overlap:
        // then the replacement that comes second finds its inputs gone.
        format!("compact {table} {} {}", Day(rewrite.day), rewrite.why.group())
    }
}

impl Why {
    /// What shares no file with the others of a day.
    fn group(self) -> String {
        match self {
            Self::Level(level) => format!("level-{level}"),
            Self::NearTarget => "near-target".to_owned(),
            Self::ClosedDay => "closed".to_owned(),
            Self::Unsorted => "unsorted".to_owned(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "enough files of one size (level {level})"),
            Self::NearTarget => f.write_str("enough for a file of the target size"),
            Self::ClosedDay => f.write_str("the day is over"),
            Self::Unsorted => f.write_str("its rows are not in the table's sort order"),
        }
    }
}

/// Days since 1970-01-01, written as a date; `-` without a day.
#[derive(Debug, Clone, Copy)]
pub struct Day(pub Option<i32>);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(day) = self.0 else { return f.write_str("-") };
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`: years begin in March, so
        // that a leap day is the last of its year.
        let shifted = i64::from(day) + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day_of_month:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_a_date() {
        for (day, date) in [(0, "1970-01-01"), (-1, "1969-12-31"), (20_454, "2026-01-01"), (11_016, "2000-02-29")] {
            assert_eq!(Day(Some(day)).to_string(), date);
        }
        assert_eq!(Day(None).to_string(), "-");
    }

    #[test]
    fn tasks_of_different_groups_have_different_leases() {
        let lease = |day, why| {
            let rewrite = Rewrite { day, inputs: Vec::new(), outputs: 1, why };
            let table = TableName { namespace: "silver", name: "events" };
            Task { table, base: 1, work: Work::Rewrite(rewrite) }.lease()
        };
        assert_eq!(lease(Some(0), Why::Level(3)), "compact silver.events 1970-01-01 level-3");
        assert_eq!(lease(None, Why::Unsorted), "compact silver.events - unsorted");
    }
}
