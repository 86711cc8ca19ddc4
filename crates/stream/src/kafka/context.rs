//! The callbacks of librdkafka: rebalances become values for the polling thread, errors are kept for messages to users.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use event_schema::position::TopicPartition;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::known::KnownBrokers;
use super::partitions::{among, to_partitions};

/// One change of what is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// The context of consumers and admin clients.
#[derive(Debug, Default)]
pub(super) struct Context {
    rebalanced: Mutex<VecDeque<Rebalanced>>,
    last_error: LastError,
    ends: Mutex<BTreeMap<TopicPartition, End>>,
    known: KnownBrokers,
}

/// The end offset of a partition in the last fetch response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The last stable offset: what lies behind it belongs to an open transaction, or follows one.
    pub stable: i64,
    /// The high watermark.
    pub high: i64,
    /// The offset that is fetched next. It also passes messages of aborted transactions, which are not given out.
    pub next: i64,
}

impl Context {
    pub(super) fn take_rebalanced(&self) -> Option<Rebalanced> {
        // A poisoned lock is used on: every change below its guard is one call, so that a panic leaves no half of it.
        self.rebalanced.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn has_rebalanced(&self) -> bool {
        !self.rebalanced.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The last error that librdkafka reported. Its text has no secrets.
    pub(super) fn last_error(&self) -> Option<ClientFailure> {
        self.last_error.get()
    }

    /// The ends of the partitions that are being fetched.
    pub(super) fn ends(&self) -> BTreeMap<TopicPartition, End> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn known_brokers(&self) -> &KnownBrokers {
        &self.known
    }

    pub(super) fn push(&self, rebalanced: Rebalanced) {
        self.rebalanced.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalanced);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.last_error.set(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.known.update(&statistics);
        let mut ends = BTreeMap::new();
        for (topic, found) in statistics.topics {
            let topic: Arc<str> = topic.into();
            // Negative offsets stand for what is not known yet (-1001, `RD_KAFKA_OFFSET_INVALID`).
            for partition in found.partitions.values().filter(|found| found.ls_offset >= 0 && found.hi_offset >= 0) {
                let at = TopicPartition::new(Arc::clone(&topic), partition.partition);
                ends.insert(
                    at,
                    End { stable: partition.ls_offset, high: partition.hi_offset, next: partition.next_offset },
                );
            }
        }
        // Replaced as a whole: partitions that are no longer fetched leave the map.
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }
}

impl ConsumerContext for Context {
    /// An assignment is only announced: it takes effect when the owner names positions (`Source::start`). A revocation
    /// takes effect at once, because the tables fence what is in flight.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        // Called within `poll`, on the polling thread.
        let list = to_partitions(partitions);
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // librdkafka expects an answer to an empty assignment too, for which `start` is not called.
            if list.is_empty() {
                accept(consumer, partitions);
            }
            return self.push(Rebalanced::Assigned(list));
        }
        give_up(consumer, partitions);
        self.push(Rebalanced::Revoked(list));
    }
}

/// Answers an empty assignment.
fn accept(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) {
    if let Err(error) = consumer.incremental_assign(partitions) {
        tracing::warn!(%error, "cannot accept an empty assignment");
    }
}

/// Answers a revocation.
fn give_up(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) {
    let unassigned = match consumer.rebalance_protocol() {
        // librdkafka refuses the whole list when one partition of it was announced and never started, and then stays
        // in the rebalance.
        RebalanceProtocol::Cooperative => {
            consumer.assignment().and_then(|started| consumer.incremental_unassign(&among(partitions, &started)))
        }
        // While a consumer closes, the protocol is no longer known.
        _ => consumer.unassign(),
    };
    if let Err(error) = unassigned {
        tracing::warn!(%error, "cannot give up partitions");
    }
}

/// An error as librdkafka reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFailure {
    /// Absent where librdkafka's error has none.
    pub code: Option<RDKafkaErrorCode>,
    /// librdkafka's text, without secrets.
    pub reason: String,
}

/// The last error reported. It is logged when it changes: the error of a broker that is away is repeated many times a
/// second.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<ClientFailure>>);

impl LastError {
    pub(super) fn get(&self) -> Option<ClientFailure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, error: &ClientError, reason: &str) {
        let failure = ClientFailure { code: super::code_of(error), reason: reason.to_owned() };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows the error of each broker, and would replace the reason.
        if failure.code == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        if last.as_ref() != Some(&failure) {
            tracing::warn!(%error, reason, "kafka client");
            *last = Some(failure);
        }
    }
}

/// librdkafka's own log lines. Its errors are reported as values as well, so that most of these are for debugging only.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => log_failure(facility, message),
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

fn log_failure(facility: &str, message: &str) {
    tracing::error!(target: "librdkafka", facility, "{message}");
}
