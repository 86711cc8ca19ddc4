//! What a user sets about Kafka, and how it becomes librdkafka's settings. Secrets never reach a log or `config show`.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};
use service_kit::config::Secret;

use super::known::STATISTICS_EVERY_MS;

/// Largest message we send and accept, in bytes. Topics made by [`ensure_topics`](super::ensure_topics) allow as much.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 << 20;

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
    /// A name for this member that stays the same over restarts and is no other member's, for example the pod's. Started
    /// again within `session_timeout_ms` it gets its partitions back at once; without a name a killed member's partitions
    /// wait that long for another one.
    pub instance_id: Option<String>,
    /// How long a member may be silent before its partitions are given to others, in milliseconds. Brokers allow 6000 to
    /// 1800000 unless configured otherwise.
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
        // A broker that comes back is noticed within a second; ten seconds is librdkafka's default.
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

    /// Settings of a client that is polled as long as it lives: reports wait in a queue without limit until they are polled.
    fn polled_client(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("statistics.interval.ms", STATISTICS_EVERY_MS);
        client
    }

    /// A consumer that remembers nothing and resets nothing: positions are the table's.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.polled_client();
        client
            .set("group.id", &self.group)
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            // Members learn of a rebalance by their heartbeats.
            .set("heartbeat.interval.ms", "1000")
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // The defaults (64 MiB, 1 s) cost memory and stall a full queue.
            .set("queued.max.messages.kbytes", self.fetch_queue_kib.to_string())
            // One answer of a broker; the default of 50 MiB comes on top of the queue. A larger message still comes, alone.
            .set("fetch.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", "100")
            // New partitions are seen within this time.
            .set("topic.metadata.refresh.interval.ms", "30000");
        if let Some(name) = &self.instance_id {
            client.set("group.instance.id", name);
        }
        client
    }

    /// A producer that keeps the order of messages and retries without a time limit: what is dropped is decided by the spool.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut client = self.polled_client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "none")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
            .set("queue.buffering.max.kbytes", self.send_queue_kib.to_string())
            .set("linger.ms", "5")
            // As the Java clients do it, so that any producer sends a key to the same partition.
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
