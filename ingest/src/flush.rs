//! One batch on its way into every table, at the same time.

use std::sync::Arc;

use service_kit::run::Drain;
use tables::arrival::Rejection;

use crate::checkpoint::Draft;
use crate::forward::{Forwarder, NOT_FORWARDED, Stray};
use crate::hand::Batch;
use crate::note::Note;
use crate::sink::{Landing, Sink, SinkError};

/// The table that remembers the logs.
const BRONZE: &str = "bronze.messages";

/// The sinks again, and the bytes that are free again.
pub(crate) type Flushed = Result<(Vec<Sink>, u64), SinkError>;

/// Where and when a batch lands.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) sinks: Vec<Sink>,
    /// The first messages of some log are in the batch: `bronze.messages` has them before any other table, because only it
    /// remembers which log they are of.
    pub(crate) begins: bool,
    /// Takes what belongs to other partitions. Absent where the log is the spool.
    pub(crate) forwarder: Option<Arc<Forwarder>>,
    pub(crate) how: Landing,
    /// Cancelled when the result is no longer wanted.
    pub(crate) abandoned: Drain,
}

/// What tables are to remember with a batch.
pub(crate) struct Notes {
    /// In `bronze.messages`.
    pub(crate) marks: Vec<Note>,
    /// Beside `ops.ledger`.
    pub(crate) drafts: Vec<Draft>,
}

impl Notes {
    async fn of(&self, sink: &Sink) -> Vec<Note> {
        match sink.name().as_str() {
            BRONZE => self.marks.clone(),
            "ops.ledger" => sink.keep(&self.drafts).await,
            _ => Vec::new(),
        }
    }
}

/// Forwards what belongs elsewhere, then lands the batch in every table, each on a thread of its own: encoding is work, not
/// waiting. Gives up where it stands when it is abandoned: the log still has what did not land.
pub(crate) async fn flush(destination: Destination, mut batch: Batch, notes: Notes) -> Flushed {
    let Destination { sinks, begins, forwarder, how, abandoned } = destination;
    let bytes = batch.bytes;
    let strays: Vec<Stray> = batch.arrivals.iter().enumerate().filter_map(Stray::of).collect();
    if let Some(forwarder) = forwarder.filter(|_| !strays.is_empty()) {
        for (stray, reason) in Arc::clone(&forwarder).forward(strays, abandoned.clone()).await {
            let Some(arrival) = batch.arrivals.get_mut(stray.index) else { continue };
            let (at, offset) = (&arrival.message.at, arrival.message.offset);
            tracing::warn!(%at, offset, "message is a dead letter: {reason}");
            arrival.forwarded_to = None;
            arrival.outcome = Err(Rejection { cause: NOT_FORWARDED, detail: reason });
            forwarder.count_refused();
        }
        if abandoned.is_cancelled() {
            return Err(SinkError::Abandoned);
        }
    }
    let landing = Land { batch: batch.into(), notes: notes.into(), how, abandoned };
    let (first, rest): (Vec<_>, Vec<_>) = sinks.into_iter().partition(|sink| begins && sink.name() == BRONZE);
    let mut landed = landing.in_all(first).await?;
    landed.extend(landing.in_all(rest).await?);
    Ok((landed, bytes))
}

/// A batch to land.
struct Land {
    batch: Arc<Batch>,
    notes: Arc<Notes>,
    how: Landing,
    abandoned: Drain,
}

impl Land {
    /// Lands it in several tables at the same time.
    async fn in_all(&self, sinks: Vec<Sink>) -> Result<Vec<Sink>, SinkError> {
        let runtime = tokio::runtime::Handle::current();
        let landing: Vec<_> = sinks
            .into_iter()
            .map(|mut sink| {
                let (batch, notes, runtime) = (Arc::clone(&self.batch), Arc::clone(&self.notes), runtime.clone());
                let (abandoned, how) = (self.abandoned.clone(), self.how);
                tokio::task::spawn_blocking(move || {
                    let landing = async {
                        let notes = notes.of(&sink).await;
                        sink.land(&batch, &notes, how).await
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
