//! The law of rows: every table of records holds, of each message, the rows that the ledger says landed.
//!
//! Both sides are summed by ranges of [`RANGE`] offsets of a log, so that a table is read once, in any order, and the memory is a few
//! bytes for thousands of messages. The sums of a range are the rows, and the rows weighted by a hash of their message's offset,
//! modulo 2^64. Rows that are missing of one message and too many of another leave the first sum as it is and change the second. That
//! both agree although some message differs by up to 16,384 rows has a probability of 2^-50 at most. Only the ranges that differ are
//! read a second time, message by message.

use std::collections::{BTreeMap, BTreeSet};

use event_schema::position::TopicPartition;

use crate::facts::{LedgerRow, TableFacts};
use crate::laws::{Law, Report};

/// Offsets that are summed together.
const RANGE: i64 = 4_096;
/// Ranges of a table that are read a second time: a million messages. Of a table that lost its files every range differs.
const LOOKED_AT: usize = 256;

/// What the ledger says landed, less what is there, of the messages of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Difference {
    rows: i64,
    weighted: u64,
}

impl Difference {
    fn add(&mut self, offset: i64, rows: i64) {
        self.rows = self.rows.wrapping_add(rows);
        self.weighted = self.weighted.wrapping_add(hash(offset).wrapping_mul(rows.cast_unsigned()));
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring offsets get unrelated weights.
fn hash(offset: i64) -> u64 {
    let mut mixed = offset.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The differences of all tables of records.
#[derive(Debug, Default)]
pub(super) struct Rows {
    tables: BTreeMap<String, RowsOfTable>,
}

#[derive(Debug)]
struct RowsOfTable {
    kind: String,
    ranges: BTreeMap<TopicPartition, BTreeMap<i64, Difference>>,
}

impl Rows {
    /// Begins with the tables of records and their kinds.
    pub(super) fn begin(tables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut rows = Self::default();
        for (table, kind) in tables {
            rows.tables.insert(table, RowsOfTable { kind, ranges: BTreeMap::new() });
        }
        rows
    }

    /// Adds what a message of the ledger has landed.
    pub(super) fn add_ledger(&mut self, row: &LedgerRow, tables: &BTreeMap<String, TableFacts>) {
        for (name, of_table) in &mut self.tables {
            if row.has_kind(&of_table.kind) && tables.get(name).is_some_and(|table| table.holds(row)) {
                of_table.add(&row.at, row.offset, row.landed);
            }
        }
    }

    /// Adds rows of a message that a table holds.
    pub(super) fn add_found(&mut self, table: &str, at: &TopicPartition, offset: i64, rows: i64) {
        if let Some(of_table) = self.tables.get_mut(table) {
            of_table.add(at, offset, rows.wrapping_neg());
        }
    }

    /// The ranges that differ, by table.
    pub(super) fn take_suspects(&mut self) -> Vec<Suspects> {
        let mut suspects = Vec::new();
        for (table, of_table) in std::mem::take(&mut self.tables) {
            let differing = of_table.differing();
            if !differing.is_empty() {
                suspects.push(Suspects::of(table, of_table.kind, differing));
            }
        }
        suspects
    }
}

impl RowsOfTable {
    /// The ranges of each log whose sums differ.
    fn differing(&self) -> Vec<(TopicPartition, i64)> {
        let mut differing = Vec::new();
        for (at, ranges) in &self.ranges {
            let of_log = ranges.iter().filter(|(_, found)| **found != Difference::default());
            differing.extend(of_log.map(|(range, _)| (at.clone(), *range)));
        }
        differing
    }

    fn add(&mut self, at: &TopicPartition, offset: i64, rows: i64) {
        let range = offset.div_euclid(RANGE);
        // Looked up before it is cloned: nearly always the partition is there.
        if !self.ranges.contains_key(at) {
            self.ranges.insert(at.clone(), BTreeMap::new());
        }
        if let Some(ranges) = self.ranges.get_mut(at) {
            ranges.entry(range).or_default().add(offset, rows);
        }
    }
}

/// Ranges of a table that differ from the ledger, and their messages as far as they were read again.
#[derive(Debug)]
pub(crate) struct Suspects {
    /// The table, as `namespace.name`.
    pub(crate) table: String,
    kind: String,
    /// The ranges that are to be read again.
    ranges: BTreeMap<TopicPartition, BTreeSet<i64>>,
    /// Those beyond [`LOOKED_AT`].
    rest: Vec<(TopicPartition, i64)>,
    /// Rows that the ledger has, and rows that the table has.
    messages: BTreeMap<(TopicPartition, i64), [i64; 2]>,
}

impl Suspects {
    fn of(table: String, kind: String, mut differing: Vec<(TopicPartition, i64)>) -> Self {
        let rest = differing.split_off(differing.len().min(LOOKED_AT));
        let mut ranges: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
        for (at, range) in differing {
            ranges.entry(at).or_default().insert(range);
        }
        Self { table, kind, ranges, rest, messages: BTreeMap::new() }
    }

    /// The first and the last offset that may be of interest.
    pub(crate) fn span(&self) -> (i64, i64) {
        let first = self.ranges.values().filter_map(BTreeSet::first).min().copied().unwrap_or(0);
        let last = self.ranges.values().filter_map(BTreeSet::last).max().copied().unwrap_or(0);
        (first.saturating_mul(RANGE), last.saturating_mul(RANGE).saturating_add(RANGE - 1))
    }

    fn message(&mut self, at: &TopicPartition, offset: i64) -> Option<&mut [i64; 2]> {
        self.ranges.get(at)?.get(&offset.div_euclid(RANGE))?;
        Some(self.messages.entry((at.clone(), offset)).or_default())
    }

    /// Adds what a message of the ledger has landed.
    pub(crate) fn add_ledger(&mut self, row: &LedgerRow, table: &TableFacts) {
        if row.has_kind(&self.kind)
            && table.holds(row)
            && let Some([wanted, _]) = self.message(&row.at, row.offset)
        {
            *wanted += row.landed;
        }
    }

    /// Adds rows of a message that the table holds.
    pub(crate) fn add_found(&mut self, at: &TopicPartition, offset: i64, rows: i64) {
        if let Some([_, found]) = self.message(at, offset) {
            *found += rows;
        }
    }

    pub(super) fn report(self, report: &mut Report) {
        for ((at, offset), [wanted, found]) in self.messages {
            if wanted != found {
                let what = format!("offset {offset}: {found} rows, the ledger says {wanted}");
                report.add(Law::Rows, &self.table, &at, what);
            }
        }
        // Behind the messages, which say more: places are listed up to a number.
        for (at, range) in self.rest {
            let start = range.saturating_mul(RANGE);
            let what = format!("offsets {start}-{}: other rows than the ledger says", start.saturating_add(RANGE));
            report.add(Law::Rows, &self.table, &at, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    #[test]
    fn rows_that_moved_from_one_message_to_another_leave_a_difference() {
        let mut sound = Difference::default();
        let mut moved = Difference::default();
        for offset in 0..RANGE {
            sound.add(offset, 10);
            moved.add(offset, 10);
        }
        for offset in (0..RANGE).rev() {
            sound.add(offset, -10);
            moved.add(
                offset,
                if offset == 7 {
                    -9
                } else if offset == 8 {
                    -11
                } else {
                    -10
                },
            );
        }
        assert_eq!(sound, Difference::default());
        assert_eq!(moved.rows, 0);
        assert_ne!(moved, Difference::default());
    }

    #[test]
    fn of_a_table_that_lost_everything_some_messages_are_named_and_the_other_ranges_counted() {
        let mut rows = Rows::begin([("silver.events".to_owned(), "event".to_owned())]);
        let ranges = i64::try_from(LOOKED_AT).unwrap() + 3;
        for range in 0..ranges {
            rows.add_found("silver.events", &at(), range * RANGE, 5);
        }
        let mut report = Report::default();
        let mut suspects = rows.take_suspects().pop().unwrap();
        assert_eq!(suspects.span(), (0, (ranges - 3) * RANGE - 1));
        suspects.add_found(&at(), 3 * RANGE, 5);
        suspects.add_found(&at(), (ranges - 1) * RANGE, 5);
        suspects.report(&mut report);
        let broken: Vec<String> = report.into_broken().into_iter().map(|broken| broken.what).collect();
        assert_eq!(broken.len(), 3 + 1, "three ranges, and the message that was read again: {broken:?}");
        assert_eq!(broken[0], format!("offset {}: 5 rows, the ledger says 0", 3 * RANGE), "before the ranges");
    }
}
