//! Dead letters on their way to `causeway.dlq.v1`, so that consumers of the log see them too. `ops.dlq` is the record:
//! nothing waits for the topic, and what it does not take is counted.

use std::time::Duration;

use bytes::Bytes;
use event_schema::topics;
use stream::kafka::{KafkaProducer, Sent};
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
        while producer.delivery(Duration::ZERO).is_some_and(|d| self.counted(d.result.is_ok())) {}
        let text = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
        let headers = [
            text("cause", rejection.cause.to_owned()),
            text("detail", rejection.detail.clone()),
            text("topic", message.at.topic.to_string()),
            text("partition", message.at.partition.to_string()),
            text("offset", message.offset.to_string()),
        ];
        let sent = producer.send(topics::DEAD_LETTERS, message.key.as_deref(), &message.payload, &headers, 0);
        if !matches!(sent, Ok(Sent::Queued)) {
            self.metrics.dead_letters_unsent.inc();
        }
    }

    /// Gives the topic a last chance to take what was sent to it.
    pub(crate) fn flush(&self) {
        let Some(producer) = &self.producer else { return };
        producer.flush(FLUSH);
        while producer.delivery(Duration::ZERO).is_some_and(|d| self.counted(d.result.is_ok())) {}
    }

    fn counted(&self, is_delivered: bool) -> bool {
        if !is_delivered {
            self.metrics.dead_letters_unsent.inc();
        }
        true
    }
}
