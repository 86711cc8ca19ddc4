//! One batch on its way into every table, at the same time.

use std::sync::Arc;
use std::time::Duration;

use event_schema::position::NextOffset;
use lake::Attachment;
use service_kit::run::Drain;
use tables::arrival::{Arrival, Rejection};

use crate::forward::{Forwarder, NOT_FORWARDED, Stray};
use crate::hand::Batch;
use crate::note::{Note, Remembered};
use crate::recover::Places;
use crate::sink::{Landing, Sink, SinkError};

/// The table that remembers the logs.
const BRONZE: &str = "bronze.messages";
/// The table that remembers what became of each message.
pub(crate) const LEDGER: &str = "ops.ledger";

/// A batch that has landed.
#[derive(Debug)]
pub(crate) struct Landed {
    /// The sinks again.
    pub(crate) sinks: Vec<Sink>,
    /// Memory that is free again.
    pub(crate) bytes: u64,
    /// Dead letters that were found only now: messages that their partitions did not take.
    pub(crate) refused: Vec<Arrival>,
}

pub(crate) type Flushed = Result<Landed, SinkError>;

/// Where and when a batch lands.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) sinks: Vec<Sink>,
    /// The first offsets of some log are in the batch: `bronze.messages` has them before any other table, because only it
    /// remembers which log they are of.
    pub(crate) begins: bool,
    pub(crate) forward: Forward,
    pub(crate) how: Landing,
    /// Cancelled when the result is no longer wanted.
    pub(crate) abandoned: Drain,
}

/// What tables are to remember with a batch.
pub(crate) struct Notes {
    /// In `bronze.messages`.
    pub(crate) marks: Vec<Note>,
    /// With `ops.ledger`.
    pub(crate) checkpoints: Vec<Attachment>,
}

impl Notes {
    fn of(&self, sink: &Sink) -> Remembered {
        match sink.name().as_str() {
            BRONZE => Remembered { notes: self.marks.clone(), ..Remembered::default() },
            LEDGER => Remembered { checkpoints: self.checkpoints.clone(), ..Remembered::default() },
            _ => Remembered::default(),
        }
    }
}

/// Forwards what belongs elsewhere, then lands the batch in every table, each on a thread of its own: encoding is work, not
/// waiting. Gives up where it stands when it is abandoned: the log still has what did not land.
pub(crate) async fn flush(destination: Destination, mut batch: Batch, notes: Notes) -> Flushed {
    let Destination { sinks, begins, forward, how, abandoned } = destination;
    let bytes = batch.bytes;
    let refused = forward.strays_of(&mut batch, &sinks, &abandoned).await?;
    let landing = Land { batch: batch.into(), notes: notes.into(), abandoned };
    let (first, rest): (Vec<_>, Vec<_>) = sinks.into_iter().partition(|sink| begins && sink.name() == BRONZE);
    // Also when it has no rows of them.
    let mut sinks = landing.in_all(first, Landing { idle_after: Duration::ZERO, ..how }).await?;
    // Whether a message could be forwarded is known from the ledger when it is read again.
    let (decides, rest): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|sink| !refused.is_empty() && sink.name() == LEDGER);
    sinks.extend(landing.in_all(decides, how).await?);
    sinks.extend(landing.in_all(rest, how).await?);
    Ok(Landed { sinks, bytes, refused })
}

/// How the messages that belong to other partitions come there.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Absent where the log is the spool.
    pub(crate) forwarder: Option<Arc<Forwarder>>,
    /// Messages that are dead letters in `ops.ledger` because they could not be forwarded.
    pub(crate) refused: Places,
}

impl Forward {
    /// Forwards the strays of a batch; returns those that become dead letters. What the ledger holds already is decided: such a
    /// message is not written a second time, and remains what it is there.
    async fn strays_of(self, batch: &mut Batch, sinks: &[Sink], abandoned: &Drain) -> Result<Vec<Arrival>, SinkError> {
        let Some(forwarder) = self.forwarder else { return Ok(Vec::new()) };
        let ledger = sinks.iter().find(|sink| sink.name() == LEDGER);
        let is_decided = |arrival: &Arrival| {
            ledger.is_some_and(|ledger| NextOffset(arrival.message.offset) < ledger.next(&arrival.message.at))
        };
        let strays = batch.arrivals.iter().enumerate().filter(|(_, arrival)| !is_decided(arrival));
        let strays: Vec<Stray> = strays.filter_map(Stray::of).collect();
        let mut reasons = Vec::new();
        for (index, Arrival { message, .. }) in batch.arrivals.iter().enumerate() {
            if self.refused.contains(&(message.at.clone(), message.offset)) {
                reasons.push((index, "it could not be forwarded when it was read before".to_owned()));
            }
        }
        if !strays.is_empty() {
            let refused = forwarder.forward(strays, abandoned.clone()).await;
            reasons.extend(refused.into_iter().map(|(stray, reason)| (stray.index, reason)));
        }
        if abandoned.is_cancelled() {
            return Err(SinkError::Abandoned);
        }
        let mut refused = Vec::new();
        for (index, reason) in reasons {
            let Some(arrival) = batch.arrivals.get_mut(index) else { continue };
            arrival.forwarded_to = None;
            arrival.outcome = Err(Rejection { cause: NOT_FORWARDED, detail: reason });
            refused.push(arrival.clone());
        }
        Ok(refused)
    }
}

/// A batch to land.
struct Land {
    batch: Arc<Batch>,
    notes: Arc<Notes>,
    abandoned: Drain,
}

impl Land {
    /// Lands it in several tables at the same time.
    async fn in_all(&self, sinks: Vec<Sink>, how: Landing) -> Result<Vec<Sink>, SinkError> {
        let runtime = tokio::runtime::Handle::current();
        let landing: Vec<_> = sinks
            .into_iter()
            .map(|mut sink| {
                let (batch, notes, runtime) = (Arc::clone(&self.batch), Arc::clone(&self.notes), runtime.clone());
                let abandoned = self.abandoned.clone();
                tokio::task::spawn_blocking(move || {
                    let landing = async {
                        let remembered = notes.of(&sink);
                        sink.land(&batch, &remembered, how).await
                    };
                    let landed = runtime.block_on(abandoned.run_until_cancelled(landing));
                    landed.unwrap_or(Err(SinkError::Abandoned)).map(|()| sink)
                })
            })
            .collect();
        let mut sinks = Vec::with_capacity(landing.len());
        for sink in landing {
            match sink.await {
                Ok(sink) => sinks.push(sink?),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        Ok(sinks)
    }
}

#[cfg(test)]
mod tests;
