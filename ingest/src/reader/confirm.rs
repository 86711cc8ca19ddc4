//! Whether the log is still the one that reading began with.

use event_schema::position::{NextOffset, TopicPartition};
use service_kit::run::in_a_line;
use stream::{LogIdentity, SourceError};

use super::{FromLog, Open, Position, Reader, ReaderError};
use crate::options::OnGap;

impl Reader {
    /// Asks which logs are behind the partitions now. What was polled before belongs to the logs that reading began
    /// with where these are still there; what was polled of others is dropped.
    pub(super) fn confirm(&mut self) -> Result<(), ReaderError> {
        self.check.begin();
        let partitions: Vec<_> = self.started.keys().cloned().collect();
        let found = match self.source.identities(&partitions) {
            Ok(found) => found,
            // No broker answers. What was polled stays in `polled`, since it may be of another log, and `balance`
            // pauses the log.
            Err(error) if error.is_transient() => {
                self.show_unconfirmed(&error);
                self.check.fail();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if self.check.is_failing() {
            tracing::info!("the identity of the log is known again; reading goes on");
        }
        self.check.succeed();
        // `identities` answers in the order in which it was asked.
        for (at, LogIdentity(found)) in partitions.into_iter().zip(found) {
            let Some(open) = self.started.get_mut(&at) else { continue };
            if LogIdentity::are_different(&open.identity, &found) {
                let expected = open.identity.clone();
                self.abandon(&at, ReaderError::Recreated { at: at.clone(), expected, found });
            } else if open.identity == LogIdentity::UNKNOWN {
                // The brokers were upgraded and give identities from now on; the first one is taken as that of the log
                // being read.
                open.identity = found;
            }
        }
        // `abandon` has dropped what was polled of other logs. What is left was polled before the question was sent,
        // and a topic id is never given twice (KIP-516): the id that is there now was there when the message was
        // fetched.
        self.confirmed.append(&mut self.polled);
        self.polled_bytes = 0;
        self.judge_doubted()?;
        let undecided = self.source.undecided();
        if undecided != self.undecided {
            self.undecided.clone_from(&undecided);
            self.outbox.push_back(FromLog::Undecided(undecided));
        }
        Ok(())
    }

    /// Shows that the identity of the log is not known.
    fn show_unconfirmed(&self, error: &SourceError) {
        let reason = in_a_line(error);
        if !self.check.is_failing() {
            tracing::warn!(reason, "the identity of the log is not known; reading is paused until it is");
        }
        let doubted = self.doubted.front().map(|error| format!("; {}", in_a_line(error))).unwrap_or_default();
        self.readable.unmet(format!("the identity of the log is not known: {reason}{doubted}"));
    }

    /// Stops reading a partition whose log is another one now. What was confirmed of the former log is still handed
    /// over.
    fn abandon(&mut self, at: &TopicPartition, evidence: ReaderError) {
        let Some(open) = self.started.remove(at) else { return };
        self.polled.retain(|entry| entry.at() != Some(&open.log));
        self.note_replaced(open.log, evidence);
        // The client may refuse this, since the topic is gone. `polled` drops what still comes of the partition.
        if let Err(error) = self.source.pause(std::slice::from_ref(at)) {
            tracing::debug!(%at, %error, "not paused");
        }
    }

    /// Takes an error of a poll. One that another log of the same name may explain is judged after the identity was
    /// asked for (`judge_doubted`). Any other one ends reading at once: a broker that refuses the login, for example,
    /// does not answer with an identity either.
    pub(super) fn poll_failed(&mut self, error: ReaderError) -> Result<(), ReaderError> {
        // A failed fetch may be the first sign of a topic that was made anew.
        self.check.want();
        if matches!(&error, ReaderError::Source(error) if error.is_transient()) {
            return Ok(());
        }
        if !error.may_come_of_another_log() {
            return Err(error);
        }
        // The client repeats an error with each attempt: the first one of a partition is kept.
        if self.doubted.iter().all(|doubted| doubted.partition() != error.partition()) {
            self.doubted.push_back(error);
        }
        Ok(())
    }

    /// Judges the errors that came before the identity was asked for.
    fn judge_doubted(&mut self) -> Result<(), ReaderError> {
        while let Some(error) = self.doubted.pop_front() {
            let Some(at) = error.partition().cloned() else {
                self.pass_over(error)?;
                continue;
            };
            // The partition was abandoned or revoked since: the error is one of a log that is not read any more.
            let Some(open) = self.started.get(&at) else { continue };
            match error {
                // Retention has passed the position. The partition is started anew, which checks its identity and
                // reports where the log begins now; the service records the gap.
                ReaderError::Overtaken { next, .. } if self.rules.on_gap == OnGap::Record => {
                    let position = open.anew(next);
                    self.start_anew(position);
                }
                evidence if evidence.is_other_log() => self.abandon(&at, evidence),
                error => return Err(error),
            }
        }
        Ok(())
    }

    /// Passes over an error that names no partition, if a log that is another one now explains it.
    fn pass_over(&mut self, error: ReaderError) -> Result<(), ReaderError> {
        // A position of a topic that is gone may be the refused one. What truncated one partition may have truncated
        // others and they may have grown again: only a new start compares them with the tables.
        if !error.is_refused_position() || self.replacing.is_empty() {
            return Err(error);
        }
        tracing::info!(%error, "passed over: a log is another one");
        self.source.read_on();
        Ok(())
    }

    fn start_anew(&mut self, position: Position) {
        if self.waiting.iter().all(|waiting| waiting.at != position.at) {
            self.waiting.push_back(position);
        }
    }
}

impl Open {
    /// The position at which this log is started once more.
    fn anew(&self, next: NextOffset) -> Position {
        let identity = Some(self.identity.clone());
        Position { at: self.log.clone(), next, held: Some(next), mark: None, identity }
    }
}
