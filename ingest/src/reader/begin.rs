//! Where and how reading a partition begins.

use event_schema::position::{NextOffset, TopicPartition};
use stream::{Beginning, LogIdentity, SourceError, Watermarks};

use super::{FromLog, Open, Reader, ReaderError};
use crate::mark::Mark;
use crate::options::OnGap;

/// Where to begin, and the log that is expected there.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// The partition's name in the tables.
    pub(crate) at: TopicPartition,
    pub(crate) next: NextOffset,
    /// Lowest offset among the tables that have seen the log: what lies behind it must not be missed. `None` when no
    /// table has seen it.
    pub(crate) held: Option<NextOffset>,
    /// The log as `bronze.messages` records it; absent when that table has never seen it.
    pub(crate) mark: Option<Mark>,
    /// The identity of the log that this run has read from, when it begins anew.
    pub(crate) identity: Option<String>,
}

impl Position {
    /// The identity of the log where `found` was given: one that is known already stays known where brokers give none.
    fn identity_of(&self, found: String) -> String {
        let known = self.identity.as_ref().or(self.mark.as_ref().map(|mark| &mark.identity));
        known.filter(|_| found == LogIdentity::UNKNOWN).cloned().unwrap_or(found)
    }

    /// Compares the log with the one that this run, and then the tables, have read from; gives its identity.
    fn compare(&self, found: &Beginning) -> Result<String, ReaderError> {
        let at = self.at.without_generation();
        let is = found.state.identity.0.clone();
        if let Some(expected) = &self.identity
            && LogIdentity::are_different(expected, &is)
        {
            return Err(ReaderError::Recreated { at, expected: expected.clone(), found: is });
        }
        let identity = self.identity_of(is);
        let Some(mark) = &self.mark else { return Ok(identity) };
        if LogIdentity::are_different(&mark.identity, &identity) {
            return Err(ReaderError::Recreated { at, expected: mark.identity.clone(), found: identity });
        }
        // The end, not the high watermark: after a power failure the spool has whole records that it does not show as
        // synced, and they may have landed.
        if mark.next > found.end {
            return Err(ReaderError::Truncated { at, next: mark.next, end: found.end });
        }
        if mark.is_rewritten(found.state.fingerprint) {
            return Err(ReaderError::Rewritten { at, next: mark.next });
        }
        Ok(identity)
    }
}

impl Reader {
    /// Begins to read the partitions that wait for it: all together, which asks the log as often as one of them does.
    /// Where one of them keeps the others from it, each by itself.
    pub(super) fn start_next(&mut self) -> Result<(), ReaderError> {
        // What was read before a gap is handed over before the place is reported at which reading goes on behind it.
        if !self.is_drained() {
            return Ok(());
        }
        // Partitions may have been revoked since.
        self.alone = self.alone.min(self.waiting.len());
        if self.alone == 0 && self.waiting.len() > 1 {
            self.start_all();
            return Ok(());
        }
        let Some(position) = self.waiting.pop_front() else { return Ok(()) };
        self.alone = self.alone.saturating_sub(1);
        self.start_alone(position)
    }

    fn start_all(&mut self) {
        let positions = Vec::from(std::mem::take(&mut self.waiting));
        match self.start(&positions) {
            Ok(started) => self.outbox.extend(started),
            // Which partition it is, and what follows, is found by starting each: an error leaves none started.
            Err(error) => {
                tracing::debug!(%error, partitions = positions.len(), "not started together");
                self.alone = positions.len();
                self.waiting.extend(positions);
            }
        }
    }

    fn start_alone(&mut self, position: Position) -> Result<(), ReaderError> {
        match self.start(std::slice::from_ref(&position)) {
            Ok(started) => self.outbox.extend(started),
            // Revoked since the service asked for it.
            Err(ReaderError::Source(SourceError::NotAssigned(at))) => tracing::debug!(%at, "no longer ours"),
            // A rebalance is still to be polled: the partition may be among what it revokes.
            Err(ReaderError::Source(SourceError::Rebalanced)) => self.waiting.push_back(position),
            Err(ReaderError::Source(error)) if error.is_transient() => self.start_later(position, &error),
            // Retention has gone on since the log was asked where it begins: it is asked again.
            Err(ReaderError::Overtaken { low, .. }) if self.may_skip_to(low, &position) => {
                self.waiting.push_back(position);
            }
            // The log is not the one that the tables were filled from. `hand_over_replaced` stops or follows, by
            // `ingest.on_new_log`.
            Err(evidence) if evidence.is_other_log() => {
                self.started.remove(&position.at.without_generation());
                self.note_replaced(position.at, evidence);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn start_later(&mut self, position: Position, error: &SourceError) {
        let at = &position.at;
        let reason = service_kit::run::report(error);
        tracing::warn!(%at, reason, "reading cannot begin yet; trying again");
        self.readable.unmet(format!("{at} cannot be read yet: {reason}"));
        self.waiting.push_back(position);
    }

    /// Notes that the log behind a partition is another one now. `log` is the partition's name in the tables.
    pub(super) fn note_replaced(&mut self, log: TopicPartition, evidence: ReaderError) {
        tracing::warn!(at = %log, "{evidence}");
        let at = log.without_generation();
        self.reported.remove(&at);
        // Only a topic that was made anew can explain a refused position without a partition (`judge_doubted`).
        if matches!(evidence, ReaderError::Recreated { .. }) {
            self.replacing.insert(at);
        }
        self.replaced.push_back((log, evidence));
    }

    /// Begins to read partitions, after checking that their logs are still the ones the tables were filled from. An
    /// error leaves none of them started.
    fn start(&mut self, positions: &[Position]) -> Result<Vec<FromLog>, ReaderError> {
        let asked = positions.iter().map(|position| {
            let landed = position.mark.as_ref().map(|mark| mark.next);
            (position.at.without_generation(), landed)
        });
        let asked: Vec<_> = asked.collect();
        // The identities are asked for before everything else: should a topic be made anew after this answer, the next
        // check finds another identity before any message is handed over.
        let found = self.source.beginnings(&asked)?;
        let mut begins = Vec::with_capacity(positions.len());
        let mut events = Vec::with_capacity(positions.len());
        for (position, found) in positions.iter().zip(&found) {
            let identity = position.compare(found)?;
            let Watermarks { low, high } = found.state.watermarks;
            // Where a gap is not to be recorded the position stays below the low watermark, and `Source::start` refuses
            // it with an error that names both offsets.
            let begin = if self.may_skip_to(low, position) { position.next.max(low) } else { position.next };
            begins.push((position.at.without_generation(), begin));
            events.push(FromLog::Started { at: position.at.clone(), begin, identity, high });
        }
        self.source.start(&begins)?;
        let partitions: Vec<_> = begins.into_iter().map(|(at, _)| at).collect();
        // A start makes the client fetch, also while the log is paused for want of memory.
        if self.is_paused {
            self.source.pause(&partitions)?;
        }
        for (at, event) in partitions.into_iter().zip(&events) {
            self.replacing.remove(&at);
            if let FromLog::Started { at: log, identity, .. } = event {
                self.started.insert(at, Open { log: log.clone(), identity: identity.clone() });
            }
        }
        // With the next check `undecided` is reported anew, for the partitions that are read now.
        self.undecided.clear();
        Ok(events)
    }

    /// Whether reading may begin at `low` although the position lies before it.
    fn may_skip_to(&self, low: NextOffset, position: &Position) -> bool {
        // A log that no table has seen may begin anywhere.
        position.held.is_none_or(|held| held >= low) || self.rules.on_gap == OnGap::Record
    }
}
