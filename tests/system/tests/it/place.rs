//! Servers, a configuration that names them, and the judges of what the programs have written there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use event_schema::position::{Message, NextOffset, TopicPartition};
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use stream::kafka::{KafkaConfig, KafkaSource};
use stream::{Source, SourceEvent};
use tempfile::TempDir;

use crate::program::{self, Program, Said};
use crate::server::{Server, infra};
use crate::{wait_for_rest, wait_until};

pub(crate) use event_schema::topics::{CRITICAL, EVENTS};

/// Where tables are kept.
enum Store {
    /// SQLite and a directory.
    Local,
    Remote {
        postgres: Server,
        s3: Server,
    },
}

pub(crate) struct Place {
    dir: TempDir,
    pub(crate) kafka: Server,
    store: Store,
    /// Of the topic of events; the critical one has one.
    partitions: i32,
}

impl Place {
    /// Kafka, and tables in a directory.
    pub(crate) fn local() -> Self {
        Self::with(Server::kafka(), Store::Local, 2)
    }

    /// Kafka, PostgreSQL and S3.
    pub(crate) fn remote(partitions: i32) -> Self {
        std::thread::scope(|scope| {
            let kafka = scope.spawn(Server::kafka);
            let store = Store::Remote { postgres: Server::postgres(), s3: Server::s3() };
            Self::with(kafka.join().unwrap(), store, partitions)
        })
    }

    fn with(kafka: Server, store: Store, partitions: i32) -> Self {
        let place = Self { dir: TempDir::new().unwrap(), kafka, store, partitions };
        std::fs::write(place.config(), place.settings()).unwrap();
        place
    }

