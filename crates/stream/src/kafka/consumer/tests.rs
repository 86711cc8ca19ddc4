//! What is refused while the group is changing, without a broker.

use super::*;

const SHORT: Duration = Duration::from_millis(10);

/// A member that has never reached a broker.
fn member() -> KafkaSource {
    let config = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() };
    KafkaSource::of(config.consumer().create_with_context(Context::default()).unwrap(), config)
}

#[test]
fn a_partition_that_is_being_revoked_is_not_started() {
    let (mut source, at) = (member(), TopicPartition::new("events", 0));
    source.announced.insert(at.clone());
    source.consumer.context().push(Rebalanced::Revoked(vec![at.clone()]));
    let start = [(at.clone(), NextOffset(0))];
    assert!(matches!(source.start(&start), Err(SourceError::Rebalanced)), "it may be among what was just revoked");
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Revoked(vec![at]));
    assert!(matches!(source.start(&start), Err(SourceError::NotAssigned(_))));
}
