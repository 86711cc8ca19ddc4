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

/// Fetched anew, the partition would not be refused again.
#[test]
fn a_truncation_is_reported_although_a_revocation_may_explain_it() {
    let (mut source, revoked) = (member(), TopicPartition::new("events", 0));
    source.sequencer.assign(revoked.clone(), NextOffset(5));
    (source.refused_positions, source.is_truncated) = (1, true);
    source.consumer.context().push(Rebalanced::Revoked(vec![revoked.clone()]));
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Revoked(vec![revoked]));
    assert!(matches!(source.poll(SHORT, 1), Err(SourceError::Refused)));
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Idle);
}

/// The refused position may be that of the revoked partition, and then no position that is left explains it.
#[test]
fn a_refusal_that_a_revocation_may_explain_has_the_rest_fetched_anew_and_is_no_error() {
    let (mut source, kept) = (member(), TopicPartition::new("events", 1));
    let revoked = TopicPartition::new("events", 0);
    for at in [&revoked, &kept] {
        source.sequencer.assign(at.clone(), NextOffset(5));
    }
    let mut list = TopicPartitionList::new();
    list_add(&mut list, &kept, NextOffset(5)).unwrap();
    source.consumer.incremental_assign(&list).unwrap();
    source.refused_positions = 1;
    source.consumer.context().push(Rebalanced::Revoked(vec![revoked.clone()]));
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Revoked(vec![revoked]));
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Idle);
    assert_eq!((source.refused_positions, source.must_fetch_anew), (0, false));
    assert_eq!(source.sequencer.expected(&kept), Some(NextOffset(5)));
    assert_eq!(source.consumer.assignment().unwrap().count(), 1);
}
