//! Offsets that are missing in front of a message, or at the end of what can be read. They are read a second time, beside the
//! polls of the group's consumer. A poll waits for a broker only where a second reading was refused or has found a message.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use event_schema::position::{Message, NextOffset, OffsetRange, TopicPartition};
use rdkafka::consumer::Consumer;

use super::{End, KafkaSource};
use crate::kafka::partitions::to_list;
use crate::kafka::stretch::{Reading, Stretch};
use crate::kafka::{Fault, code_of};
use crate::sequencer::Verdict;
use crate::source::{GapError, Source, SourceError, SourceEvent};

/// How often the second readings are looked at, and how long one look takes at most.
pub(super) const READ_AGAIN_EVERY: Duration = Duration::from_millis(20);
/// Second readings under way at most, as each has a client, a fetch queue and a broker's answer of its own.
const READINGS: usize = 2;
/// How often the ends of partitions are looked at.
const LOOK_AT_ENDS_EVERY: Duration = Duration::from_millis(250);
/// Pause after a second reading that the log did not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long readable offsets must not come before they are read a second time.
const STALLED_FOR: Duration = Duration::from_secs(1);

/// Missing offsets, and what is known of them.
#[derive(Default)]
pub(super) struct Missing {
    /// Messages that came behind missing offsets. Their partitions are fetched on once it is known what these hold.
    behind: BTreeMap<TopicPartition, Behind>,
    /// What can be read of partitions and does not come.
    stalled: BTreeMap<TopicPartition, Stalled>,
    /// When `stalled` was brought up to date.
    looked: Option<Instant>,
    /// What is being read a second time; the first one is read on next.
    readings: VecDeque<Reading>,
    /// What was read a second time.
    stretches: BTreeMap<TopicPartition, Stretch>,
    /// Why a second reading has not ended.
    trouble: BTreeMap<TopicPartition, String>,
}

/// A message that came behind missing offsets.
struct Behind {
    missing: OffsetRange,
    message: Message,
    /// The client is to be started behind the message: it does not fetch the partition.
    is_stopped: bool,
    /// When the offsets are read a second time.
    ask_at: Instant,
}

/// Offsets that can be read and do not come, from the next offset of a partition up to where its readable end was first seen.
#[derive(Debug, PartialEq, Eq)]
struct Stalled {
    range: OffsetRange,
    since: Instant,
}

impl Missing {
    pub(super) fn is_reading(&self) -> bool {
        !self.readings.is_empty()
    }

