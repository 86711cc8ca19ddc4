//! The `[bulk]` section of the configuration.

use std::path::PathBuf;

use objects::S3Options;
use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{ByteSize, HumanDuration, Problem};

/// SQS takes back a message after 12 hours at the latest (Amazon SQS API Reference, `ChangeMessageVisibility`).
const VISIBILITY_MAX_S: u64 = 12 * 3600;
/// Below this time a heartbeat that is late by one retry would come after the message was given to another process.
const VISIBILITY_MIN_S: u64 = 10;

/// The `[bulk]` section. Endpoint, keys and path style are those of `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BulkConfig {
    /// URL of the SQS queue that announces objects. Empty: nothing is taken from a bucket.
    pub queue: String,
    /// URL of the SQS queue for what cannot be landed.
    pub dead_letter_queue: String,
    /// The bucket that objects are dropped into.
    pub bucket: String,
    /// Objects below this prefix are landed; others are passed over.
    pub prefix: String,
    /// Objects that cannot be landed are copied below this prefix of the bucket.
    pub dead_letter_prefix: String,
    /// Region of the bucket and the queues; that of `[store]` when absent.
    pub region: Option<String>,
    /// The cluster of events whose rows name none, and of recordings.
    pub cluster: String,
    /// How long a message that is worked on is hidden from other processes. Extended while the work goes on.
    pub visibility: HumanDuration,
    /// Directory for files that cannot be read as a stream (Parquet, SQLite); the system's when absent.
    pub temporary_dir: Option<PathBuf>,
    /// Largest such file.
    pub temporary_limit: ByteSize,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self {
            queue: String::new(),
            dead_letter_queue: String::new(),
            bucket: String::new(),
            prefix: "incoming/".to_owned(),
            dead_letter_prefix: "dead-letter/".to_owned(),
            region: None,
            cluster: "default".to_owned(),
            visibility: HumanDuration::from_secs(120),
            temporary_dir: None,
            temporary_limit: ByteSize(8 << 30),
        }
    }
}

impl BulkConfig {
    /// Whether objects are to be taken from a bucket.
    pub fn is_on(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How the bucket is reached.
    pub fn s3_options(&self, store: &StoreConfig) -> S3Options {
        S3Options {
            endpoint: store.endpoint.clone(),
            region: self.region.clone().or_else(|| store.region.clone()),
            access_key_id: store.access_key_id.clone(),
            secret_access_key: store.secret_access_key.clone(),
            path_style: store.path_style,
            tiers: store.tiers,
        }
    }

    /// Region of the queues.
    pub fn region(&self, store: &StoreConfig) -> String {
        // As the bucket's client: Signature Version 4 needs one also where the server has none.
        self.s3_options(store).region.unwrap_or_else(|| "us-east-1".to_owned())
    }

    /// The location of the lake or of the dead letters, if a prefix of a bucket lies in it or contains it: what is
    /// there must not be landed.
    pub fn reserved(&self, store: &StoreConfig, bucket: &str, prefix: &str) -> Option<String> {
        let asked = format!("s3://{bucket}/{}", prefix.trim_matches('/'));
        [store.warehouse.clone(), self.dead_letters()].into_iter().find(|location| overlap(location, &asked))
    }

    fn dead_letters(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.dead_letter_prefix)
    }

    /// What is wrong with the section, beside the store of the lake; nothing while it is off.
    pub fn problems(&self, store: &StoreConfig) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, what: &str| problems.push(Problem::new(format!("bulk.{key}"), what));
        if !self.is_on() {
            // A bucket without a queue is a section that does nothing, which was hardly meant.
            if !self.bucket.is_empty() {
                wrong("queue", "must name the queue that announces the objects of `bulk.bucket`");
            }
            return problems;
        }
        for (key, url) in [("queue", &self.queue), ("dead_letter_queue", &self.dead_letter_queue)] {
            if url::Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()) {
                continue;
            }
            wrong(key, "must be the URL of an SQS queue: `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`");
        }
        if self.queue == self.dead_letter_queue {
            wrong("dead_letter_queue", "must be another queue than `bulk.queue`");
        }
        if self.bucket.is_empty() || self.bucket.contains(['/', ':']) {
            wrong("bucket", "must be the name of the bucket, without `s3://` and prefix");
        }
        let seconds = self.visibility.0.as_secs();
        if !(VISIBILITY_MIN_S..=VISIBILITY_MAX_S).contains(&seconds) {
            wrong("visibility", "must be 10 s to 12 h");
        }
        problems.extend(self.prefix_problems(store));
        problems
    }

    fn prefix_problems(&self, store: &StoreConfig) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, prefix) in [("bulk.prefix", &self.prefix), ("bulk.dead_letter_prefix", &self.dead_letter_prefix)] {
            if prefix.len() < 2 || prefix.starts_with('/') || !prefix.ends_with('/') {
                problems
                    .push(Problem::new(key, "must be a prefix of keys that ends with a slash, such as `incoming/`"));
            }
        }
        let landed = format!("s3://{}/{}", self.bucket, self.prefix);
        // A copy of what cannot be landed would be announced, and could not be landed either.
        if overlap(&landed, &self.dead_letters()) {
            let what = "must lie outside `bulk.prefix` and not contain it: give it a prefix of its own, such as \
                        `dead-letter/`";
            problems.push(Problem::new("bulk.dead_letter_prefix", what));
        }
        // The lake's own files would be landed again as events, or become dead letters.
        if overlap(&landed, &store.warehouse) {
            let what = "must lie outside `store.warehouse` and not contain it: give it a prefix of its own, such as \
                        `incoming/`, and the warehouse another, such as `warehouse/`";
            problems.push(Problem::new("bulk.prefix", what));
        }
        problems
    }
}

