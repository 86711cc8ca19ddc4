//! Says why a broker did not answer: nobody there, or turned away. librdkafka tries for ever and tells its reasons aside.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::config::KafkaConfig;
use super::context::{Context, Told};
use super::{Fault, KafkaError, code_of};

/// How long the reasons are listened for. They have been told by now, among log lines.
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
    let told = consumer.context().last_error();
    match told {
        Some(Told { code: Some(code), .. }) if Fault::of(code) == Fault::Access => config.refused(told),
        told => KafkaError::Unreachable {
            brokers: config.brokers.clone(),
            waited: config.connect_timeout(),
            last_error: told.map(|told| told.reason),
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

    pub(super) fn refused(&self, told: Option<Told>) -> KafkaError {
        KafkaError::Refused { brokers: self.brokers.clone(), last_error: told.map(|told| told.reason) }
    }
}
