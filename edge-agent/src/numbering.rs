//! Sequence numbers and the running loss account of each stream. Pure. A number is used once a batch is in the spool, so that
//! a stream has no gap but those that were lost after it.

use std::collections::BTreeMap;

use event_schema::clock::Beacon;
use event_schema::identity::{SEQS_MAX, first_seq};
use event_schema::loss::LossCounters;
use event_schema::wire::Header;

use crate::batcher::Cut;
use crate::identity::Identity;

/// The streams of one epoch.
#[derive(Debug)]
pub struct Numbering {
    identity: Identity,
    streams: BTreeMap<i32, Stream>,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    next_seq: i64,
    /// Told by the next header: what came with batches that did not reach the spool.
    untold: LossCounters,
}

/// A stream's number is out of range. Streams are constants, so that this is a defect of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stream {0} does not exist")]
pub struct NoSuchStream(pub i32);

impl Numbering {
    pub fn new(identity: Identity) -> Self {
        Self { identity, streams: BTreeMap::new() }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// True when the batch's stream has numbers left for it. Those beyond are another stream's: a new epoch is due.
    pub fn has_room(&mut self, cut: &Cut) -> Result<bool, NoSuchStream> {
        let first = self.first(cut.stream)?;
        let used = self.stream(cut.stream)?.next_seq - first;
        Ok(used + cut.batch.num_rows() as i64 <= SEQS_MAX)
    }

    /// Begins a new epoch: every stream is numbered from its start. What was lost and not told yet is told in it.
    pub fn renew(&mut self, epoch: i64) -> Result<(), NoSuchStream> {
        self.identity.epoch = epoch;
        for (number, stream) in &mut self.streams {
            stream.next_seq = first_seq(epoch, *number).ok_or(NoSuchStream(*number))?;
        }
        Ok(())
    }

    /// The header under which a batch would travel now.
    pub fn header(&mut self, cut: &Cut, beacon: Beacon) -> Result<Header, NoSuchStream> {
        let stream = *self.stream(cut.stream)?;
        let Identity { cluster, node, boot_id, epoch, agent } = self.identity.clone();
        Ok(Header {
            kind: cut.kind,
            cluster,
            node,
            boot_id,
            epoch,
            stream: cut.stream,
            first_seq: stream.next_seq,
            rows: 0,
            first_boot_ns: 0,
            last_boot_ns: 0,
            beacon,
            losses: stream.untold + cut.losses,
            agent,
        })
    }

    /// The batch is in the spool: its numbers are used and its losses told.
    pub fn spooled(&mut self, cut: &Cut) -> Result<(), NoSuchStream> {
        let stream = self.stream(cut.stream)?;
        stream.next_seq += cut.batch.num_rows() as i64;
        stream.untold = LossCounters::default();
        Ok(())
    }

    /// The spool had no room: the rows are lost and counted, the losses are told by the next batch.
    pub fn dropped(&mut self, cut: &Cut) -> Result<(), NoSuchStream> {
        let rows = cut.batch.num_rows() as u64;
        let stream = self.stream(cut.stream)?;
        stream.untold += LossCounters { spool_drop: cut.losses.spool_drop + rows, ..cut.losses };
        Ok(())
    }

    /// A spooled message turned out to be lost: the next batch of its stream tells `losses` (again). Of an epoch before this one
    /// nobody can tell any more; there the numbers that never arrive remain as the trace.
    pub fn rejected(&mut self, epoch: i64, number: i32, losses: LossCounters) -> Result<(), NoSuchStream> {
        if epoch == self.identity.epoch {
            self.stream(number)?.untold += losses;
        }
        Ok(())
    }

    /// The streams that have losses to tell and no batch to tell them.
    pub fn untold(&self) -> Vec<i32> {
        let mut streams: Vec<i32> = self.streams.keys().copied().collect();
        streams.retain(|number| self.streams[number].untold != LossCounters::default());
        streams
    }

    fn first(&self, number: i32) -> Result<i64, NoSuchStream> {
        first_seq(self.identity.epoch, number).ok_or(NoSuchStream(number))
    }

    fn stream(&mut self, number: i32) -> Result<&mut Stream, NoSuchStream> {
        let first = self.first(number)?;
        Ok(self.streams.entry(number).or_insert(Stream { next_seq: first, untold: LossCounters::default() }))
    }
}

#[cfg(test)]
impl Numbering {
    /// As if all numbers of a stream but `left` had been used.
    pub(crate) fn use_up(&mut self, number: i32, left: i64) {
        let end = first_seq(self.identity.epoch, number).unwrap_or_default() + SEQS_MAX;
        self.streams.insert(number, Stream { next_seq: end - left, untold: LossCounters::default() });
    }
}

#[cfg(test)]
mod tests;
