//! The configuration of `causeway-ingest`.

use std::path::PathBuf;

use event_schema::topics;
use inbox::config::BulkConfig;
use lake::config::CatalogConfig;
use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::admin::AdminConfig;
use service_kit::config::{ByteSize, HumanDuration, Problem};
use stream::kafka::{KafkaConfig, TopicSpec};

use crate::options::{OnGap, OnNewLog, Options};

/// The sections `causeway-ingest` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[kafka]`: how Kafka is reached, and which topics are read.
    pub kafka: KafkaConfig,
    /// `[catalog]`: the Iceberg catalog.
    pub catalog: CatalogConfig,
    /// `[store]`: where the objects of the tables are.
    pub store: StoreConfig,
    /// `[ingest]`: pace, memory, and what to do about another log than expected.
    pub ingest: IngestConfig,
    /// `[bulk]`: objects that are dropped into a bucket.
    pub bulk: BulkConfig,
    /// `[admin]`: the port with metrics and readiness.
    pub admin: AdminConfig,
}

/// The `[ingest]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngestConfig {
    /// Read this spool directory instead of Kafka.
    pub spool: Option<PathBuf>,
    /// A batch is committed when it is this old.
    pub commit_interval: HumanDuration,
    /// A table without new rows is committed after this time; after twelve times this while it lies only a thousand
    /// messages behind.
    pub idle_commit_interval: HumanDuration,
    /// Memory for what was read and has not landed, and for the rows and files made of it: half each.
    pub memory: ByteSize,
    /// When retention has deleted messages before they were read: `stop`, or `record` the gap in every table and go on.
    pub on_gap: OnGap,
    /// When the topic was deleted and made anew, or truncated and written anew: `stop`, or `follow` the new log from
    /// its oldest message on, with offsets of its own.
    pub on_new_log: OnNewLog,
    /// How long landing what was read may take once the program is to end.
    pub drain_limit: HumanDuration,
    /// Topics of ours that do not exist are made: the one of events with this many partitions, which is how many ingest
    /// processes can share the work. 0: none is made, and a topic to read that does not exist is an error.
    pub topic_partitions: u16,
    /// How long a topic made so keeps messages. What has landed is in `bronze.messages`.
    pub topic_retention: HumanDuration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let options = Options::default();
        Self {
            spool: None,
            commit_interval: HumanDuration(options.commit_interval),
            idle_commit_interval: HumanDuration(options.idle_commit_interval),
            memory: ByteSize(options.memory_bytes),
            on_gap: options.on_gap,
            on_new_log: options.on_new_log,
            drain_limit: HumanDuration(options.drain_limit),
            topic_partitions: 8,
            topic_retention: HumanDuration::from_secs(7 * 24 * 3600),
        }
    }
}

impl IngestConfig {
    pub fn options(&self) -> Options {
        Options {
            commit_interval: self.commit_interval.0,
            idle_commit_interval: self.idle_commit_interval.0,
            memory_bytes: self.memory.0,
            on_gap: self.on_gap,
            on_new_log: self.on_new_log,
            drain_limit: self.drain_limit.0,
            ..Options::default()
        }
    }

    /// The topics to create where they are missing: those read, and the one of the dead letters. Replicas are the
    /// default of the broker. Topics with little data get one partition: the assignor balances the number of
    /// partitions, not their load, and a member that joined could get quiet ones only.
    pub fn topics_to_make(&self, read: &[String]) -> Vec<TopicSpec> {
        if self.topic_partitions == 0 {
            return Vec::new();
        }
        let retention_ms = i64::try_from(self.topic_retention.0.as_millis()).unwrap_or(i64::MAX);
        let names = read.iter().map(String::as_str).chain([topics::DEAD_LETTERS]);
        let specs = names.map(|name| TopicSpec {
            name: name.to_owned(),
            partitions: if name == topics::EVENTS { i32::from(self.topic_partitions) } else { 1 },
            replication: -1,
            retention_ms,
        });
        specs.collect()
    }
}

/// Less memory than this cannot hold two of the largest messages, of 8 MiB each.
const MEMORY_MIN_BYTES: u64 = 16 << 20;

impl service_kit::config::Settings for Settings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = lake::config::problems(&self.catalog, &self.store);
        if self.ingest.commit_interval.0.is_zero() {
            problems.push(Problem::new("ingest.commit_interval", "must be longer than zero"));
        }
        if self.ingest.memory.0 < MEMORY_MIN_BYTES {
            problems.push(Problem::new("ingest.memory", "must be at least 16 MiB"));
        }
        problems.extend(self.bulk.problems(&self.store));
        if self.bulk.is_on() && self.ingest.spool.is_some() {
            // A spool has one writer per partition, and this program reads it.
            problems.push(Problem::new("bulk.queue", "needs Kafka: `ingest.spool` must not be set"));
        }
        problems
    }
}
