//! When a table's task commits, and that a slow table delays no other.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_schema::kind::RecordKind;
use event_schema::position::Message;
use lake::{Lake, LakeOptions};
use prometheus_client::registry::Registry;
use service_kit::admin::Readiness;
use tables::arrival::Arrival;
use tables::registry::find;

use super::*;
use crate::batch::{Budget, Charged};
use crate::metrics::Metrics;
use crate::room::Room;

const LONG: Duration = Duration::from_secs(3_600);
const STACKS: Content = Content::Records(RecordKind::Stack);

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// Messages that do not decode, as the log gives them.
fn batch(offsets: std::ops::Range<i64>, budget: &Budget) -> SharedBatch {
    let ends = BTreeMap::from([(at(), NextOffset(offsets.end))]);
    let arrival = |offset| {
        let (key, payload, headers) = (None, Bytes::from_static(b"x"), Vec::new());
        let message = Message { at: at(), offset, timestamp_ms: 0, key, payload, headers };
        Arc::new(Charged::new(Arrival::decode(message, 0), budget))
    };
    let arrivals = offsets.map(arrival).collect();
    SharedBatch { arrivals, skipped: Vec::new(), ends, marks: Vec::new(), checkpoints: Vec::new() }
}

async fn lake(dir: &std::path::Path) -> Lake {
    let dir = dir.display();
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{dir}/catalog.sqlite"),
        warehouse: format!("{dir}/warehouse"),
        s3: None,
    };
    Lake::open(options).await.unwrap()
}

async fn sink(lake: &Lake, namespace: &str, name: &str) -> Sink {
    let table = find(namespace, name).unwrap();
    let handle = lake.ensure_table(&table.def).await.unwrap();
    let reachable = Readiness::new().condition(name.to_owned(), "");
    Sink::new(table, handle, reachable, Room::new(1 << 20), Metrics::new(&mut Registry::default()))
}

/// A lake, and the tasks of some of its tables.
struct Running {
    dir: tempfile::TempDir,
    tasks: TableTasks,
    reports: mpsc::UnboundedReceiver<Report>,
    abandoned: Drain,
    budget: Budget,
}

impl Running {
    async fn start(tables: &[(&str, &str)], pace: Pace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(dir.path()).await;
        let mut sinks = Vec::new();
        for (namespace, name) in tables {
            sinks.push(sink(&lake, namespace, name).await);
        }
        let abandoned = Drain::new();
        let (tasks, reports) = TableTasks::start(sinks, pace, &abandoned);
        tasks.take_over(&[at()]).await.unwrap();
        Self { dir, tasks, reports, abandoned, budget: Budget::new(1 << 20) }
    }

    fn post(&self, offsets: std::ops::Range<i64>, urgency: Urgency) {
        self.tasks.post(&batch(offsets, &self.budget), urgency, &[]);
    }

    fn next(&self, content: Content) -> i64 {
        self.tasks.next_of(content, &at()).unwrap().0
    }

