#![expect(unsafe_code, reason = "librdkafka's list of its error codes has no safe call")]

use std::collections::BTreeSet;
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::error::KafkaError as ClientError;

use super::*;
use crate::kafka::KafkaError;

/// Every code that the linked librdkafka has, by its number.
fn codes_of_the_client() -> BTreeSet<i32> {
    let (mut first, mut count) = (ptr::null(), 0);
    // SAFETY: librdkafka gives a static array and its length.
    let descriptions = unsafe {
        sys::rd_kafka_get_err_descs(&mut first, &mut count);
        std::slice::from_raw_parts(first, count)
    };
    // The array is indexed by code: codes that are not used have no name.
    let codes = descriptions.iter().filter(|description| !description.desc.is_null());
    codes.map(|description| description.code as i32).collect()
}

#[test]
fn every_code_of_the_client_is_classified_once_and_has_a_reason() {
    let bounds = [Code::Begin as i32, Code::End as i32, Code::EndAll as i32];
    let expected: BTreeSet<i32> = codes_of_the_client().into_iter().filter(|code| !bounds.contains(code)).collect();
    assert!(expected.len() > 120, "{} codes", expected.len());
    let mut classified = BTreeSet::new();
    for (code, _, reason) in FAULTS {
        assert!(classified.insert(*code as i32), "{code:?} is classified twice");
        assert!(!reason.is_empty(), "{code:?} has no reason");
    }
    let missing: Vec<_> = expected.difference(&classified).collect();
    assert!(missing.is_empty(), "not classified: {missing:?}");
}

#[test]
fn what_a_broker_that_leaves_the_metadata_or_moves_its_leaders_says_is_waited_for() {
    for code in [
        Code::DestroyBroker,
        Code::BrokerDestroy,
        Code::UnknownBroker,
        Code::OffsetNotAvailable,
        Code::KafkaStorageError,
        Code::FencedLeaderEpoch,
        Code::UnknownLeaderEpoch,
        Code::StaleBrokerEpoch,
        Code::LeaderNotAvailable,
        Code::UnknownTopicOrPartition,
    ] {
        for source in [ClientError::MetadataFetch(code), ClientError::AdminOp(code)] {
            let error = KafkaError::Client { action: "read watermarks", brokers: "b:9092".to_owned(), source };
            assert!(error.is_transient(), "{code:?}");
        }
    }
}

#[test]
fn what_waiting_cannot_mend_is_not_waited_for() {
    for code in [
        Code::TopicAuthorizationFailed,
        Code::SaslAuthenticationFailed,
        Code::InvalidArgument,
        Code::UnsupportedVersion,
        Code::BadMessage,
        Code::Fatal,
    ] {
        let source = ClientError::MetadataFetch(code);
        let error = KafkaError::Client { action: "read watermarks", brokers: "b:9092".to_owned(), source };
        assert!(!error.is_transient(), "{code:?}");
    }
}
