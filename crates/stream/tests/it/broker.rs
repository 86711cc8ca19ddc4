//! A real broker for tests, shared by those that run at the same time, gone with the last of them.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use stream::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use tempfile::TempDir;

pub(crate) struct Broker {
    pub(crate) address: String,
    /// `None` when the environment named a broker.
    dir: Option<TempDir>,
}

static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());

impl Broker {
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(broker) = shared.upgrade() {
            return broker;
        }
        let broker = Arc::new(match std::env::var("CAUSEWAY_TEST_KAFKA") {
            Ok(address) => Self { address, dir: None },
            Err(_) => Self::own(),
        });
        *shared = Arc::downgrade(&broker);
        broker
    }

    /// A broker that this test may kill.
    pub(crate) fn own() -> Self {
        let dir = TempDir::new().unwrap();
        script(dir.path(), &["up"], &["--port", "auto"]);
        let env = script(dir.path(), &["env"], &[]);
        let address = env.lines().find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP=")).unwrap();
        Self { address: address.trim_matches(['\'', '"']).to_owned(), dir: Some(dir) }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        script(self.dir.as_ref().unwrap().path(), &["kill"], &[]);
    }

    pub(crate) fn restart(&self) {
        script(self.dir.as_ref().unwrap().path(), &["up"], &[]);
    }

    /// A topic of this test's own, and a configuration that reads it.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> KafkaConfig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = KafkaConfig {
            brokers: self.address.clone(),
            group: format!("group-{name}"),
            topics: vec![name.clone()],
            ..KafkaConfig::default()
        };
        let spec = TopicSpec { name, partitions, replication: 1, retention_ms: -1 };
        futures::executor::block_on(ensure_topics(&config, std::slice::from_ref(&spec))).unwrap();
        futures::executor::block_on(ensure_topics(&config, &[spec])).expect("a topic that exists is left alone");
        config
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            script(dir.path(), &["kill"], &[]);
        }
    }
}

fn script(dir: &Path, before: &[&str], after: &[&str]) -> String {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("infra/dev/kafka.sh"));
    let path = above.into_iter().find(|path| path.exists()).expect("infra/dev/kafka.sh in this repository");
    let output = Command::new("bash").arg(path).args(before).arg(dir).args(after).output().unwrap();
    assert!(output.status.success(), "kafka.sh {before:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
