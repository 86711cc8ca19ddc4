//! What is refused while the group is changing, without a broker.

use rdkafka::Offset;

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

/// The partitions that the client fetches, and the offsets that each was started at.
fn fetched(source: &KafkaSource) -> Vec<(i32, Offset)> {
    let assigned = source.consumer.assignment().unwrap();
    let mut found: Vec<_> = assigned.elements().iter().map(|e| (e.partition(), e.offset())).collect();
    found.sort_by_key(|(partition, _)| *partition);
    found
}

#[test]
fn the_client_fetches_what_is_not_paused_and_nothing_behind_missing_offsets() {
    let (mut source, all) = (member(), [0, 1, 2].map(|partition| TopicPartition::new("events", partition)));
    for at in &all {
        source.sequencer.assign(at.clone(), NextOffset(5));
    }
    source.resume(&all).unwrap();
    assert_eq!(fetched(&source), [0, 1, 2].map(|partition| (partition, Offset::Offset(5))));
    source.sequencer.skip(&OffsetRange::new(all[1].clone(), 5, 7));
    let message = Message {
        at: all[2].clone(),
        offset: 10,
        timestamp_ms: 0,
        key: None,
        payload: bytes::Bytes::new(),
        headers: Vec::new(),
    };
    source.keep_back(OffsetRange::new(all[2].clone(), 5, 10), message);
    assert_eq!(fetched(&source), [0, 1].map(|partition| (partition, Offset::Offset(5))));
    source.pause(&all[..2]).unwrap();
    source.pause(&all).unwrap();
    assert_eq!(fetched(&source), []);
    source.resume(&all[1..]).unwrap();
    assert_eq!(fetched(&source), [(1, Offset::Offset(7))], "0 is paused, and of 2 it is not known what is missing");
}

#[test]
fn what_is_resumed_while_partitions_are_revoked_is_fetched_once_the_owner_knows() {
    let (mut source, all) = (member(), [0, 1].map(|partition| TopicPartition::new("events", partition)));
    for at in &all {
        source.sequencer.assign(at.clone(), NextOffset(5));
    }
    source.pause(&all).unwrap();
    source.consumer.context().push(Rebalanced::Revoked(vec![all[0].clone()]));
    source.resume(&all).unwrap();
    assert_eq!(fetched(&source), []);
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Revoked(vec![all[0].clone()]));
    assert_eq!(source.poll(SHORT, 1).unwrap(), SourceEvent::Idle);
    assert_eq!(fetched(&source), [(1, Offset::Offset(5))]);
}
