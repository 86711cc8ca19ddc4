//! Settings that exactly-once rests on, and secrets that must not leak.

use super::*;

fn scram() -> KafkaConfig {
    let password = Secret::from("hunter2");
    let sasl = Sasl { mechanism: SaslMechanism::ScramSha512, username: "u".into(), password };
    KafkaConfig { sasl: Some(sasl), ..KafkaConfig::default() }
}

#[test]
fn a_password_reaches_the_client_and_nothing_printed() {
    let config = scram();
    assert_eq!(config.client().get("sasl.password"), Some("hunter2"));
    assert_eq!(config.client().get("security.protocol"), Some("sasl_plaintext"));
    assert!(!format!("{config:?}").contains("hunter2"));
    // rdkafka masks its own map too; this fails when an upgrade stops doing so.
    assert!(!format!("{:?}", config.client()).contains("hunter2"));
}

#[test]
fn the_consumer_neither_resets_nor_stores_offsets() {
    let consumer = KafkaConfig::default().consumer();
    assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
    assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
    assert_eq!(consumer.get("enable.auto.offset.store"), Some("false"));
    consumer.create_native_config().expect("librdkafka knows every setting");
}

#[test]
fn a_member_with_a_name_keeps_its_place_in_the_group() {
    let named = KafkaConfig { instance_id: Some("pod-3".into()), session_timeout_ms: 30_000, ..KafkaConfig::default() };
    assert_eq!(named.consumer().get("group.instance.id"), Some("pod-3"));
    assert_eq!(named.consumer().get("session.timeout.ms"), Some("30000"));
    assert_eq!(KafkaConfig::default().consumer().get("group.instance.id"), None);
    named.consumer().create_native_config().expect("librdkafka knows every setting");
}

#[test]
fn the_producer_is_idempotent_and_gives_nothing_up() {
    let producer = KafkaConfig::default().producer();
    assert_eq!(producer.get("enable.idempotence"), Some("true"));
    assert_eq!(producer.get("message.timeout.ms"), Some("0"));
    producer.create_native_config().expect("librdkafka knows every setting");
}

/// A topic made by asking for it would have the broker's defaults, and one that was deleted would be there again.
#[test]
fn no_client_lets_a_broker_make_topics() {
    let config = KafkaConfig::default();
    for client in [config.client(), config.consumer(), config.producer()] {
        assert_eq!(client.get("allow.auto.create.topics"), Some("false"));
    }
}

/// Reports wait in a queue without limit: a client that is not polled must not make any.
#[test]
fn only_clients_that_are_polled_report_statistics() {
    let config = KafkaConfig::default();
    assert_eq!(config.client().get("statistics.interval.ms"), None);
    for polled in [config.consumer(), config.producer()] {
        assert_eq!(polled.get("statistics.interval.ms"), Some(STATISTICS_EVERY_MS));
    }
}
