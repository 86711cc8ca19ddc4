//! Real servers for a bench: started by the scripts in `infra/dev`, stopped when the bench ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use event_schema::topics;
use lake::LakeOptions;
use stream::kafka::{KafkaConfig, TopicSpec, ensure_topics};

use super::BenchError;
use crate::child::sibling;

/// The lake of a bench, in its directory.
pub fn lake_in(dir: &Path) -> LakeOptions {
    LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.display()),
        warehouse: dir.join("warehouse").display().to_string(),
        s3: None,
    }
}

/// A service of this workspace between a broker and the lake of a bench.
pub fn service(name: &str, dir: &Path, kafka: &Kafka) -> Command {
    let lake = lake_in(dir);
    let mut command = Command::new(sibling(name));
    command
        .env("CAUSEWAY_KAFKA_BROKERS", kafka.config().brokers)
        .env("CAUSEWAY_CATALOG_URI", lake.catalog_uri)
        .env("CAUSEWAY_STORE_WAREHOUSE", lake.warehouse)
        .env("CAUSEWAY_ADMIN_PORT", "0")
        .current_dir(dir);
    command
}

/// A Kafka broker in a directory of its own.
#[derive(Debug)]
pub struct Kafka {
    dir: PathBuf,
    port: u16,
}

/// A port that is free now.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16, BenchError> {
    // Port 0 makes the kernel choose. Another process may take the port before it is used: the start then fails.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|source| BenchError::io("finding a free port", source))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/dev").join(name)
}

fn run(command: &mut Command) -> Result<(), BenchError> {
    let what = format!("{command:?}");
    match command.stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(BenchError::io(what, std::io::Error::other(status.to_string()))),
        Err(source) => Err(BenchError::io(what, source)),
    }
}

impl Kafka {
    /// Starts a broker on a port that is free.
    ///
    /// # Errors
    /// No port is free, or the script fails; its message is on standard error.
    pub fn start(dir: &Path) -> Result<Self, BenchError> {
        let dir = dir.join("kafka");
        let port = free_port()?;
        run(Command::new(script("kafka.sh")).arg("up").arg(&dir).args(["--port", &port.to_string()]))?;
        Ok(Self { dir, port })
    }

    pub fn config(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: format!("127.0.0.1:{}", self.port),
            topics: vec![topics::EVENTS.to_owned()],
            ..KafkaConfig::default()
        }
    }

    /// Makes the topics of the product with `partitions` partitions each.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn make_topics(&self, partitions: i32) -> Result<(), BenchError> {
        let names = [topics::EVENTS, topics::CRITICAL, topics::DEAD_LETTERS];
        // Unlimited retention: messages of a long bench must not expire. One broker: one replica.
        let specs = names.map(|name| TopicSpec { name: name.to_owned(), partitions, replication: 1, retention_ms: -1 });
        Ok(ensure_topics(&self.config(), &specs).await?)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = run(Command::new(script("kafka.sh")).arg("down").arg(&self.dir));
    }
}