    /// Forgets a partition.
    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.behind.remove(at);
        self.stretches.remove(at);
        self.trouble.remove(at);
        self.stalled.remove(at);
        self.retire();
    }

    /// Notes that the client does not fetch a partition: it is started once the missing offsets are known. False when none are
    /// missing.
    pub(super) fn note_stopped(&mut self, at: &TopicPartition) -> bool {
        self.behind.get_mut(at).map(|behind| behind.is_stopped = true).is_some()
    }

    /// Why a message is kept back for long.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.iter().find(|(at, _)| self.behind.contains_key(*at)).map(|(_, reason)| reason.clone())
    }

    /// Whether the log holds no message in a range; `None` when it was not read.
    fn known(&self, range: &OffsetRange) -> Option<bool> {
        self.stretches.get(&range.at)?.is_empty(range)
    }

    /// Something waits for what the range holds.
    fn is_wanted(&self, range: &OffsetRange) -> bool {
        self.behind.get(&range.at).is_some_and(|behind| behind.missing == *range)
            || self.stalled.get(&range.at).is_some_and(|stalled| stalled.range == *range)
    }

    /// Ends the readings that nothing waits for any more.
    fn retire(&mut self) {
        let mut readings = std::mem::take(&mut self.readings);
        readings.retain(|reading| self.is_wanted(reading.range()));
        self.readings = readings;
    }

    /// The range to be read a second time next: of those that are due, the one that is due for longest. A range that
    /// nothing came behind is read while no other is, because nothing is kept back behind it.
    fn next_range(&self, now: Instant) -> Option<OffsetRange> {
        if self.readings.len() >= READINGS {
            return None;
        }
        let due = self.behind.values().filter(|behind| behind.ask_at <= now && self.is_unread(&behind.missing));
        let longest = due.min_by_key(|behind| behind.ask_at).map(|behind| &behind.missing);
        longest.or_else(|| self.stalled_range(now)).cloned()
    }

    /// The range that has stalled for longest, and for long enough.
    fn stalled_range(&self, now: Instant) -> Option<&OffsetRange> {
        if !self.readings.is_empty() {
            return None;
        }
        let stalled = self.stalled.values().filter(|stalled| stalled.is_for(STALLED_FOR, now));
        let due = stalled.filter(|stalled| self.is_unread(&stalled.range));
        due.min_by_key(|stalled| stalled.since).map(|stalled| &stalled.range)
    }

    /// A range was not read a second time, nor is it being read.
    fn is_unread(&self, range: &OffsetRange) -> bool {
        self.known(range).is_none() && self.readings.iter().all(|reading| reading.range() != range)
    }

    /// Reads a range again later.
    fn put_off(&mut self, range: &OffsetRange, now: Instant) {
        if let Some(behind) = self.behind.get_mut(&range.at).filter(|behind| behind.missing == *range) {
            behind.ask_at = now + ASK_AGAIN_AFTER;
        }
        if let Some(stalled) = self.stalled.get_mut(&range.at).filter(|stalled| stalled.range == *range) {
            stalled.since = now;
        }
    }

    /// Notes what does not come although it can be read, by the next offset of each partition that is read.
    fn look_at_ends<'a>(
        &mut self,
        positions: impl Iterator<Item = (&'a TopicPartition, NextOffset)>,
        ends: &BTreeMap<TopicPartition, End>,
        now: Instant,
    ) {
        let mut stalled = BTreeMap::new();
        for (at, next) in positions {
            let Some(End { stable, .. }) = ends.get(at) else { continue };
            if next.0 >= *stable || self.behind.contains_key(at) {
                continue;
            }
            // The end moves on while messages are written: what did not come by then is looked at.
            let before = self.stalled.remove(at);
            let before = before.filter(|before| before.range.start == next.0 && before.range.end <= *stable);
            let range = OffsetRange::new(at.clone(), next.0, *stable);
            stalled.insert(at.clone(), before.unwrap_or(Stalled { range, since: now }));
        }
        self.stalled = stalled;
        self.looked = Some(now);
    }

    /// A message whose missing offsets are known, or no longer expected.
    fn take_answered(&mut self, expected: impl Fn(&TopicPartition) -> Option<NextOffset>) -> Option<Behind> {
        let answered = self.behind.values().find(|Behind { missing, .. }| {
            expected(&missing.at) != Some(NextOffset(missing.start)) || self.known(missing).is_some()
        });
        let at = answered?.missing.at.clone();
        self.trouble.remove(&at);
        self.behind.remove(&at)
    }

    fn keep(&mut self, behind: Behind) {
        self.behind.entry(behind.missing.at.clone()).or_insert(behind);
    }
}

impl Stalled {
    fn is_for(&self, time: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= time
    }
}

impl KafkaSource {
    /// Keeps a message back until it is known what the offsets in front of it hold. When that is not known yet, its partition is
    /// not fetched meanwhile, and what the client has fetched of it already is fetched again.
    pub(super) fn keep_back(&mut self, missing: OffsetRange, message: Message) {
        let is_stopped = self.missing.known(&missing).is_none();
        if is_stopped && let Err(error) = self.stop_fetching(&to_list(std::slice::from_ref(&missing.at))) {
            self.pending.push_back(error);
        }
        self.missing.keep(Behind { missing, message, is_stopped, ask_at: Instant::now() });
    }

