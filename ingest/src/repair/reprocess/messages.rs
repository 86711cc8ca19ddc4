//! The messages that are made again: which offsets of which partitions.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::TimestampMicrosecondType;
use event_schema::position::{OffsetRange, TopicPartition};
use futures::TryStreamExt;
use lake::{ColumnRange, TableSnapshot, Value};

use super::ReprocessError;
use crate::repair::columns::{Places, numbers};

/// Microseconds of a day.
pub(super) const DAY_US: i64 = 86_400_000_000;

/// The day of a time in unix microseconds, from 1970-01-01.
pub(super) fn day_of(us: i64) -> i32 {
    // Also before 1970. Any `i64` of microseconds is within some hundred million days.
    i32::try_from(us.div_euclid(DAY_US)).unwrap_or(i32::MAX)
}

/// Messages by partition: ranges that are disjoint, ascending and not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Messages(BTreeMap<TopicPartition, Vec<Range<i64>>>);

impl Messages {
    /// What a table has landed from these offsets on; nothing of a partition that is not among them.
    pub(super) fn since(begins: &BTreeMap<TopicPartition, i64>, head: &TableSnapshot) -> Self {
        let mut messages = Self::default();
        let gaps = head.gaps();
        for (at, next) in head.offsets() {
            // Nothing of this partition came since: its rows stay as they are.
            let Some(begin) = begins.get(&at) else { continue };
            messages.add(&at, *begin..next.0, &gaps);
        }
        messages
    }

    /// All that a table has landed.
    pub(super) fn all(head: &TableSnapshot) -> Self {
        let mut messages = Self::default();
        let gaps = head.gaps();
        head.offsets().into_iter().for_each(|(at, next)| messages.add(&at, 0..next.0, &gaps));
        messages
    }

    /// Adds a range without the gaps: of these the table holds no rows, and is to hold none.
    fn add(&mut self, at: &TopicPartition, range: Range<i64>, gaps: &[OffsetRange]) {
        let mut of_partition: Vec<_> = gaps.iter().filter(|gap| gap.at == *at).collect();
        of_partition.sort_unstable_by_key(|gap| gap.start);
        let mut start = range.start;
        let mut parts = Vec::new();
        for gap in of_partition {
            // Empty where the gap lies before the range, which the filter below removes.
            parts.push(start..gap.start.min(range.end));
            start = start.max(gap.end);
        }
        parts.push(start..range.end);
        parts.retain(|part| !part.is_empty());
        if !parts.is_empty() {
            self.0.insert(at.clone(), parts);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges of a partition.
    pub(super) fn of(&self, at: &TopicPartition) -> &[Range<i64>] {
        self.0.get(at).map_or(&[], Vec::as_slice)
    }

    pub(super) fn contains(&self, at: &TopicPartition, offset: i64) -> bool {
        self.of(at).iter().any(|range| range.contains(&offset))
    }

    pub(super) fn ranges(&self) -> Vec<OffsetRange> {
        let ranges = self.0.iter().flat_map(|(at, ranges)| ranges.iter().map(move |range| (at, range)));
        ranges.map(|(at, range)| OffsetRange::new(at.clone(), range.start, range.end)).collect()
    }

    /// From the first to the last offset of each partition, to narrow scans.
    pub(super) fn spans(&self) -> BTreeMap<TopicPartition, Range<i64>> {
        let spans =
            self.0.iter().filter_map(|(at, ranges)| Some((at.clone(), ranges.first()?.start..ranges.last()?.end)));
        spans.collect()
    }
}

/// The first offset of each partition that ingest read at or after a time, unix microseconds. A clock that was set back
/// leaves earlier times behind it: these messages count as later ones too, so that the rest of a partition is one range.
pub(super) async fn begins(
    bronze: &TableSnapshot,
    since_us: i64,
) -> Result<BTreeMap<TopicPartition, i64>, ReprocessError> {
    let mut begins: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let columns = ["log_name", "log_partition", "log_offset", "ingested_at"];
    let later = [ColumnRange::between("ingested_at", Some(Value::Timestamptz(since_us)), None)];
    let mut batches = bronze.scan_batches(&columns, &later).await.map_err(ReprocessError::unread(bronze))?;
    while let Some(batch) = batches.try_next().await.map_err(ReprocessError::unread(bronze))? {
        let places = Places::of(&batch).map_err(ReprocessError::misread(bronze))?;
        let arrived_us =
            numbers::<TimestampMicrosecondType>(&batch, "ingested_at").map_err(ReprocessError::misread(bronze))?;
        for row in (0..batch.num_rows()).filter(|row| arrived_us.value(*row) >= since_us) {
            let offset = places.offset(row);
            let begin = begins.entry(places.at(row)).or_insert(offset);
            *begin = (*begin).min(offset);
        }
    }
    Ok(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_gaps_are_left_out() {
        let at = TopicPartition::new("t", 0);
        let gap = |start, end| OffsetRange::new(at.clone(), start, end);
        let mut messages = Messages::default();
        messages.add(
            &at,
            5..20,
            &[gap(12, 14), gap(0, 7), gap(20, 25), OffsetRange::new(TopicPartition::new("u", 0), 8, 9)],
        );
        assert_eq!(messages.of(&at), [7..12, 14..20]);
        assert_eq!(messages.spans()[&at], 7..20);
        assert!(messages.contains(&at, 14) && !messages.contains(&at, 13) && !messages.contains(&at, 20));
        let mut none = Messages::default();
        none.add(&at, 5..9, &[gap(0, 9)]);
        assert!(none.is_empty());
    }

    #[test]
    fn a_day_before_1970_has_a_negative_number() {
        assert_eq!([0, DAY_US - 1, DAY_US, -1].map(day_of), [0, 0, 1, -1]);
    }
}
