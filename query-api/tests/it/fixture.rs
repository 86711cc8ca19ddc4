//! A small lake and a service over it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use event_schema::batch::{Event, EventRows, MeasuredDuration, Rows, Value as Cell};
use event_schema::clock::Beacon;
use event_schema::identity::first_seq;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{Message, TopicPartition};
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{self, HeaderDraft};
use lake::{CommitOutcome, CommitRequest, Lake, LakeOptions, Token};
use query_api::http::HttpOptions;
use query_api::service::{Listener, Options, Parts, QueryService};
use query_engine::Limits;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use service_kit::admin::Readiness;
use service_kit::clock::{Clock, ManualClock, SystemClock};
use service_kit::listen::ListenAddress;
use service_kit::run::Drain;
use service_kit::telemetry;
use tables::arrival::Arrival;
use tables::registry;
use tables::seen::Seen;
use tempfile::TempDir;

/// When the recorded day begins: 2026-03-01T00:00:00Z, unix nanoseconds.
pub(crate) const DAY_NS: i64 = 1_772_323_200_000_000_000;
/// When the service thinks it is.
pub(crate) const NOW_NS: i64 = DAY_NS + 3_600_000_000_000;

/// A lake in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) lake: Lake,
    seen: Seen,
    offset: i64,
    epochs: BTreeMap<String, i64>,
}

