//! Ingest over a real spool directory, SQLite catalog and Parquet files: what goes in comes out once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cognitive_complexity,
    reason = "a test crate: a surprise should end the test, and numbers are small"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use event_schema::batch::{Event, EventRows, MeasuredDuration};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{HeaderDraft, encode};
use futures::TryStreamExt;
use ingest::{Ingest, IngestError, Metrics, Options, Parts, Summary, Until};
use lake::{Lake, LakeOptions, TableReader};
use prometheus_client::registry::Registry;
use service_kit::admin::Readiness;
use service_kit::clock::SystemClock;
use service_kit::run::Drain;
use stream::Source;
use stream::log::{LogOptions, LogSource, LogWriter};

mod faults;
mod made_anew;
mod program;
mod rebuild;
mod reprocess;
mod s3;
mod staged;
mod tags;

use staged::Staged;

const TOPIC: &str = topics::EVENTS;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    async fn lake(&self) -> Lake {
        let dir = self.dir.path().display();
        let options = LakeOptions {
            catalog_uri: format!("sqlite://{dir}/catalog.sqlite"),
            warehouse: format!("{dir}/warehouse"),
            s3: None,
        };
        Lake::open(options).await.unwrap()
    }

    async fn ingest(&self) -> Result<Summary, IngestError> {
        let options =
            Options { until: Until::CaughtUp, commit_interval: Duration::from_millis(20), ..Options::default() };
        self.ingest_with(options).await
    }

    async fn ingest_with(&self, options: Options) -> Result<Summary, IngestError> {
        self.ingest_until(options, Drain::new()).await
    }

    async fn ingest_until(&self, options: Options, drain: Drain) -> Result<Summary, IngestError> {
        self.ingest_from(Box::new(LogSource::new(self.spool(), topics::READ)), options, drain).await
    }

    async fn ingest_from(&self, log: Box<dyn Source>, options: Options, drain: Drain) -> Result<Summary, IngestError> {
        self.open(options, &Readiness::new()).await?.run(log, drain).await
    }

    async fn open(&self, options: Options, readiness: &Readiness) -> Result<Ingest, IngestError> {
        Ingest::open(parts(&self.lake().await, readiness), options).await
    }

    async fn rows(&self, namespace: &str, name: &str) -> RecordBatch {
        let snapshot = self.lake().await.table(namespace, name).snapshot().await.unwrap();
        let batches: Vec<_> = snapshot.scan_batches(&[], &[]).await.unwrap().try_collect().await.unwrap();
        arrow::compute::concat_batches(snapshot.schema(), &batches).unwrap()
    }

    async fn longs(&self, namespace: &str, name: &str, column: &str) -> Vec<i64> {
        let rows = self.rows(namespace, name).await;
        let mut values = rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
        values.sort_unstable();
        values
    }
}

/// What ingest works with when its log is a spool.
fn parts<'a>(lake: &'a Lake, readiness: &'a Readiness) -> Parts<'a> {
    let metrics = Metrics::new(&mut Registry::default());
    Parts { lake, tables: tables::registry::all(), kafka: None, clock: Arc::new(SystemClock), metrics, readiness }
}

fn writer(spool: &Path, partition: i32) -> LogWriter {
    LogWriter::open(spool, &TopicPartition::new(TOPIC, partition), LogOptions::default()).unwrap()
}

fn message(node: &str, first_seq: i64, rows: i64) -> Bytes {
    let mut events = EventRows::new();
    for i in 0..rows {
        let event = Event {
            boot_ns: (first_seq + i) * 1_000,
            duration: Some(MeasuredDuration::of_each(i)),
            sample_weight: 1.0,
            ..Event::default()
        };
        events.push(&event.with_op(Op::CudaLaunchKernel));
    }
    let draft = HeaderDraft {
        kind: RecordKind::Event,
        cluster: "c".into(),
        node: node.into(),
        boot_id: "0123456789".into(),
        epoch: 0,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: 1_763_000_000_000_000_000, error_ns: 1 },
        losses: LossCounters { emitted: rows as u64, ..LossCounters::default() },
        agent: "test".into(),
    };
    encode(&draft, first_seq, &events.finish().unwrap()).unwrap()
}

