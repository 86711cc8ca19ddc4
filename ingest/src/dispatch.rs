//! A closed batch on its way to the tables: what belongs to other partitions is forwarded, then each table gets its
//! share.

use std::sync::Arc;

use event_schema::position::NextOffset;
use lake::Attachment;
use service_kit::run::Drain;
use tables::arrival::{Arrival, Rejection};
use tables::registry::Content;

use crate::batch::{Batch, Charged};
use crate::forward::{Forwarder, NOT_FORWARDED, Stray};
use crate::note::Note;
use crate::recover::Places;
use crate::share::SharedBatch;
use crate::table_task::{TableTasks, TaskEnded, Urgency};

/// Why a batch did not reach the tables.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    #[error(transparent)]
    Table(#[from] TaskEnded),
    #[error("ingest has ended meanwhile")]
    Abandoned,
}

/// A closed batch, and how it is to land.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) batch: Batch,
    pub(crate) marks: Vec<Note>,
    pub(crate) checkpoints: Vec<Attachment>,
    /// The first offsets of some log are in the batch. The table of messages lands them before any other table, because
    /// it alone records which log they are of.
    pub(crate) begins: bool,
    pub(crate) forward: Forward,
    pub(crate) urgency: Urgency,
}

/// Forwards what belongs elsewhere, and posts their shares to the tables. Returns the dead letters that were found only
/// now: messages that their partitions did not take.
pub(crate) async fn dispatch(
    tables: Arc<TableTasks>,
    mut closed: Closed,
    abandoned: Drain,
) -> Result<Vec<Arrival>, DispatchError> {
    // Forwarded before anything is posted: once `ops.ledger` has a message as forwarded, it is not forwarded again, and
    // its copy must be in the log by then.
    let refused = closed.forward.strays_of(&mut closed.batch, &tables, &abandoned).await?;
    let Batch { arrivals, skipped, ends } = closed.batch;
    let arrivals = arrivals.into_iter().map(Arc::new).collect();
    let batch = SharedBatch { arrivals, skipped, ends, marks: closed.marks, checkpoints: closed.checkpoints };
    let mut done = Vec::new();
    if closed.begins {
        // `All`: the table has no rows of a log that begins with a gap or with offsets without a message. A crash
        // behind this step leaves the mark; in the other order rows could land of a log that no table names.
        tables.land(&batch, Urgency::All, Content::Messages).await?;
        done.push(Content::Messages);
    }
    if !refused.is_empty() {
        // Whether a message could be forwarded depends on the time, so it is decided once: when the message is read
        // again, the ledger has the decision (write-ahead).
        tables.land(&batch, Urgency::Rows.max(closed.urgency), Content::Ledger).await?;
        done.push(Content::Ledger);
    }
    tables.post(&batch, closed.urgency, &done);
    Ok(refused)
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
    /// Forwards the strays of a batch; returns those that become dead letters. What the ledger holds already is
    /// decided: such a message is not written a second time, and remains what it is there.
    async fn strays_of(
        self,
        batch: &mut Batch,
        tables: &TableTasks,
        abandoned: &Drain,
    ) -> Result<Vec<Arrival>, DispatchError> {
        let Some(forwarder) = self.forwarder else { return Ok(Vec::new()) };
        let mut strays = Vec::new();
        let mut reasons = Vec::new();
        for (index, Charged { arrival, .. }) in batch.arrivals.iter().enumerate() {
            let place = (arrival.message.at.clone(), arrival.message.offset);
            // Below the offset of the ledger its copy was acknowledged, or it is a dead letter.
            let decided = tables.next_of(Content::Ledger, &place.0);
            if decided.is_none_or(|next| NextOffset(place.1) >= next) {
                strays.extend(Stray::of((index, arrival)));
            }
            if self.refused.contains(&place) {
                reasons.push((index, "it could not be forwarded when it was read before".to_owned()));
            }
        }
        if !strays.is_empty() {
            let refused = forwarder.forward(strays, abandoned.clone()).await;
            reasons.extend(refused.into_iter().map(|(stray, reason)| (stray.index, reason)));
        }
        // The strays that are left were neither copied nor refused: the batch must not land, and is read again.
        if abandoned.is_cancelled() {
            return Err(DispatchError::Abandoned);
        }
        let mut refused = Vec::new();
        for (index, reason) in reasons {
            let Some(Charged { arrival, .. }) = batch.arrivals.get_mut(index) else { continue };
            arrival.forwarded_to = None;
            arrival.outcome = Err(Rejection { cause: NOT_FORWARDED, detail: reason });
            refused.push(arrival.clone());
        }
        Ok(refused)
    }
}

#[cfg(test)]
mod tests;
