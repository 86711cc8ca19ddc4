//! Finds out why a broker did not answer: it cannot be reached, or it refused the login. librdkafka retries without a
//! limit and reports the cause through its error callback only. The errors of the callback are collected for a moment,
//! and the cause is returned.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::KafkaConfig;
use super::context::{ClientFailure, Context};
use super::{Fault, KafkaError, code_of};

/// How long causes are collected.
const LISTEN: Duration = Duration::from_millis(200);
/// How long a second attempt may take to find the reason for a first one whose client runs no error callback.
const SECOND_ATTEMPT: Duration = Duration::from_secs(2);

/// Why a request through this consumer failed.
pub(super) fn diagnose(config: &KafkaConfig, consumer: &BaseConsumer<Context>, source: ClientError) -> KafkaError {
    if !is_silence(&source) {
        return config.failed("ask a broker", source);
    }
    let deadline = Instant::now() + LISTEN;
    while Instant::now() < deadline {
        // The poll runs the callbacks. No partition is assigned, so that it returns no message.
        let _ = consumer.poll(Duration::from_millis(20));
    }
    let failure = consumer.context().last_error();
    match failure {
        // A refused login is retried without end like a broken connection, and ends as a timeout too.
        Some(ClientFailure { code: Some(code), .. }) if Fault::of(code) == Fault::Access => config.refused(failure),
        failure => KafkaError::Unreachable {
            brokers: config.brokers.clone(),
            waited: config.connect_timeout(),
            last_error: failure.map(|failure| failure.reason),
        },
    }
}

/// The same for a client that runs no error callback: the request is repeated through a consumer.
pub(super) fn diagnose_again(config: &KafkaConfig, action: &'static str, source: ClientError) -> KafkaError {
    if !is_silence(&source) {
        return config.failed(action, source);
    }
    // An admin client is never polled, so that its error callback does not run.
    let consumer: BaseConsumer<Context> = match config.client().create_with_context(Context::default()) {
        Ok(consumer) => consumer,
        Err(source) => return config.failed(action, source),
    };
    match consumer.fetch_metadata(None, SECOND_ATTEMPT) {
        // A broker answers now: the first error stands.
        Ok(_) => config.failed(action, source),
        Err(_) => diagnose(config, &consumer, source),
    }
}

/// True when no broker answered.
fn is_silence(error: &ClientError) -> bool {
    let silent = [Code::OperationTimedOut, Code::BrokerTransportFailure, Code::AllBrokersDown, Code::Resolve];
    code_of(error).is_some_and(|code| silent.contains(&code))
}

impl KafkaConfig {
    pub(super) fn failed(&self, action: &'static str, source: ClientError) -> KafkaError {
        KafkaError::Client { action, brokers: self.brokers.clone(), source }
    }

    pub(super) fn refused(&self, failure: Option<ClientFailure>) -> KafkaError {
        KafkaError::Refused { brokers: self.brokers.clone(), last_error: failure.map(|failure| failure.reason) }
    }
}