    /// A directory of this place.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn postgres(&self) -> &Server {
        let Store::Remote { postgres, .. } = &self.store else { panic!("this place has no PostgreSQL") };
        postgres
    }

    pub(crate) fn s3(&self) -> &Server {
        let Store::Remote { s3, .. } = &self.store else { panic!("this place has no S3") };
        s3
    }

    pub(crate) fn brokers(&self) -> String {
        self.kafka.env("KAFKA_BOOTSTRAP")
    }

    /// The file that every program is configured by.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("causeway.toml")
    }

    fn settings(&self) -> String {
        let (catalog, store) = match &self.store {
            Store::Local => (self.sqlite(), format!("warehouse = '{}'", self.dir.path().join("warehouse").display())),
            Store::Remote { postgres, s3 } => (
                postgres.env("DATABASE_URL"),
                format!(
                    "warehouse = 's3://{}/warehouse'\nendpoint = '{}'\nregion = 'us-east-1'\naccess_key_id = 'test'\n\
                     secret_access_key = 'test'\npath_style = true",
                    s3.env("S3_BUCKET"),
                    s3.env("AWS_ENDPOINT_URL")
                ),
            ),
        };
        format!(
            "[kafka]\nbrokers = '{}'\nsession_timeout_ms = 6000\nconnect_timeout_ms = 10000\n[catalog]\nuri = '{catalog}'\n[store]\n{store}\n\
             [ingest]\ncommit_interval = '200ms'\nidle_commit_interval = '1s'\ntopic_partitions = {}\n",
            self.brokers(),
            self.partitions
        )
    }

    fn sqlite(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("catalog.sqlite").display())
    }

    /// A program configured by this place.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = program::command(name);
        command.arg("--config").arg(self.config());
        command
    }

    /// Adds partitions to the topic of events, up to so many.
    pub(crate) fn grow(&mut self, partitions: i32) {
        let mut config = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> =
            config.set("bootstrap.servers", self.brokers()).create().unwrap();
        let more = [NewPartitions::new(EVENTS, usize::try_from(partitions).unwrap())];
        let options = AdminOptions::new();
        for grown in block_on(admin.create_partitions(&more, &options)).unwrap() {
            grown.unwrap();
        }
        self.partitions = partitions;
    }

    /// The topic of events is to have so many partitions when it is made anew.
    pub(crate) fn set_partitions(&mut self, partitions: i32) {
        self.partitions = partitions;
    }

    /// A reader of Kafka outside every group.
    fn observer(&self) -> KafkaSource {
        let config = KafkaConfig {
            brokers: self.brokers(),
            group: "observer".to_owned(),
            topics: vec![EVENTS.to_owned(), CRITICAL.to_owned()],
            ..KafkaConfig::default()
        };
        KafkaSource::open(&config).unwrap()
    }

    /// The end of every partition that ingest reads.
    fn ends(&self, observer: &mut KafkaSource) -> BTreeMap<TopicPartition, i64> {
        let events = (0..self.partitions).map(|partition| TopicPartition::new(EVENTS, partition));
        let all = events.chain([TopicPartition::new(CRITICAL, 0)]);
        all.map(|at| (at.clone(), observer.watermarks(&at).unwrap().high.0)).collect()
    }

    /// Partitions of the topic of events.
    pub(crate) fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Where the partitions of a topic end together; `None` when the topic is not there for the moment.
    pub(crate) fn messages_in(&self, topic: &str) -> Option<i64> {
        let config = KafkaConfig {
            brokers: self.brokers(),
            group: "observer-of-one".to_owned(),
            topics: vec![topic.to_owned()],
            ..KafkaConfig::default()
        };
        let mut observer = KafkaSource::open(&config).ok()?;
        let ends = (0..self.partitions)
            .map(|partition| Some(observer.watermarks(&TopicPartition::new(topic, partition)).ok()?.high.0));
        ends.sum()
    }

    /// How many messages Kafka holds.
    pub(crate) fn messages_in_kafka(&self) -> i64 {
        self.ends(&mut self.observer()).values().sum()
    }

    /// Everything in Kafka, in order within a partition.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut observer = self.observer();
        let mut left = usize::try_from(self.messages_in_kafka()).unwrap();
        let mut messages = Vec::with_capacity(left);
        wait_until("everything in Kafka is read", || {
            match observer.poll(Duration::from_millis(100), usize::MAX).unwrap() {
                SourceEvent::Assigned(partitions) => {
                    let from_the_start: Vec<_> = partitions.into_iter().map(|at| (at, NextOffset(0))).collect();
                    observer.start(&from_the_start).unwrap();
                }
                SourceEvent::Messages(read) => {
                    // More may have come since the ends were asked for.
                    left = left.saturating_sub(read.len());
                    messages.extend(read);
                }
                SourceEvent::Skipped(range) => left -= usize::try_from(range.len()).unwrap(),
                SourceEvent::Revoked(_) | SourceEvent::Idle => {}
            }
            left == 0
        });
        messages
    }

    /// Waits until the tables hold everything Kafka does, as the members that have the partitions report.
    #[track_caller]
    pub(crate) fn wait_for_no_lag(&self, members: &[&Program]) {
        let ends = self.ends(&mut self.observer());
        let reached = |at: &TopicPartition| -> Vec<Option<f64>> {
            let labels = [format!("topic=\"{}\"", at.topic), format!("partition=\"{}\"", at.partition)];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            members.iter().map(|member| member.metric("causeway_ingest_next_offset", &labels)).collect()
        };
        wait_for_rest(
            "the tables reach the ends of the partitions (by partition: end, reached by each member)",
            || {
                let reached = ends.iter().map(|(at, end)| (at, *end, reached(at)));
                let is_behind = |(_, end, reached): &(_, i64, Vec<Option<f64>>)| {
                    !reached.iter().flatten().any(|next| *next >= *end as f64)
                };
                reached.filter(is_behind).collect()
            },
        );
    }

    /// `causeway audit` of the tables.
    pub(crate) fn audit(&self) -> Said {
        let mut command = self.command("causeway");
        command.arg("audit");
        program::run(command)
    }

    /// The audit must hold.
    #[track_caller]
    pub(crate) fn assert_audit_holds(&self) {
        let said = self.audit().ok();
        assert!(said.out.contains("audit passed"), "{}", said.out);
        eprintln!("{}", said.out.lines().last().unwrap_or_default());
    }

    /// What PyIceberg and DuckDB count in a table, each on its own; they must agree, and no row may be there twice.
    #[track_caller]
    pub(crate) fn oracle(&self, table: &str, more: &[&str]) -> Count {
        let cache = std::env::var("CAUSEWAY_CACHE");
        let cache = cache.unwrap_or_else(|_| format!("{}/.cache/causeway", std::env::var("HOME").unwrap()));
        let mut command = Command::new(Path::new(&cache).join("venv/bin/python"));
        command.arg(infra().join("oracle.py")).args(["--table", table]).args(more);
        match &self.store {
            Store::Local => command.args(["--catalog", &self.sqlite().replace("sqlite://", "sqlite:///")]),
            Store::Remote { postgres, s3 } => {
                let catalog = postgres.env("DATABASE_URL").replace("postgres://", "postgresql+psycopg2://");
                command.args(["--catalog", &catalog, "--s3-endpoint", &s3.env("AWS_ENDPOINT_URL")])
            }
        };
        let answer = Program::start(command).end(Duration::from_secs(300)).ok().json();
        let count = &answer["pyiceberg"];
        let sum = count.as_object().unwrap().iter().find(|(name, _)| name.starts_with("sum_")).unwrap().1;
        let groups = count["groups"].as_object().unwrap();
        Count {
            rows: count["count"].as_u64().unwrap(),
            sum: sum.as_str().unwrap().parse().unwrap(),
            groups: groups.iter().map(|(name, rows)| (name.clone(), rows.as_u64().unwrap())).collect(),
        }
    }
}

/// What a table holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) rows: u64,
    /// Of the column named by `--sum`: `seq`, unless set.
    pub(crate) sum: i128,
    /// Rows by the columns named by `--group`: `node`, unless set.
    pub(crate) groups: BTreeMap<String, u64>,
}
