//! What is asked of several partitions at once. A broker answers the requests of one connection in their order, so that a
//! request behind a fetch waits until the fetch is answered, for `fetch.wait.max.ms` where no message comes.

use event_schema::position::{NextOffset, TopicPartition};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::super::message::{ASK_TIMEOUT, fingerprints};
use super::KafkaSource;
use crate::source::{Beginning, LogState, Source, SourceError, Watermarks};

const ACTION: &str = "read watermarks";

impl KafkaSource {
    /// [`Source::beginnings`]: one request for the ids of all topics, two to each broker for the offsets, and one
    /// consumer for each topic that reads the messages to compare.
    pub(super) fn ask_together(
        &mut self,
        asked: &[(TopicPartition, Option<NextOffset>)],
    ) -> Result<Vec<Beginning>, SourceError> {
        let partitions: Vec<_> = asked.iter().map(|(at, _)| at.clone()).collect();
        let identities = self.identities(&partitions)?;
        let watermarks = self.all_watermarks(&partitions)?;
        let mut compared = Vec::new();
        for ((at, landed), held) in asked.iter().zip(&watermarks) {
            // Nothing to compare: retention has deleted the message, or the log does not reach that far.
            if let Some(next) = landed.filter(|next| held.low < *next && *next <= held.high) {
                compared.push((at.clone(), NextOffset(next.0 - 1)));
            }
        }
        let mut fingerprints = fingerprints(&self.config, &compared)?;
        let mut found = Vec::with_capacity(asked.len());
        for ((at, identity), watermarks) in partitions.iter().zip(identities).zip(watermarks) {
            let fingerprint = fingerprints.remove(at);
            found.push(Beginning { state: LogState { identity, watermarks, fingerprint }, end: watermarks.high });
        }
        Ok(found)
    }

    /// The offsets that partitions hold, in their order.
    pub(super) fn all_watermarks(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Watermarks>, SourceError> {
        // The client asks for both ends of one partition side by side.
        if let [at] = partitions {
            return Ok(vec![self.watermarks(at)?]);
        }
        let low = self.ends(partitions, Offset::Beginning)?;
        let high = self.ends(partitions, Offset::End)?;
        Ok(low.into_iter().zip(high).map(|(low, high)| Watermarks { low, high }).collect())
    }

    /// One end of each partition: one request to each broker.
    fn ends(&self, partitions: &[TopicPartition], end: Offset) -> Result<Vec<NextOffset>, SourceError> {
        // librdkafka refuses an empty list.
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            list.add_partition_offset(&at.topic, at.partition, end).map_err(|source| self.failed(ACTION, source))?;
        }
        // ListOffsets has one field for a time and for the ends of the log, which are -1 and -2 there as in librdkafka
        // (Kafka protocol, `ListOffsets`).
        let found = self.consumer.offsets_for_times(list, ASK_TIMEOUT);
        let found = found.map_err(|source| self.failed(ACTION, source))?;
        let mut ends = Vec::with_capacity(partitions.len());
        for at in partitions {
            let unknown = ClientError::AdminOp(Code::UnknownTopicOrPartition);
            let element = found.find_partition(&at.topic, at.partition).ok_or(unknown);
            let element = element.map_err(|source| self.failed(ACTION, source))?;
            element.error().map_err(|source| self.failed(ACTION, source))?;
            match element.offset() {
                Offset::Offset(offset) => ends.push(NextOffset(offset)),
                // As it was asked: the answer lacks the partition.
                _ => return Err(self.failed(ACTION, ClientError::AdminOp(Code::UnknownTopicOrPartition))),
            }
        }
        Ok(ends)
    }
}
