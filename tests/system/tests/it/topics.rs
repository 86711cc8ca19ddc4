//! Topics of a real broker: deleted, made anew, written to directly.

use std::time::{Duration, Instant};

use event_schema::position::Message;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use stream::kafka::{KafkaConfig, KafkaProducer, ProducerRecord, Sent, TopicSpec, ensure_topics};

use crate::TEST_TIMEOUT;
use crate::place::{EVENTS, Place};

/// Deletes the topic of events and makes it again, empty, with as many partitions.
pub(crate) fn make_anew(place: &Place) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", place.brokers()).create().unwrap();
    let deleted = block_on(admin.delete_topics(&[EVENTS], &AdminOptions::new())).unwrap();
    deleted.into_iter().for_each(|topic| drop(topic.unwrap()));
    let config = KafkaConfig { brokers: place.brokers(), ..KafkaConfig::default() };
    let spec = TopicSpec { name: EVENTS.to_owned(), partitions: place.partitions(), replication: 1, retention_ms: -1 };
    let deadline = Instant::now() + TEST_TIMEOUT;
    // The broker deletes in the background: until it has, the topic is still there, and none is made.
    loop {
        block_on(ensure_topics(&config, std::slice::from_ref(&spec))).unwrap();
        if place.messages_in(EVENTS) == Some(0) {
            return;
        }
        assert!(Instant::now() < deadline, "the topic was not made anew");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes the same messages again, keys and order kept.
pub(crate) fn write(place: &Place, messages: &[Message]) {
    let config = KafkaConfig { brokers: place.brokers(), ..KafkaConfig::default() };
    let producer = KafkaProducer::open(&config).unwrap();
    for (token, message) in messages.iter().enumerate() {
        let send = || producer.send(EVENTS, ProducerRecord::of(message), token).unwrap();
        while send() == Sent::Full {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for _ in messages {
        producer.delivery(TEST_TIMEOUT).unwrap().result.unwrap();
    }
}