impl Fixture {
    pub(crate) async fn empty() -> Self {
        let dir = TempDir::new().unwrap();
        let options = LakeOptions {
            catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.path().display()),
            warehouse: format!("{}/warehouse", dir.path().display()),
            s3: None,
        };
        let lake = Lake::open(options).await.unwrap();
        Self::over(dir, lake)
    }

    /// Nothing, in a lake whose catalog lies in the directory.
    pub(crate) fn over(dir: TempDir, lake: Lake) -> Self {
        Self { dir, lake, seen: Seen::new(), offset: 0, epochs: BTreeMap::new() }
    }

    /// Three nodes with a few events each, as in `cases/*.toml`.
    pub(crate) async fn with_events() -> Self {
        let mut fixture = Self::empty().await;
        fixture
            .land_events("gpu-node-01", &[event(3, 1, 1_000, 0), event(3, 1, 3_000, 1), event(5, 1, 2_000_000, 2)])
            .await;
        fixture.land_events("gpu-node-02", &[event(1, 3, 7_500, 0), event(4, 1, 500, 1)]).await;
        fixture.land_events("gpu-node-03", &[event(9, 3, 40_000, 0)]).await;
        fixture
    }

    /// Lands events of one node as one message.
    pub(crate) async fn land_events(&mut self, node: &str, events: &[Event<'_>]) {
        let mut rows = EventRows::new();
        events.iter().for_each(|event| rows.push(event));
        let batch = rows.finish().unwrap();
        self.land(node, RecordKind::Event, batch, LossCounters::default()).await;
    }

    /// Lands records of another kind.
    pub(crate) async fn land_records(&mut self, node: &str, kind: RecordKind, records: Vec<Vec<(&'static str, Cell)>>) {
        let mut rows = Rows::new(kind);
        for record in records {
            rows.push(record).unwrap();
        }
        let batch = rows.finish().unwrap();
        self.land(node, kind, batch, LossCounters::default()).await;
    }

    /// Lands records of another kind as a message of the run that landed last.
    pub(crate) async fn land_in_run(&mut self, node: &str, kind: RecordKind, records: Vec<Vec<(&'static str, Cell)>>) {
        let mut rows = Rows::new(kind);
        for record in records {
            rows.push(record).unwrap();
        }
        let batch = rows.finish().unwrap();
        let first = first_seq(self.epochs[node], Stream::of(kind)).unwrap();
        let message = self.message(node, (kind, first), &batch, LossCounters::default());
        let arrivals = [self.admit(message)];
        self.commit(&arrivals).await;
    }

    pub(crate) async fn land(&mut self, node: &str, kind: RecordKind, batch: RecordBatch, losses: LossCounters) {
        let arrivals = [self.arrival(node, kind, &batch, losses)];
        self.commit(&arrivals).await;
    }

    /// Lands batches of events of one node together: one file per table.
    pub(crate) async fn land_together(&mut self, node: &str, batches: &[RecordBatch]) {
        let mut arrival = |batch| self.arrival(node, RecordKind::Event, batch, LossCounters::default());
        let arrivals: Vec<_> = batches.iter().map(&mut arrival).collect();
        self.commit(&arrivals).await;
    }

    /// Lands batches of events of one run of an agent as consecutive messages of its data stream, each with what was lost before.
    pub(crate) async fn land_run(&mut self, node: &str, batches: &[(&[Event<'_>], LossCounters)]) {
        let batches: Vec<_> = batches.iter().map(|(events, losses)| (*events, *losses, DAY_NS / 1_000_000)).collect();
        self.land_written(node, &batches).await;
    }

    /// The same, each with when the agent wrote it, unix milliseconds.
    pub(crate) async fn land_written(&mut self, node: &str, batches: &[(&[Event<'_>], LossCounters, i64)]) {
        let mut next_seq = None;
        for (events, losses, written_ms) in batches {
            let mut rows = EventRows::new();
            events.iter().for_each(|event| rows.push(event));
            let batch = rows.finish().unwrap();
            let emitted = losses.emitted + events.len() as u64;
            let losses = LossCounters { emitted, ..*losses };
            if next_seq.is_none() {
                *self.epochs.entry(node.to_owned()).or_insert(0) += 1;
            }
            let first =
                next_seq.unwrap_or_else(|| first_seq(self.epochs[node], Stream::of(RecordKind::Event)).unwrap());
            let message =
                Message { timestamp_ms: *written_ms, ..self.message(node, (RecordKind::Event, first), &batch, losses) };
            let arrivals = [self.admit(message)];
            next_seq = Some(first + events.len() as i64);
            self.commit(&arrivals).await;
        }
    }

    /// A message as it comes out of the log, of a run of its own.
    fn arrival(&mut self, node: &str, kind: RecordKind, batch: &RecordBatch, losses: LossCounters) -> Arrival {
        let epoch = self.epochs.entry(node.to_owned()).or_insert(0);
        *epoch += 1;
        let first = first_seq(*epoch, Stream::of(kind)).unwrap();
        let message = self.message(node, (kind, first), batch, losses);
        self.admit(message)
    }

    fn admit(&mut self, message: Message) -> Arrival {
        let arrival = Arrival::decode(message, NOW_NS / 1_000 - 1_000_000);
        assert!(arrival.outcome.is_ok(), "{:?}", arrival.outcome);
        arrival.admit(&mut self.seen)
    }

    fn message(
        &mut self,
        node: &str,
        (kind, first_seq): (RecordKind, i64),
        batch: &RecordBatch,
        losses: LossCounters,
    ) -> Message {
        let epoch = self.epochs[node];
        let stream = Stream::of(kind);
        let draft = HeaderDraft {
            kind,
            cluster: "test".to_owned(),
            node: node.to_owned(),
            boot_id: "0f0e0d0c-0000-4000-8000-000000000001".to_owned(),
            epoch,
            stream,
            beacon: Beacon { boot_ns: 0, wall_ns: DAY_NS, error_ns: 0 },
            losses,
            agent: "test-agent".to_owned(),
        };
        let message = Message {
            at: TopicPartition::new(topics::EVENTS, 0),
            offset: self.offset,
            timestamp_ms: DAY_NS / 1_000_000,
            key: None,
            payload: wire::encode(&draft, first_seq, batch).unwrap(),
            headers: Vec::new(),
        };
        self.offset += 1;
        message
    }

    async fn commit(&self, arrivals: &[Arrival]) {
        for table in registry::all() {
            let rows = table.rows(&arrivals.iter().collect::<Vec<_>>()).unwrap();
            if rows.is_empty() {
                continue;
            }
            let handle = self.lake.ensure_table(&table.def).await.unwrap();
            let files = handle.write(&rows).await.unwrap();
            let outcome = handle.commit(CommitRequest::new(Vec::new(), Token::random(), files)).await;
            assert!(matches!(outcome, CommitOutcome::Committed(_)), "{}: {outcome:?}", table.def.name);
        }
    }

    /// The data files of a table on disk.
    pub(crate) fn data_files(&self, table: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.dir.path().join("warehouse").join(table.replace('.', "/")).join("data")];
        while let Some(dir) = open.pop() {
            let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
            open.extend(folders);
            found.extend(files);
        }
        found.sort();
        found
    }

    pub(crate) async fn serve(self) -> Served {
        self.serve_with(Limits::default()).await
    }

    pub(crate) async fn serve_with(self, limits: Limits) -> Served {
        self.serve_by(limits, Arc::new(ManualClock::at(NOW_NS))).await
    }

    /// By the machine's clock, which commits are stamped with.
    pub(crate) async fn serve_today(self) -> Served {
        self.serve_by(Limits::default(), Arc::new(SystemClock)).await
    }

    async fn serve_by(self, limits: Limits, clock: Arc<dyn Clock>) -> Served {
        let options = Options { listen: ListenAddress::loopback(0), limits, http: HttpOptions::default() };
        let listener = Listener::bind(&options.listen).await.unwrap();
        let registry = telemetry::registry("query", "test");
        let parts = Parts { lake: self.lake.clone(), registry, readiness: Readiness::new(), clock };
        let service = QueryService::open(listener, parts, options).await.unwrap();
        let base = format!("http://{}", service.address());
        let drain = Drain::new();
        tokio::spawn(service.serve(drain.clone()));
        Served { base, client: Client::new(), _drain: drain.drop_guard(), _lake: self }
    }
}

/// An event `nth` microseconds into the day.
pub(crate) fn event(source: i32, op: i32, duration_ns: i64, nth: i64) -> Event<'static> {
    Event {
        boot_ns: nth * 1_000,
        source,
        op,
        duration: Some(MeasuredDuration::of_each(duration_ns)),
        pid: 100,
        tid: 101,
        comm: Some("python"),
        sample_weight: 1.0,
        ..Event::default()
    }
}

/// A service that is asked over HTTP; it ends with the value.
pub(crate) struct Served {
    pub(crate) base: String,
    pub(crate) client: Client,
    _drain: tokio_util::sync::DropGuard,
    /// The directory must outlive the service.
    _lake: Fixture,
}

impl Served {
    pub(crate) fn post_sql(&self, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}/api/v1/sql", self.base)).json(body)
    }

    /// Status and JSON of a statement.
    pub(crate) async fn sql(&self, sql: &str) -> (u16, Value) {
        self.ask(&json!({ "sql": sql })).await
    }

    pub(crate) async fn ask(&self, body: &Value) -> (u16, Value) {
        let reply = self.post_sql(body).send().await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// The rows of a statement that must be answered.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        let (status, body) = self.sql(sql).await;
        assert_eq!(status, 200, "{sql}: {body}");
        body["rows"].clone()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let reply = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}