    /// Waits until a table stands there.
    async fn reaches(&mut self, content: Content, next: i64) {
        let reached = async {
            while self.next(content) < next {
                assert!(matches!(self.reports.recv().await, Some(Report::Landed)));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the table is committed");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

/// Dead letters leave rows in `bronze.messages`, which is committed with every batch, and in `ops.dlq`, which is committed seldom.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_few_rows_waits_for_more_and_holds_their_memory_until_it_is_committed() {
    let pace = Pace { commit_interval: LONG, idle_commit_interval: LONG };
    let mut running = Running::start(&[("bronze", "messages"), ("ops", "dlq")], pace).await;
    running.post(0..3, Urgency::ByPolicy);
    running.reaches(Content::Messages, 3).await;
    assert_eq!(running.next(Content::DeadLetters), 0);
    assert!(running.budget.used_bytes() > 0);
    running.post(3..5, Urgency::Rows);
    running.tasks.settled().await.unwrap();
    assert_eq!((running.next(Content::Messages), running.next(Content::DeadLetters)), (5, 5));
    assert_eq!(running.budget.used_bytes(), 0);
    let commits = lake(running.dir.path()).await.table("ops", "dlq").snapshot().await.unwrap().sequence_number();
    assert_eq!(commits, 1, "both batches in one commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_committed_at_once() {
    let pace = Pace { commit_interval: LONG, idle_commit_interval: LONG };
    let mut running = Running::start(&[("ops", "dlq")], pace).await;
    let many = find("ops", "dlq").unwrap().commit.messages as i64;
    running.post(0..many - 1, Urgency::ByPolicy);
    running.post(many - 1..many, Urgency::ByPolicy);
    running.reaches(Content::DeadLetters, many).await;
}

/// Messages that do not decode leave no row in `silver.stacks`.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_follows_after_a_while_and_at_once_when_all_is_to_land() {
    let pace = Pace { commit_interval: LONG, idle_commit_interval: Duration::from_millis(50) };
    let mut running = Running::start(&[("silver", "stacks")], pace).await;
    running.post(0..2, Urgency::ByPolicy);
    running.reaches(STACKS, 2).await;

    let pace = Pace { commit_interval: LONG, idle_commit_interval: LONG };
    let running = Running::start(&[("silver", "stacks")], pace).await;
    running.post(0..2, Urgency::Rows);
    running.tasks.settled().await.unwrap();
    assert_eq!(running.next(STACKS), 0, "it has no rows");
    running.post(2..2, Urgency::All);
    running.tasks.settled().await.unwrap();
    assert_eq!(running.next(STACKS), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_rows_is_committed_rarely_while_only_few_messages_lie_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let idle = Duration::from_secs(5);
    let sink = sink(&lake(dir.path()).await, "silver", "stacks").await;
    sink.standing().take_over(&[at()]).await.unwrap();
    let (reports, _) = mpsc::unbounded_channel();
    let worker = Worker {
        standing: sink.standing(),
        sink,
        mailbox: Arc::new(Mailbox::new()),
        pace: Pace { commit_interval: LONG, idle_commit_interval: idle },
        committed: Instant::now(),
        reports,
    };
    let few = FEW_MESSAGES as i64 - 1;
    for (end, times) in [(0, None), (few, Some(RARELY)), (few + 1, Some(1))] {
        let share = Share::up_to(BTreeMap::from([(at(), NextOffset(end))]), Vec::new());
        worker.mailbox.post(share, Urgency::ByPolicy);
        let due = times.map(|times| worker.committed + idle * times);
        assert_eq!(worker.next(worker.committed), Next::Wait(due), "{end} messages behind");
        assert!(due.is_none_or(|due| worker.next(due) == Next::Land));
    }
    worker.mailbox.close();
    assert_eq!(worker.next(worker.committed), Next::End);
}

/// Where a log begins is read anew when it is taken over again: an end from before that could pass a gap.
#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_log_is_to_land_is_forgotten_when_it_is_given_up() {
    let pace = Pace { commit_interval: LONG, idle_commit_interval: LONG };
    let running = Running::start(&[("silver", "stacks")], pace).await;
    running.post(0..2, Urgency::ByPolicy);
    running.tasks.give_up(&[at()]);
    running.tasks.take_over(&[at()]).await.unwrap();
    running.tasks.of(STACKS).for_each(|task| task.standing.skip_to(&at(), NextOffset(1)));
    let batch = SharedBatch { ends: BTreeMap::new(), ..batch(0..0, &running.budget) };
    running.tasks.post(&batch, Urgency::All, &[]);
    running.tasks.settled().await.unwrap();
    let snapshot = lake(running.dir.path()).await.table("silver", "stacks").snapshot().await.unwrap();
    assert_eq!(snapshot.offsets(), BTreeMap::new());
}

/// The store takes no metadata of one table; the other one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_committed_delays_no_other() {
    let pace = Pace { commit_interval: Duration::ZERO, idle_commit_interval: LONG };
    let mut running = Running::start(&[("bronze", "messages"), ("ops", "dlq")], pace).await;
    let metadata = running.dir.path().join("warehouse/ops/dlq/metadata");
    let aside = running.dir.path().join("aside");
    std::fs::rename(&metadata, &aside).unwrap();
    std::fs::write(&metadata, b"no directory").unwrap();
    for nth in 0..3 {
        running.post(nth..nth + 1, Urgency::ByPolicy);
        running.reaches(Content::Messages, nth + 1).await;
    }
    assert_eq!(running.next(Content::DeadLetters), 0);
    std::fs::remove_file(&metadata).unwrap();
    std::fs::rename(&aside, &metadata).unwrap();
    running.reaches(Content::DeadLetters, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_says_why_and_is_waited_for_no_longer() {
    let pace = Pace { commit_interval: LONG, idle_commit_interval: LONG };
    let mut running = Running::start(&[("ops", "dlq")], pace).await;
    let catalog = format!("sqlite://{}/catalog.sqlite", running.dir.path().display());
    let mut catalog = <sqlx::SqliteConnection as sqlx::Connection>::connect(&catalog).await.unwrap();
    sqlx::query("DELETE FROM iceberg_tables").execute(&mut catalog).await.unwrap();
    running.post(0..1, Urgency::Rows);
    assert!(running.tasks.settled().await.is_err());
    assert!(matches!(running.reports.recv().await, Some(Report::Failed(SinkError::Stopped { .. }))));
}
