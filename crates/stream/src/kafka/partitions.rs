//! Lists of partitions as librdkafka takes and gives them.

use event_schema::position::{NextOffset, TopicPartition};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};

/// Adds a partition with the offset to begin at.
pub(super) fn list_add(
    list: &mut TopicPartitionList,
    at: &TopicPartition,
    next: NextOffset,
) -> Result<(), ClientError> {
    // An explicit offset: without one librdkafka would begin at the committed group offset.
    list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next.0))
}

pub(super) fn to_list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

pub(super) fn to_partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect()
}

/// The partitions that are in both lists.
pub(super) fn among(partitions: &TopicPartitionList, others: &TopicPartitionList) -> TopicPartitionList {
    let mut both = TopicPartitionList::new();
    for at in to_partitions(partitions) {
        if others.find_partition(&at.topic, at.partition).is_some() {
            both.add_partition(&at.topic, at.partition);
        }
    }
    both
}
