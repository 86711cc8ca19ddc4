//! One batch on its way into every table, at the same time.

use std::sync::Arc;

use service_kit::run::Drain;

use crate::checkpoint::Draft;
use crate::hand::Batch;
use crate::note::Note;
use crate::sink::{Landing, Sink, SinkError};

/// The sinks again, and the bytes that are free again.
pub(crate) type Flushed = Result<(Vec<Sink>, u64), SinkError>;

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

/// Lands a batch in every table, each on a thread of its own: encoding is work, not waiting. Gives up where it stands when nobody
/// waits for it any more: the log still has what did not land.
pub(crate) async fn flush(sinks: Vec<Sink>, batch: Batch, notes: Notes, how: Landing, abandoned: Drain) -> Flushed {
    let bytes = batch.bytes;
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