/// Whether one of two locations lies in the other.
fn overlap(one: &str, other: &str) -> bool {
    let [one, other] = [folder(one), folder(other)];
    one.starts_with(&other) || other.starts_with(&one)
}

/// With a slash at its end: `s3://bucket/lake2` does not lie in `s3://bucket/lake`.
fn folder(location: &str) -> String {
    format!("{}/", location.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> BulkConfig {
        BulkConfig {
            queue: "https://sqs.eu-west-1.amazonaws.com/123456789012/incoming".to_owned(),
            dead_letter_queue: "https://sqs.eu-west-1.amazonaws.com/123456789012/dead".to_owned(),
            bucket: "recordings".to_owned(),
            ..BulkConfig::default()
        }
    }

    fn keys(config: &BulkConfig) -> Vec<String> {
        config.problems(&StoreConfig::default()).into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn a_section_is_sound_or_names_each_key_that_is_wrong() {
        assert!(keys(&BulkConfig::default()).is_empty() && keys(&sound()).is_empty());
        let unsound = [
            ("bulk.queue", BulkConfig { queue: "incoming".to_owned(), ..sound() }),
            ("bulk.queue", BulkConfig { bucket: "b".to_owned(), ..BulkConfig::default() }),
            ("bulk.dead_letter_queue", BulkConfig { dead_letter_queue: String::new(), ..sound() }),
            ("bulk.dead_letter_queue", BulkConfig { dead_letter_queue: sound().queue, ..sound() }),
            ("bulk.bucket", BulkConfig { bucket: "s3://recordings".to_owned(), ..sound() }),
            ("bulk.prefix", BulkConfig { prefix: "incoming".to_owned(), ..sound() }),
            ("bulk.dead_letter_prefix", BulkConfig { dead_letter_prefix: "incoming/dead/".to_owned(), ..sound() }),
            ("bulk.visibility", BulkConfig { visibility: HumanDuration::from_secs(9), ..sound() }),
        ];
        for (key, config) in unsound {
            assert_eq!(keys(&config), [key], "{config:?}");
        }
    }

    #[test]
    fn a_prefix_that_lies_in_the_lake_or_the_dead_letters_or_contains_them_is_refused() {
        let store = StoreConfig { warehouse: "s3://recordings/lake/warehouse".to_owned(), ..StoreConfig::default() };
        for (prefix, refused) in [
            ("incoming/", None),
            ("lake/warehouse2/", None),
            ("lake/warehouse/in/", Some("bulk.prefix")),
            ("lake/", Some("bulk.prefix")),
            ("dead-letter/in/", Some("bulk.dead_letter_prefix")),
        ] {
            let config = BulkConfig { prefix: prefix.to_owned(), ..sound() };
            let keys: Vec<String> = config.problems(&store).into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, Vec::from_iter(refused), "{prefix}");
            assert_eq!(sound().reserved(&store, "recordings", prefix).is_some(), refused.is_some(), "{prefix}");
            assert_eq!(sound().reserved(&store, "another", prefix), None, "{prefix}");
        }
        // A back-fill may name a whole bucket.
        assert_eq!(sound().reserved(&store, "recordings", ""), Some(store.warehouse));
        let dead_letters = Some("s3://recordings/dead-letter/".to_owned());
        assert_eq!(sound().reserved(&StoreConfig::default(), "recordings", ""), dead_letters);
    }

    #[test]
    fn region_is_that_of_the_section_before_that_of_the_store() {
        let store = StoreConfig { region: Some("eu-west-1".to_owned()), ..StoreConfig::default() };
        assert_eq!(sound().region(&store), "eu-west-1");
        let config = BulkConfig { region: Some("us-west-2".to_owned()), ..sound() };
        assert_eq!(
            (config.region(&store), sound().region(&StoreConfig::default())),
            ("us-west-2".into(), "us-east-1".into())
        );
    }
}
