//! How the messages are cut into windows.

use lake::{ColumnRange, Value};

use crate::facts::TableFacts;

/// Messages of a window. Each takes about half a kibibyte while its window is read.
const MESSAGES: i64 = 400_000;

/// A half-open range of offsets, the same in every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    start: i64,
    end: i64,
}

/// Windows that each hold at most [`MESSAGES`], and all offsets together: rows may lie at offsets that no property knows of.
pub(super) fn cut(tables: &[TableFacts]) -> Vec<Offsets> {
    let partitions = tables.iter().map(|table| table.next.len()).max().unwrap_or(0);
    let width = (MESSAGES / i64::try_from(partitions.max(1)).unwrap_or(i64::MAX)).max(1);
    let end = tables.iter().flat_map(|table| table.next.values()).map(|next| next.0).max().unwrap_or(0);
    let mut windows = Vec::new();
    let mut start = i64::MIN;
    let mut next = width;
    while next < end {
        windows.push(Offsets { start, end: next });
        start = next;
        next = next.saturating_add(width);
    }
    windows.push(Offsets { start, end: i64::MAX });
    windows
}

impl Offsets {
    /// Leaves out the files that have no row of the window.
    pub(super) fn filter(self) -> [ColumnRange; 1] {
        [ColumnRange::between("log_offset", Some(Value::Long(self.start)), Some(Value::Long(self.end - 1)))]
    }

    pub(super) fn has(self, offset: i64) -> bool {
        (self.start..self.end).contains(&offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use event_schema::position::{NextOffset, TopicPartition};

    use super::*;

    fn table(next: &[i64]) -> TableFacts {
        let next = (0..).zip(next).map(|(partition, next)| (TopicPartition::new("t", partition), NextOffset(*next)));
        TableFacts { next: next.collect::<BTreeMap<_, _>>(), ..TableFacts::default() }
    }

    #[test]
    fn every_offset_is_in_one_window_and_a_window_has_at_most_so_many() {
        for tables in [
            vec![],
            vec![table(&[])],
            vec![table(&[10])],
            vec![table(&[MESSAGES])],
            vec![table(&[3 * MESSAGES + 1]), table(&[5, MESSAGES, 0, 1])],
        ] {
            let windows = cut(&tables);
            let partitions = tables.iter().map(|table| table.next.len() as i64).max().unwrap_or(0);
            assert_eq!(windows.first().map(|window| window.start), Some(i64::MIN));
            assert_eq!(windows.last().map(|window| window.end), Some(i64::MAX));
            assert!(windows.windows(2).all(|pair| pair[0].end == pair[1].start), "{windows:?}");
            let end = tables.iter().flat_map(|table| table.next.values()).map(|next| next.0).max().unwrap_or(0);
            for window in windows {
                assert!((window.end.min(end) - window.start.max(0)) * partitions <= MESSAGES, "{window:?}");
                assert!(window.has(window.start) && !window.has(window.end));
            }
        }
    }
}