    /// Finds out about missing offsets, and passes those that hold no message.
    pub(super) fn pass_missing(&mut self) -> Result<Option<SourceEvent>, SourceError> {
        let now = Instant::now();
        // While other messages come, what is behind them may only not have had its turn.
        if self.is_drained
            && self.missing.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_AT_ENDS_EVERY)
        {
            let positions = self.sequencer.positions();
            let positions = positions.filter(|(at, _)| !self.paused.contains(*at) && !self.outside.contains(*at));
            self.missing.look_at_ends(positions, &self.consumer.context().ends(), now);
        }
        // What has come since the last look is not read a second time.
        let sequencer = &self.sequencer;
        self.missing.stalled.retain(|at, stalled| sequencer.expected(at) == Some(NextOffset(stalled.range.start)));
        self.missing.retire();
        self.read_again(now)?;
        if let Some(behind) = self.missing.take_answered(|at| self.sequencer.expected(at)) {
            return self.resolve(behind);
        }
        Ok(self.skip_stalled())
    }

    /// Begins a second reading where one is due, and takes what has come of one of those under way.
    fn read_again(&mut self, now: Instant) -> Result<(), SourceError> {
        if let Some(range) = self.missing.next_range(now) {
            self.missing.readings.push_back(Reading::begin(&self.config, range)?);
        }
        let Some(mut reading) = self.missing.readings.pop_front() else { return Ok(()) };
        match reading.advance(&self.config, READ_AGAIN_EVERY) {
            Ok(true) => {
                self.missing.trouble.remove(&reading.range().at);
                self.missing.stretches.insert(reading.range().at.clone(), reading.done());
            }
            Ok(false) if reading.is_stuck() => {
                let range = reading.range();
                tracing::warn!(%range, "missing offsets are not read on; a client of its own is opened for them anew");
                self.wait_for(range, "no broker gives them", now);
            }
            Ok(false) => self.missing.readings.push_back(reading),
            Err(source) => {
                let range = reading.range().clone();
                let fault = code_of(&source).map(Fault::of);
                self.wait_for(&range, &source.to_string(), now);
                if fault == Some(Fault::Position) {
                    // Retention or a truncation has passed the range; otherwise it is read again.
                    self.check_position(&range.at, NextOffset(range.start)).or_else(SourceError::wait)?;
                } else {
                    SourceError::from(self.config.failed("read offsets a second time", source)).wait()?;
                }
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, range: &OffsetRange, reason: &str, now: Instant) {
        self.missing.put_off(range, now);
        let reason = format!("{range} is to be read a second time, as offsets are missing: {reason}");
        self.missing.trouble.insert(range.at.clone(), reason);
    }

    /// The offsets in front of a message when they hold none, then the message, behind which the partition is fetched on.
    fn resolve(&mut self, behind: Behind) -> Result<Option<SourceEvent>, SourceError> {
        let missing = behind.missing.clone();
        let offset = behind.message.offset;
        if self.sequencer.expected(&missing.at) != Some(NextOffset(missing.start)) {
            self.rejoin.note(&behind.message);
            if behind.is_stopped
                && let Err(error) = self.fetch(&[(missing.at.clone(), NextOffset(offset + 1))])
            {
                self.missing.keep(behind);
                return error.wait().map(|()| None);
            }
            let is_next = self.sequencer.admit(&missing.at, offset) == Verdict::Take;
            return Ok(Some(SourceEvent::Messages(is_next.then_some(behind.message).into_iter().collect())));
        }
        if self.missing.known(&missing) == Some(true) {
            self.missing.keep(behind);
            self.sequencer.skip(&missing);
            return Ok(Some(SourceEvent::Skipped(missing)));
        }
        let low_watermark = self.watermarks(&missing.at).ok().map(|watermarks| watermarks.low);
        let expected = NextOffset(missing.start);
        Err(GapError { partition: missing.at, expected, got: offset, low_watermark }.into())
    }

    /// Offsets that do not come and hold no message. Nothing may follow soon that shows that they are passed.
    fn skip_stalled(&mut self) -> Option<SourceEvent> {
        let mut stalled = self.missing.stalled.values().map(|stalled| &stalled.range);
        let range = stalled.find(|range| self.missing.known(range) == Some(true))?.clone();
        self.missing.stalled.remove(&range.at);
        self.sequencer.skip(&range);
        Some(SourceEvent::Skipped(range))
    }
}

impl SourceError {
    /// Passes over an error after which the same is tried again.
    fn wait(self) -> Result<(), Self> {
        if self.is_transient() { Ok(()) } else { Err(self) }
    }
}

#[cfg(test)]
mod tests;
