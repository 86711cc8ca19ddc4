//! A message on its way into the tables: decoded or rejected, and reduced to the rows that were not seen before.

use std::ops::Range;

use arrow::array::RecordBatch;
use event_schema::codec::Codec;
use event_schema::position::{Message, OffsetRange, TopicPartition};
use event_schema::wire::{Decoded, Header};

use crate::seen::Seen;

/// Why a message could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A short stable word, for counters and `ops.dlq.cause`.
    pub cause: &'static str,
    /// The full reason.
    pub detail: String,
}

/// One message and its outcome. Its rows in every table are a function of this value (ADR 40).
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// The message as the log holds it.
    pub message: Message,
    /// When ingest read the message first, unix microseconds: `ingested_at` of its rows. `bronze.messages` keeps it.
    pub arrived_us: i64,
    /// The format that the message states of its payload.
    pub codec: Codec,
    /// The decoded payload, or why it is a dead letter.
    pub outcome: Result<Decoded, Rejection>,
    /// The rows of the batch that no earlier message of the log carried, as ranges of row numbers. Without any range
    /// the message is a repetition.
    pub fresh: Vec<Range<u32>>,
    /// The partition that the message belongs to, when it is another one: a copy of it is written there, whose rows
    /// land.
    pub forwarded_to: Option<TopicPartition>,
}

impl Arrival {
    /// Decodes a message that was read first at `arrived_us`. Which rows are repetitions is not known yet:
    /// [`Self::admit`] must follow, in log order.
    pub fn decode(message: Message, arrived_us: i64) -> Self {
        // Kept beside the outcome, since a message that does not decode states its format too
        // (`bronze.messages.codec`).
        let codec = Codec::of(&message);
        // A damaged message is a value and no error: it lands as a dead letter, and the log is read on.
        let outcome = codec.decode(&message).map_err(|e| Rejection { cause: e.cause(), detail: chain(&e) });
        Self { message, arrived_us, codec, outcome, fresh: Vec::new(), forwarded_to: None }
    }

    /// Decides which rows are new, given everything the log held before this message.
    pub fn admit(mut self, seen: &mut Seen) -> Self {
        if let Ok(decoded) = &self.outcome {
            // A dead letter has no sequence numbers: none of its rows can be new or repeated.
            self.fresh = seen.admit(&decoded.header);
        }
        self
    }

    /// Decides that the message belongs to another partition: none of its rows land from here.
    pub fn forward(self, home: TopicPartition) -> Self {
        // Not even noted as seen: the log of the home decides whether the rows are new (ADR 23).
        Self { fresh: Vec::new(), forwarded_to: Some(home), ..self }
    }

    pub fn header(&self) -> Option<&Header> {
        self.outcome.as_ref().ok().map(|d| &d.header)
    }

    /// Rows that will land.
    pub fn fresh_rows(&self) -> u64 {
        self.fresh.iter().map(|r| u64::from(r.end - r.start)).sum()
    }

    /// The new rows, each slice with the sequence number of its first row.
    pub fn slices(&self) -> impl Iterator<Item = (&Header, RecordBatch, i64)> {
        let decoded = self.outcome.as_ref().ok();
        // A new message without rows is one empty range: it counts in the ledger and leaves no records.
        let ranges = self.fresh.iter().filter(|range| !range.is_empty());
        ranges.filter_map(move |range| {
            let decoded = decoded?;
            let from = range.start as usize;
            let rows = (range.end - range.start) as usize;
            // A slice shares the buffers of the batch (zero-copy). Numbers follow from the place in the message.
            Some((&decoded.header, decoded.batch.slice(from, rows), decoded.header.first_seq + i64::from(range.start)))
        })
    }
}

/// Offsets at which the log holds no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The offsets; not empty.
    pub range: OffsetRange,
    /// When ingest passed them, unix microseconds.
    pub arrived_us: i64,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    // The causes as well: `Display` of an error prints its own level only.
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
