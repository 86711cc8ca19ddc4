//! What ingest cannot read again of what a roll back takes out of a table.

use std::collections::BTreeMap;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use ingest::{Mark, newest_log};
use lake::TableSnapshot;
use stream::{LogIdentity, LogState, Watermarks};

/// What `bronze.messages` records of logs.
#[derive(Debug)]
pub(super) struct Recorded {
    /// Every log that has landed anything.
    landed: Vec<TopicPartition>,
    marks: BTreeMap<TopicPartition, Mark>,
}

impl Recorded {
    /// With the marks of the logs of these ranges.
    pub(super) fn of(bronze: &TableSnapshot, ranges: &[OffsetRange]) -> Self {
        let marks =
            ranges.iter().filter_map(|range| Some((range.at.clone(), Mark::of(bronze.properties(), &range.at)?)));
        Self { landed: bronze.offsets().into_keys().collect(), marks: marks.collect() }
    }

    /// The partitions of these ranges, each with the offset below which the log shows whether it is the same.
    pub(super) fn asked(&self, ranges: &[OffsetRange]) -> Vec<(TopicPartition, NextOffset)> {
        let asked = ranges.iter().map(|range| {
            let next = self.marks.get(&range.at).map(|mark| mark.next).unwrap_or_default();
            (range.at.without_generation(), next)
        });
        asked.collect()
    }

    /// Whether ingest takes the log that is there now for this one of the tables.
    fn is_same(&self, log: &TopicPartition, now: &LogState) -> bool {
        if newest_log(&log.without_generation(), &self.landed).generation() > log.generation() {
            return false;
        }
        // As ingest compares them when it begins to read. A log that has become shorter was truncated, and what is in
        // it now may be written anew.
        self.marks.get(log).is_none_or(|mark| {
            !LogIdentity::are_different(&mark.identity, &now.identity.0)
                && mark.next <= now.watermarks.high
                && !mark.is_rewritten(now.fingerprint)
        })
    }
}

/// What of these ranges ingest does not find any more. `logs` has the log behind the partition of each range.
pub(super) fn lost(ranges: &[OffsetRange], logs: &[Option<LogState>], recorded: &Recorded) -> Vec<OffsetRange> {
    ranges.iter().zip(logs).flat_map(|(range, log)| lost_of(range, log.as_ref(), recorded)).collect()
}

fn lost_of(range: &OffsetRange, log: Option<&LogState>, recorded: &Recorded) -> Vec<OffsetRange> {
    let Some(log) = log.filter(|log| recorded.is_same(&range.at, log)) else { return vec![range.clone()] };
    let Watermarks { low, high } = log.watermarks;
    let deleted = OffsetRange::new(range.at.clone(), range.start, range.end.min(low.0));
    let cut_off = OffsetRange::new(range.at.clone(), range.start.max(high.0), range.end);
    [deleted, cut_off].into_iter().filter(|lost| !lost.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn range(generation: u32, start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(at().of_generation(generation), start, end)
    }

    fn log(identity: &str, low: i64, high: i64) -> LogState {
        let watermarks = Watermarks { low: NextOffset(low), high: NextOffset(high) };
        LogState { identity: LogIdentity(identity.to_owned()), watermarks, fingerprint: None }
    }

    /// The generations that have landed, and the mark of the newest.
    fn recorded(generations: u32, mark: Option<(&str, i64)>) -> Recorded {
        let mark = mark.map(|(identity, next)| Mark {
            next: NextOffset(next),
            fingerprint: None,
            identity: identity.to_owned(),
        });
        Recorded {
            landed: (1..=generations).map(|generation| at().of_generation(generation)).collect(),
            marks: mark.map(|mark| (at().of_generation(generations), mark)).into_iter().collect(),
        }
    }

    #[test]
    fn what_retention_has_deleted_and_what_was_cut_off_is_lost() {
        for (low, high, expected) in [
            (0, 20, vec![]),
            (10, 20, vec![]),
            (13, 20, vec![range(1, 10, 13)]),
            (20, 20, vec![range(1, 10, 20)]),
            (30, 40, vec![range(1, 10, 20)]),
            (0, 15, vec![range(1, 15, 20)]),
            (13, 15, vec![range(1, 10, 13), range(1, 15, 20)]),
            (0, 0, vec![range(1, 10, 20)]),
        ] {
            let found = lost(&[range(1, 10, 20)], &[Some(log("a", low, high))], &recorded(1, None));
            assert_eq!(found, expected, "{low} {high}");
        }
        assert_eq!(lost(&[range(1, 10, 20)], &[None], &recorded(1, None)), [range(1, 10, 20)], "it is gone");
    }

    #[test]
    fn nothing_of_a_former_log_is_read_again_although_the_table_has_nothing_of_the_newest() {
        let recorded = recorded(2, Some(("b", 50)));
        let ranges = [range(1, 10, 20), range(2, 0, 5)];
        let log = Some(log("b", 0, 50));
        assert_eq!(lost(&ranges, &[log.clone(), log], &recorded), [range(1, 10, 20)]);
    }

    #[test]
    fn another_log_of_the_same_name_holds_nothing_of_it() {
        for (identity, high, is_lost) in
            [("a", 50, false), ("b", 50, true), (LogIdentity::UNKNOWN, 50, false), ("a", 49, true)]
        {
            let found = lost(&[range(1, 10, 20)], &[Some(log(identity, 0, high))], &recorded(1, Some(("a", 50))));
            assert_eq!(!found.is_empty(), is_lost, "{identity} {high}");
        }
    }

    /// As of brokers without topic ids, or of a topic that was truncated and has grown again.
    #[test]
    fn a_log_whose_last_message_that_landed_is_another_one_holds_nothing_of_it() {
        let ranges = [range(1, 10, 20)];
        for (landed, now, is_lost) in
            [(Some(7), Some(7), false), (Some(7), Some(8), true), (Some(7), None, false), (None, Some(8), false)]
        {
            let mark = Mark { next: NextOffset(50), fingerprint: landed, identity: LogIdentity::UNKNOWN.to_owned() };
            let recorded = Recorded { landed: vec![at()], marks: BTreeMap::from([(ranges[0].at.clone(), mark)]) };
            assert_eq!(recorded.asked(&ranges), [(at(), NextOffset(50))]);
            let state = LogState { fingerprint: now, ..log(LogIdentity::UNKNOWN, 0, 60) };
            assert_eq!(!lost(&ranges, &[Some(state)], &recorded).is_empty(), is_lost, "{landed:?} {now:?}");
        }
    }
}
