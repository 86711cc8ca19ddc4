//! Sequence numbers and the running loss account of each stream. Pure. A number is used once a batch is in the spool,
//! so that a stream has no gap but those that were lost after it.

use std::collections::BTreeMap;

use event_schema::clock::Beacon;
use event_schema::identity::{EPOCHS_MAX, SEQS_MAX, first_seq};
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;
use event_schema::wire::HeaderDraft;

use crate::batcher::Cut;
use crate::identity::Identity;

/// The streams of one epoch.
#[derive(Debug)]
pub struct Numbering {
    identity: Identity,
    streams: BTreeMap<Stream, Account>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    next_seq: i64,
    /// Reported by the next header: what came with batches that did not reach the spool.
    unreported: LossCounters,
}

/// The number of an epoch is out of range. `Identity` never holds such a number, so that this is a defect of the
/// program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {0} is not one of the {EPOCHS_MAX} that a boot has")]
pub struct EpochOutOfRange(pub i64);

impl Numbering {
    pub fn new(identity: Identity) -> Self {
        Self { identity, streams: BTreeMap::new() }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// True when the batch's stream has numbers left for it. Those beyond are another stream's: a new epoch is due.
    pub fn has_room(&mut self, cut: &Cut) -> Result<bool, EpochOutOfRange> {
        let first = self.first(cut.stream)?;
        // Not negative: within an epoch a stream begins at `first` and only grows.
        let used = self.next_seq(cut.stream)? - first;
        Ok(used + cut.numbers() <= SEQS_MAX)
    }

    /// Begins a new epoch: every stream is numbered from its start. What was lost and not reported yet is reported in
    /// it.
    pub fn renew(&mut self, epoch: i64) -> Result<(), EpochOutOfRange> {
        self.identity.epoch = epoch;
        for (stream, account) in &mut self.streams {
            account.next_seq = first_seq(epoch, *stream).ok_or(EpochOutOfRange(epoch))?;
        }
        Ok(())
    }

    /// The header that a batch would have now.
    pub fn draft(&mut self, cut: &Cut, beacon: Beacon) -> Result<HeaderDraft, EpochOutOfRange> {
        // `unreported` is cleared by `spooled` only: if this message is not appended, the next draft has the same
        // losses again.
        let losses = self.account(cut.stream)?.unreported + cut.losses;
        let Identity { cluster, node, boot_id, epoch, agent } = self.identity.clone();
        Ok(HeaderDraft { kind: cut.kind, cluster, node, boot_id, epoch, stream: cut.stream, beacon, losses, agent })
    }

    /// The number that the next row of a stream gets.
    pub fn next_seq(&mut self, stream: Stream) -> Result<i64, EpochOutOfRange> {
        Ok(self.account(stream)?.next_seq)
    }

    /// The batch is in the spool: its numbers are used and its losses reported.
    pub fn spooled(&mut self, cut: &Cut) -> Result<(), EpochOutOfRange> {
        let account = self.account(cut.stream)?;
        // Not when the message was encoded: one that was not appended would leave a gap that no loss explains.
        account.next_seq += cut.numbers();
        account.unreported = LossCounters::default();
        Ok(())
    }

    /// The spool had no room: the rows are lost and counted, the losses are reported by the next batch.
    pub fn dropped(&mut self, cut: &Cut) -> Result<(), EpochOutOfRange> {
        let rows = cut.batch.num_rows() as u64;
        let account = self.account(cut.stream)?;
        account.unreported += LossCounters { spool_drop: cut.losses.spool_drop + rows, ..cut.losses };
        Ok(())
    }

    /// Takes back the account of a spooled message that turned out to be lost: the next batch of its stream reports
    /// `losses` (again). Those of an earlier epoch cannot be reported any more; there the missing numbers remain as the
    /// trace.
    pub fn rejected(&mut self, epoch: i64, stream: Stream, losses: LossCounters) -> Result<(), EpochOutOfRange> {
        if epoch == self.identity.epoch {
            self.account(stream)?.unreported += losses;
        }
        Ok(())
    }

    /// The streams that have losses to report and no batch to report them.
    pub fn unreported(&self) -> Vec<Stream> {
        let unreported = self.streams.iter().filter(|(_, account)| account.unreported != LossCounters::default());
        unreported.map(|(stream, _)| *stream).collect()
    }

    fn first(&self, stream: Stream) -> Result<i64, EpochOutOfRange> {
        first_seq(self.identity.epoch, stream).ok_or(EpochOutOfRange(self.identity.epoch))
    }

    fn account(&mut self, stream: Stream) -> Result<&mut Account, EpochOutOfRange> {
        let first = self.first(stream)?;
        Ok(self.streams.entry(stream).or_insert(Account { next_seq: first, unreported: LossCounters::default() }))
    }
}

#[cfg(test)]
impl Numbering {
    /// As if all numbers of a stream but `left` had been used.
    pub(crate) fn use_up(&mut self, stream: Stream, left: i64) {
        let end = first_seq(self.identity.epoch, stream).unwrap_or_default() + SEQS_MAX;
        self.streams.insert(stream, Account { next_seq: end - left, unreported: LossCounters::default() });
    }
}

#[cfg(test)]
mod tests;
