//! What a user sets about Kafka, and how it becomes librdkafka's settings. Secrets never reach a log or `config show`.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};
use service_kit::config::Secret;

use super::known::STATISTICS_EVERY_MS;

/// Largest message we send and accept, in bytes. Topics made by [`ensure_topics`](super::ensure_topics) allow as much.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// How to reach Kafka and what to read there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaConfig {
    /// Bootstrap addresses, `host:port`, separated by commas.
    pub brokers: String,
    /// Encrypt the connection; without it the brokers should be on loopback.
    pub tls: Option<Tls>,
    /// Log in with a user and a password.
    pub sasl: Option<Sasl>,
    /// Consumer group: its members share the partitions.
    pub group: String,
    /// A name for this member that stays the same over restarts and that no other member has, for example the name of
    /// its pod. Started again within `session_timeout_ms`, the member gets its partitions back at once. Without a name
    /// the partitions of a killed member wait that long for another one.
    pub instance_id: Option<String>,
    /// How long a member may be silent before its partitions are given to others, in milliseconds. Brokers allow 6000
    /// to 1800000 unless configured otherwise.
    pub session_timeout_ms: u32,
    /// Topics to read.
    pub topics: Vec<String>,
    /// How long the first contact may take before it is an error, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Memory for fetched messages that were not polled yet, in KiB.
    pub fetch_queue_kib: u32,
    /// Memory for messages that the broker has not acknowledged yet, in KiB.
    pub send_queue_kib: u32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            tls: None,
            sasl: None,
            group: "causeway".to_owned(),
            instance_id: None,
            session_timeout_ms: 10_000,
            topics: Vec::new(),
            connect_timeout_ms: 10_000,
            fetch_queue_kib: 4096,
            send_queue_kib: 16_384,
        }
    }
}

/// PEM files of an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Authorities that may have signed the broker's certificate.
    pub ca: PathBuf,
    /// Our certificate and key, when the broker asks for them.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sasl {
    /// How the password is proven; the broker must offer it.
    pub mechanism: SaslMechanism,
    /// Name of the Kafka user.
    pub username: String,
    /// Its password. Shown neither in logs nor by `config show`.
    pub password: Secret<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaConfig {
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Settings common to consumer, producer and admin client.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "causeway");
        // On brokers with `auto.create.topics.enable` a producer, and an admin client, which is one to librdkafka, would
        // make each topic that they ask for by name, with the broker's defaults. Topics are made by `ensure_topics`.
        client.set("allow.auto.create.topics", "false");
        // A broker that comes back is noticed within a second; 10 s is librdkafka's default. Keepalives find a
        // connection that a firewall or a load balancer has dropped without a reset.
        client.set("reconnect.backoff.max.ms", "1000").set("socket.keepalive.enable", "true");
        client.set_log_level(RDKafkaLogLevel::Warning);
        let protocol = match (&self.sasl, &self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if let Some(Sasl { mechanism, username, password }) = &self.sasl {
            client.set("sasl.mechanism", mechanism.name());
            client.set("sasl.username", username).set("sasl.password", password.expose());
        }
        if let Some(tls) = &self.tls {
            set_tls(&mut client, tls);
        }
        client
    }

    /// Settings of a client that is polled as long as it exists: statistics wait in a queue without limit until they
    /// are polled.
    fn polled_client(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("statistics.interval.ms", STATISTICS_EVERY_MS);
        client
    }

    /// A consumer that stores no position and resets none: positions are the table's.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.polled_client();
        client
            .set("group.id", &self.group)
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            // A member is notified of a rebalance by the answer to a heartbeat. Kafka advises a third of the session
            // timeout at most.
            .set("heartbeat.interval.ms", "1000")
            // `largest`, the default, would skip messages without an error when retention has passed a position.
            .set("auto.offset.reset", "error")
            // Group offsets are reported once rows have landed (`KafkaSource::report`), not when a message was polled.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Readers get messages up to the last stable offset, without those of aborted transactions (KIP-98).
            .set("isolation.level", "read_committed")
            // Off by default: a batch damaged on disk or on the way would be decoded.
            .set("check.crcs", "true")
            // Incremental rebalances (KIP-429): a member keeps reading what it keeps. `range`, the default, takes every
            // partition from every member each time.
            .set("partition.assignment.strategy", "cooperative-sticky")
            // The defaults are 64 MiB of memory and, below, 1 s for which a partition is not fetched after the queue
            // was full.
            .set("queued.max.messages.kbytes", self.fetch_queue_kib.to_string())
            // One answer of a broker, which comes on top of the queue; the default is 50 MiB. The first batch is
            // returned also when it is larger (KIP-74), so that reading goes on.
            .set("fetch.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("fetch.queue.backoff.ms", "10")
            // The broker answers an empty fetch after this time; `fetch.min.bytes` is 1, so that a message is not
            // delayed.
            .set("fetch.wait.max.ms", "100")
            // Added partitions are found within this time; the default is 5 minutes.
            .set("topic.metadata.refresh.interval.ms", "30000");
        if let Some(name) = &self.instance_id {
            // Static membership (KIP-345).
            client.set("group.instance.id", name);
        }
        client
    }

    /// A producer that keeps the order of messages and retries without a time limit: what is dropped is decided by the
    /// spool.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.polled_client();
        client
            // Retries neither repeat nor reorder messages of one producer session (KIP-98). Requires `acks=all`.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Payloads come compressed.
            .set("compression.type", "none")
            // 0 is without limit; by default a message is given up after 5 minutes, which would leave a hole in the
            // order.
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("queue.buffering.max.kbytes", self.send_queue_kib.to_string())
            // Messages that are queued within 5 ms go in one request.
            .set("linger.ms", "5")
            // Murmur2 as in the Java client, so that any producer sends a key to the same partition; the default here
            // is CRC32.
            .set("partitioner", "murmur2_random");
        client
    }
}

impl SaslMechanism {
    fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

fn set_tls(client: &mut ClientConfig, tls: &Tls) {
    client.set("ssl.ca.location", tls.ca.to_string_lossy());
    if let Some(certificate) = &tls.certificate {
        client.set("ssl.certificate.location", certificate.to_string_lossy());
    }
    if let Some(key) = &tls.key {
        client.set("ssl.key.location", key.to_string_lossy());
    }
}

#[cfg(test)]
mod tests;
