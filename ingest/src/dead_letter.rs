//! Sends dead letters to `causeway.dlq.v1`, so that consumers of the log see them too. `ops.dlq` is the record: nothing
//! waits for the topic, and what the topic does not take is counted.

use std::time::Duration;

use bytes::Bytes;
use event_schema::topics;
use stream::kafka::{KafkaProducer, ProducerRecord, Sent};
use tables::arrival::{Arrival, Rejection};

use crate::metrics::{CauseLabel, Metrics};

/// How long ingest, when it ends, waits for the topic. `ops.dlq` has them in any case.
const FLUSH: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct DeadLetters {
    /// Absent where the log is the spool: the table alone keeps them.
    producer: Option<KafkaProducer>,
    metrics: Metrics,
}

impl DeadLetters {
    pub(crate) fn new(producer: Option<KafkaProducer>, metrics: Metrics) -> Self {
        Self { producer, metrics }
    }

    /// Counts and sends a rejected message.
    pub(crate) fn take(&self, arrival: &Arrival, rejection: &Rejection) {
        let message = &arrival.message;
        self.metrics.rejected.get_or_create(&CauseLabel { cause: rejection.cause }).inc();
        tracing::warn!(at = %message.at, offset = message.offset, cause = rejection.cause, "message is a dead letter: {}", rejection.detail);
        let Some(producer) = &self.producer else { return };
        // Acknowledgements wait in a channel without limit: each call takes those that have come.
        while producer.delivery(Duration::ZERO).is_some_and(|d| self.counted(d.result.is_ok())) {}
        // The place and the reason travel as headers, so that the payload stays the message as it was.
        let headers = [
            ("cause", rejection.cause.to_owned()),
            ("detail", rejection.detail.clone()),
            ("topic", message.at.topic.to_string()),
            ("partition", message.at.partition.to_string()),
            ("offset", message.offset.to_string()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
        let sent =
            producer.send(topics::DEAD_LETTERS, ProducerRecord { headers: &headers, ..ProducerRecord::of(message) }, 0);
        // Also a full queue: waiting for the topic would delay the tables.
        if !matches!(sent, Ok(Sent::Queued)) {
            self.metrics.dead_letters_unsent.inc();
        }
    }

    /// Waits for the acknowledgements of what was sent, for [`FLUSH`] at most.
    pub(crate) fn flush(&self) {
        let Some(producer) = &self.producer else { return };
        producer.flush(FLUSH);
        while producer.delivery(Duration::ZERO).is_some_and(|d| self.counted(d.result.is_ok())) {}
    }

    /// Counts a message that was not delivered. Always true, so that a loop goes on to the next delivery.
    fn counted(&self, is_delivered: bool) -> bool {
        if !is_delivered {
            self.metrics.dead_letters_unsent.inc();
        }
        true
    }
}
