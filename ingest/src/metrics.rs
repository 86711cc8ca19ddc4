//! Prometheus metrics of ingest. Rates, lags and losses are also in `ops.ledger`.

use event_schema::position::TopicPartition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TableLabel {
    pub(crate) table: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) table: String,
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CauseLabel {
    pub(crate) cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl PartitionLabel {
    /// A partition is labelled by its name in Kafka, whichever of its logs is read.
    pub(crate) fn of(at: &TopicPartition) -> Self {
        Self { topic: at.without_generation().topic.to_string(), partition: at.partition }
    }
}

/// Everything ingest counts. Cheap to clone; clones share the counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) messages: Counter,
    pub(crate) payload_bytes: Counter,
    pub(crate) rows: Counter,
    pub(crate) duplicate_rows: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) rejected: Family<CauseLabel, Counter>,
    pub(crate) dead_letters_unsent: Counter,
    pub(crate) commits: Family<OutcomeLabel, Counter>,
    pub(crate) commit_seconds: Family<TableLabel, Histogram>,
    pub(crate) write_seconds: Family<TableLabel, Histogram>,
    pub(crate) written_bytes: Family<TableLabel, Counter>,
    pub(crate) tagged_files: Counter,
    pub(crate) untagged_files: Counter,
    pub(crate) gap_offsets: Counter,
    pub(crate) skipped_offsets: Counter,
    pub(crate) undecided_offsets: Family<PartitionLabel, Gauge>,
    pub(crate) buffered_bytes: Gauge,
    pub(crate) next_offset: Family<PartitionLabel, Gauge>,
}

fn seconds() -> Histogram {
    // 1 ms to 16 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Counter::default(),
            payload_bytes: Counter::default(),
            rows: Counter::default(),
            duplicate_rows: Counter::default(),
            forwarded: Counter::default(),
            rejected: Family::default(),
            dead_letters_unsent: Counter::default(),
            commits: Family::default(),
            commit_seconds: Family::new_with_constructor(seconds),
            write_seconds: Family::new_with_constructor(seconds),
            written_bytes: Family::default(),
            tagged_files: Counter::default(),
            untagged_files: Counter::default(),
            gap_offsets: Counter::default(),
            skipped_offsets: Counter::default(),
            undecided_offsets: Family::default(),
            buffered_bytes: Gauge::default(),
            next_offset: Family::default(),
        };
        metrics.register_log(registry);
        metrics.register_landing(registry);
        metrics
    }

    fn register_log(&self, registry: &mut Registry) {
        registry.register("messages", "Messages read from the log", self.messages.clone());
        registry.register_with_unit(
            "payload",
            "Payload bytes of the messages read from the log",
            Unit::Bytes,
            self.payload_bytes.clone(),
        );
        registry.register("rows", "Rows of the messages read that no earlier message had carried", self.rows.clone());
        registry.register(
            "duplicate_rows",
            "Rows of the messages read that an earlier message had carried",
            self.duplicate_rows.clone(),
        );
        registry.register(
            "forwarded_messages",
            "Messages met in another partition than the one they belong to, and written there",
            self.forwarded.clone(),
        );
        registry.register("rejected_messages", "Messages that could not be decoded", self.rejected.clone());
        registry.register(
            "dead_letters_unsent",
            "Dead letters the topic did not take; ops.dlq has them",
            self.dead_letters_unsent.clone(),
        );
        registry.register(
            "gap_offsets",
            "Offsets the log no longer held when they were to be read; every table records them",
            self.gap_offsets.clone(),
        );
        registry.register(
            "skipped_offsets",
            "Offsets at which the log holds no message: markers and aborted messages of transactions, or compacted away",
            self.skipped_offsets.clone(),
        );
        registry.register(
            "undecided_offsets",
            "Offsets written that cannot be read before a transaction ends, per partition that this process reads",
            self.undecided_offsets.clone(),
        );
        registry.register_with_unit(
            "buffered",
            "Memory of messages that were read and have not landed in every table",
            Unit::Bytes,
            self.buffered_bytes.clone(),
        );
        registry.register(
            "next_offset",
            "Next offset that every table has reached, per partition that this process reads",
            self.next_offset.clone(),
        );
    }

    fn register_landing(&self, registry: &mut Registry) {
        registry.register("commits", "Commits by table and outcome", self.commits.clone());
        registry.register_with_unit("commit", "Time of one commit", Unit::Seconds, self.commit_seconds.clone());
        registry.register_with_unit(
            "write",
            "Time to make and store the files of one commit",
            Unit::Seconds,
            self.write_seconds.clone(),
        );
        registry.register_with_unit("written", "Bytes of data files", Unit::Bytes, self.written_bytes.clone());
        registry.register(
            "tagged_files",
            "Committed data files tagged as complete, which the rule of the bucket may move",
            self.tagged_files.clone(),
        );
        registry.register(
            "untagged_files",
            "Committed data files whose tag could not be set; they move to no cheaper storage class",
            self.untagged_files.clone(),
        );
    }
}
