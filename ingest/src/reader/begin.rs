//! Where and how reading a partition begins.

use event_schema::position::{NextOffset, TopicPartition};
use stream::{LogIdentity, SourceError, Watermarks};

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
}

impl Reader {
    /// Begins to read the next partition that waits for it.
    pub(super) fn start_next(&mut self) -> Result<(), ReaderError> {
        // What was read before a gap is handed over before the place is reported at which reading goes on behind it.
        if !self.is_drained() {
            return Ok(());
        }
        let Some(position) = self.waiting.pop_front() else { return Ok(()) };
        match self.start(&position) {
            Ok(started) => self.outbox.push_back(started),
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

    /// Begins to read a partition, after checking that the log is still the one the tables were filled from.
    fn start(&mut self, position: &Position) -> Result<FromLog, ReaderError> {
        let at = position.at.without_generation();
        // Asked before everything else: should the topic be made anew after this answer, the next check finds another
        // identity before any message is handed over.
        let found = self.source.identity(&at)?.0;
        if let Some(expected) = &position.identity
            && LogIdentity::are_different(expected, &found)
        {
            return Err(ReaderError::Recreated { at, expected: expected.clone(), found });
        }
        let identity = position.identity_of(found);
        let Watermarks { low, high } = self.source.watermarks(&at)?;
        if let Some(mark) = &position.mark {
            self.compare(&at, mark, &identity)?;
        }
        // Where a gap is not to be recorded the position stays below the low watermark, and `Source::start` refuses it
        // with an error that names both offsets.
        let begin = if self.may_skip_to(low, position) { position.next.max(low) } else { position.next };
        self.source.start(&[(at.clone(), begin)])?;
        // A start makes the client fetch, also while the log is paused for want of memory.
        if self.is_paused {
            self.source.pause(std::slice::from_ref(&at))?;
        }
        self.replacing.remove(&at);
        self.started.insert(at, Open { log: position.at.clone(), identity: identity.clone() });
        // With the next check `undecided` is reported anew, for the partitions that are read now.
        self.undecided.clear();
        Ok(FromLog::Started { at: position.at.clone(), begin, identity, high })
    }

    /// Whether reading may begin at `low` although the position lies before it.
    fn may_skip_to(&self, low: NextOffset, position: &Position) -> bool {
        // A log that no table has seen may begin anywhere.
        position.held.is_none_or(|held| held >= low) || self.rules.on_gap == OnGap::Record
    }

    fn compare(&mut self, at: &TopicPartition, mark: &Mark, identity: &str) -> Result<(), ReaderError> {
        let at = at.clone();
        let next = mark.next;
        if LogIdentity::are_different(&mark.identity, identity) {
            return Err(ReaderError::Recreated { at, expected: mark.identity.clone(), found: identity.to_owned() });
        }
        // The end, not the high watermark: after a power failure the spool has whole records that it does not show as
        // synced, and they may have landed.
        let end = self.source.end(&at)?;
        if next > end {
            return Err(ReaderError::Truncated { at, next, end });
        }
        if mark.is_rewritten(self.source.fingerprint(&at, next)?) {
            return Err(ReaderError::Rewritten { at, next });
        }
        Ok(())
    }
}
