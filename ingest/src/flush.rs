//! One batch on its way into every table, at the same time.

use std::sync::Arc;

use service_kit::run::Drain;

use crate::checkpoint::Draft;
use crate::forward::{Forwarder, Stray};
use crate::hand::Batch;
use crate::note::Note;
use crate::sink::{Landing, Sink, SinkError};

/// The sinks again, and the bytes that are free again.
pub(crate) type Flushed = Result<(Vec<Sink>, u64), SinkError>;

/// Where and when a batch lands.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) sinks: Vec<Sink>,
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
            "bronze.messages" => self.marks.clone(),
            "ops.ledger" => sink.keep(&self.drafts).await,
            _ => Vec::new(),
        }
    }
}

/// Forwards what belongs elsewhere, then lands the batch in every table, each on a thread of its own: encoding is work, not
/// waiting. Gives up where it stands when it is abandoned: the log still has what did not land.
pub(crate) async fn flush(destination: Destination, batch: Batch, notes: Notes) -> Flushed {
    let Destination { sinks, forwarder, how, abandoned } = destination;
    let bytes = batch.bytes;
    let strays: Vec<Stray> = batch.arrivals.iter().filter_map(Stray::of).collect();
    if let Some(forwarder) = forwarder.filter(|_| !strays.is_empty()) {
        forwarder.forward(strays, abandoned.clone()).await;
        if abandoned.is_cancelled() {
            return Err(SinkError::Abandoned);
        }
    }
    let (batch, notes) = (Arc::new(batch), Arc::new(notes));
    let runtime = tokio::runtime::Handle::current();
    let landing: Vec<_> = sinks
        .into_iter()
        .map(|mut sink| {
            let (batch, notes, runtime) = (Arc::clone(&batch), Arc::clone(&notes), runtime.clone());
            let abandoned = abandoned.clone();
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
    Ok((sinks, bytes))
}