fn append(writer: &mut LogWriter, messages: &[Bytes]) {
    for m in messages {
        writer.append(Some(b"k"), m, 1_763_000_000_000).unwrap();
    }
    writer.sync().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_lands_once_in_every_table() {
    let place = Place::new();
    let (mut a, mut b) = (writer(&place.spool(), 0), writer(&place.spool(), 1));
    append(&mut a, &[message("a", 0, 100), message("a", 100, 50)]);
    append(&mut b, &[message("b", 0, 30)]);
    let summary = place.ingest().await.unwrap();
    assert_eq!((summary.messages, summary.rows, summary.duplicate_rows), (3, 180, 0));
    assert_eq!(place.rows("silver", "events").await.num_rows(), 180);
    assert_eq!(place.rows("bronze", "messages").await.num_rows(), 3);
    assert_eq!(place.rows("ops", "ledger").await.num_rows(), 3);
    assert_eq!(place.longs("gold", "op_minute", "count").await.iter().sum::<i64>(), 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tables_hold_the_offsets_of_the_log_after_a_drain() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    let lake = place.lake().await;
    for table in tables::registry::all() {
        let offsets = lake.table(table.def.name.namespace, table.def.name.name).offsets().await.unwrap();
        assert_eq!(offsets.get(&TopicPartition::new(TOPIC, 0)), Some(&NextOffset(1)), "{}", table.def.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_saw_nothing_follow_a_log_that_went_quiet() {
    let place = Arc::new(Place::new());
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    let options = Options {
        commit_interval: Duration::from_millis(20),
        idle_commit_interval: Duration::from_millis(200),
        ..Options::default()
    };
    let drain = Drain::new();
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(&place), drain.clone());
        async move { place.ingest_until(options, drain).await }
    });
    let at = TopicPartition::new(TOPIC, 0);
    for table in tables::registry::all() {
        let name = table.def.name;
        let table = place.lake().await.table(name.namespace, name.name);
        tokio::time::timeout(Duration::from_secs(30), has_landed(&table, &at))
            .await
            .unwrap_or_else(|_| panic!("{name} stayed behind"));
    }
    drain.cancel();
    running.await.unwrap().unwrap();
}

/// Waits until a table has an offset of a partition.
async fn has_landed(table: &TableReader, at: &TopicPartition) {
    while !table.offsets().await.is_ok_and(|offsets| offsets.contains_key(at)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Or a later start would miss there what retention has deleted meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_saw_nothing_follow_a_quiet_partition_beside_a_busy_one() {
    let place = Arc::new(Place::new());
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    let mut busy = writer(&place.spool(), 1);
    let options = Options {
        commit_interval: Duration::from_millis(20),
        idle_commit_interval: Duration::from_millis(300),
        ..Options::default()
    };
    let drain = Drain::new();
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(&place), drain.clone());
        async move { place.ingest_until(options, drain).await }
    });
    let (quiet, lake) = (TopicPartition::new(TOPIC, 0), place.lake().await);
    let follows = async |table: &tables::registry::Table| {
        let offsets = lake.table(table.def.name.namespace, table.def.name.name).offsets().await;
        offsets.is_ok_and(|offsets| offsets.contains_key(&quiet))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut sent = 0;
    for table in tables::registry::all() {
        while !follows(table).await {
            assert!(std::time::Instant::now() < deadline, "{} stayed behind", table.def.name);
            append(&mut busy, &[message("b", sent, 1)]);
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    drain.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_lands_only_what_is_new() {
    let place = Place::new();
    let mut log = writer(&place.spool(), 0);
    append(&mut log, &[message("a", 0, 10)]);
    place.ingest().await.unwrap();
    append(&mut log, &[message("a", 10, 10)]);
    let summary = place.ingest().await.unwrap();
    assert_eq!((summary.messages, summary.rows), (1, 10));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..20).collect::<Vec<_>>());
    let nothing = place.ingest().await.unwrap();
    assert_eq!(nothing, Summary::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_sends_again_lands_once_also_after_a_restart() {
    let place = Place::new();
    let mut log = writer(&place.spool(), 0);
    append(&mut log, &[message("a", 0, 10), message("a", 10, 10)]);
    place.ingest().await.unwrap();
    append(&mut log, &[message("a", 10, 10), message("a", 20, 5)]);
    let summary = place.ingest().await.unwrap();
    assert_eq!((summary.rows, summary.duplicate_rows), (5, 10));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..25).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_decode_is_a_dead_letter_and_nothing_waits_for_it() {
    let place = Place::new();
    let damaged = {
        let mut bytes = message("a", 5, 3).to_vec();
        bytes[40] ^= 1;
        Bytes::from(bytes)
    };
    let mut log = writer(&place.spool(), 0);
    append(&mut log, &[message("a", 0, 5), damaged.clone(), Bytes::from_static(b"hello"), message("a", 8, 2)]);
    let summary = place.ingest().await.unwrap();
    assert_eq!((summary.rows, summary.rejected), (7, 2));
    let dead = place.rows("ops", "dlq").await;
    let payloads: Vec<_> = dead.column_by_name("payload").unwrap().as_binary::<i32>().iter().flatten().collect();
    assert_eq!(payloads, [&damaged[..], b"hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_over_one_log_land_everything_once() {
    let place = Arc::new(Place::new());
    let mut log = writer(&place.spool(), 0);
    let messages: Vec<_> = (0..200).map(|i| message("a", i * 10, 10)).collect();
    append(&mut log, &messages);
    // A small budget makes many batches, so that the two get in each other's way.
    let options = Options {
        until: Until::CaughtUp,
        commit_interval: Duration::from_millis(5),
        memory_bytes: 64 << 10,
        ..Options::default()
    };
    let (one, two) = tokio::join!(
        tokio::spawn({
            let place = Arc::clone(&place);
            async move { place.ingest_with(options).await }
        }),
        tokio::spawn({
            let place = Arc::clone(&place);
            async move { place.ingest_with(options).await }
        }),
    );
    one.unwrap().unwrap();
    two.unwrap().unwrap();
    assert_eq!(place.longs("silver", "events", "seq").await, (0..2_000).collect::<Vec<_>>());
    assert_eq!(place.longs("bronze", "messages", "log_offset").await, (0..200).collect::<Vec<_>>());
    assert_eq!(place.longs("gold", "op_minute", "count").await.iter().sum::<i64>(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_anew_under_the_same_name_is_refused_by_name() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    std::fs::remove_dir_all(place.spool()).unwrap();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5), message("a", 5, 5)]);
    let refused = place.ingest().await.unwrap_err();
    assert!(matches!(refused, IngestError::Reader(_)), "{refused:?}");
    assert!(refused.to_string().contains("causeway.events.v1/0 is another log"), "{refused}");
}

/// Idle tables stand behind `bronze.messages`: their offsets alone would not show that the end of the log is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_is_refused_although_some_table_stands_before_it() {
    let place = Arc::new(Place::new());
    let mut log = writer(&place.spool(), 0);
    append(&mut log, &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    let running = tokio::spawn({
        let place = Arc::clone(&place);
        async move { place.ingest_with(Options { commit_interval: Duration::from_millis(5), ..Options::default() }).await }
    });
    append(&mut log, &[message("a", 5, 5)]);
    let at = TopicPartition::new(TOPIC, 0);
    let lake = place.lake().await;
    let next = async |table: &tables::registry::Table| {
        let name = table.def.name;
        lake.table(name.namespace, name.name).offsets().await.unwrap().get(&at).copied()
    };
    let of_rows = ["bronze.messages", "silver.events", "gold.op_minute", "ops.ledger"];
    for table in tables::registry::all().iter().filter(|t| of_rows.contains(&t.def.name.to_string().as_str())) {
        while next(table).await != Some(NextOffset(2)) {
            assert!(!running.is_finished());
            tokio::task::yield_now().await;
        }
    }
    running.abort();
    let _ = running.await;
    assert_eq!(next(tables::registry::find("gold", "chains").unwrap()).await, Some(NextOffset(1)));
    let options = Options { until: Until::CaughtUp, ..Options::default() };
    // As an unclean leader election leaves a log: the same one, and shorter. The spool itself notices such a loss.
    let log = Staged { high: Some(NextOffset(1)), ..Staged::new(place.spool(), topics::READ) };
    let refused = service_kit::run::report(&place.ingest_from(Box::new(log), options, Drain::new()).await.unwrap_err());
    assert!(refused.contains("was truncated"), "{refused}");
}
