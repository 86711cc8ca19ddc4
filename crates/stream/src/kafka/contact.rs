//! Why a broker did not answer: it cannot be reached, or it refused the login. librdkafka retries for ever and reports the cause by a
//! log callback only: it is collected for a moment and returned.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::KafkaConfig;
use super::context::{ClientFailure, Context};
use super::{Fault, KafkaError, code_of};

/// How long causes are collected.
const LISTEN: Duration = Duration::from_millis(200);
/// How long a second attempt is given to find the reason of a first one that had no ear for it.
const SECOND_ATTEMPT: Duration = Duration::from_secs(2);

/// What a failed question through this consumer means.
pub(super) fn diagnose(config: &KafkaConfig, consumer: &BaseConsumer<Context>, source: ClientError) -> KafkaError {
    if !is_silence(&source) {
        return config.failed("ask a broker", source);
    }
    let deadline = Instant::now() + LISTEN;
    while Instant::now() < deadline {
        // Errors come by the context; messages there are none.
        let _ = consumer.poll(Duration::from_millis(20));
    }
    let failure = consumer.context().last_error();
    match failure {
        Some(ClientFailure { code: Some(code), .. }) if Fault::of(code) == Fault::Access => config.refused(failure),
        failure => KafkaError::Unreachable {
            brokers: config.brokers.clone(),
            waited: config.connect_timeout(),
            last_error: failure.map(|failure| failure.reason),
        },
    }
}

/// The same for a client that cannot listen: asks again through a consumer.
pub(super) fn diagnose_again(config: &KafkaConfig, action: &'static str, source: ClientError) -> KafkaError {
    if !is_silence(&source) {
        return config.failed(action, source);
    }
    let consumer: BaseConsumer<Context> = match config.client().create_with_context(Context::default()) {
        Ok(consumer) => consumer,
        Err(source) => return config.failed(action, source),
    };
    match consumer.fetch_metadata(None, SECOND_ATTEMPT) {
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
