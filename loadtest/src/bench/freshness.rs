//! From an event's own stamp to the first SQL answer that counts it, over Kafka, ingest and the query service as
//! processes. The fleet ships as agents do: each node a batch every quarter of a second.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::BenchError;
use super::report::Report;
use super::setup::{Kafka, free_port, service};
use crate::child::Program;
use crate::out::{Out, unix_ns};
use fleet_sim::FleetSpec;

const NODES: u32 = 4;
/// How long an agent collects a batch.
const BATCH_AGE: Duration = Duration::from_millis(250);
/// Answers count events by stretches of this length; an event is taken to have happened when its stretch began.
const STRETCH_NS: i64 = 4_000_000;
/// How far before the newest event seen of every node an answer looks: late events beyond that count as never seen.
const LOOK_BACK_NS: i64 = 3_000_000_000;
/// Between two questions: asking without pause would take the CPU from what is measured.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest that the first and the last event may take to be seen.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Measures for `duration` at `rate` events per second.
///
/// # Errors
/// A server or program cannot be started, or events never become visible.
pub async fn run(dir: &Path, rate: usize, duration: Duration) -> Result<Report, BenchError> {
    let kafka = Kafka::start(dir)?;
    kafka.make_topics(4).await?;
    let port = free_port()?;
    let admin = free_port()?;
    let mut ingest = quiet("causeway-ingest", dir, &kafka);
    ingest.env("CAUSEWAY_ADMIN_PORT", admin.to_string());
    let ingest = Program::start(ingest)?;
    // Ingest makes the lake; a query service without one ends with an error.
    wait_until_ready(admin).await?;
    let mut query = quiet("causeway-query", dir, &kafka);
    query.env("CAUSEWAY_QUERY_LISTEN", format!("127.0.0.1:{port}"));
    let query = Program::start(query)?;
    let load = Load::start(&kafka, rate)?;
    let mut watch = Watch::new(port, load.began_ns);
    // Warm-up: the start of the programs and the first commit of each table are not measured.
    watch.until(TIME_LIMIT, "the first event in an answer", |watch| watch.seen() > 0).await?;
    watch.measure_from(unix_ns());
    let started = Instant::now();
    let cpu = [ingest.cpu_time()?, query.cpu_time()?];
    while started.elapsed() < duration {
        watch.poll().await?;
        tokio::time::sleep(PAUSE).await;
    }
    // Read at the end of the measured time, before the remaining events are waited for.
    let used = [ingest.cpu_time()? - cpu[0], query.cpu_time()? - cpu[1]];
    // Events up to here are measured however late they are seen: excluding the late ones would flatter the figure.
    watch.measure_to(load.last_ns());
    let sent = load.finish()?;
    watch.until(TIME_LIMIT, "the last event in an answer", |watch| watch.seen() >= sent).await?;
    query.drain()?;
    ingest.drain()?;
    Ok(watch.report(rate, used.map(|cpu| 100.0 * cpu.as_secs_f64() / duration.as_secs_f64())))
}

/// A service that logs warnings only.
fn quiet(name: &str, dir: &Path, kafka: &Kafka) -> Command {
    let mut command = service(name, dir, kafka);
    command.env("CAUSEWAY_LOG", "warn");
    command
}

/// Waits until a program is ready to work.
async fn wait_until_ready(admin: u16) -> Result<(), BenchError> {
    let url = format!("http://127.0.0.1:{admin}/readyz");
    let started = Instant::now();
    while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
        if started.elapsed() > TIME_LIMIT {
            return Err(BenchError::Timeout {
                what: format!("a positive answer of {url}"),
                seconds: TIME_LIMIT.as_secs(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The fleet, on a thread of its own.
struct Load {
    began_ns: i64,
    last_ns: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, BenchError>>,
}

impl Load {
    fn start(kafka: &Kafka, rate: usize) -> Result<Self, BenchError> {
        let out = Out::kafka(&kafka.config())?;
        let began_ns = unix_ns();
        // Each node sends one batch in `BATCH_AGE`: its share of the rate in that time.
        let rows = rate * BATCH_AGE.as_millis() as usize / 1_000 / NODES as usize;
        let spec = FleetSpec {
            nodes: NODES as usize,
            ranks_per_node: 8,
            seed: 1,
            rows,
            gap_ns: 1_000,
            start_wall_ns: began_ns,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let last_ns = Arc::new(AtomicI64::new(began_ns));
        let shipping = Shipping { out, spec, stop: Arc::clone(&stop), last_ns: Arc::clone(&last_ns) };
        Ok(Self { began_ns, last_ns, stop, thread: std::thread::spawn(move || shipping.run()) })
    }

    /// Stamp of the newest event.
    fn last_ns(&self) -> i64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// Ends the load; returns how many events there were.
    fn finish(self) -> Result<u64, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(sent) => sent,
            // The thread panicked.
            Err(_) => Err(BenchError::Timeout { what: "the load's thread".to_owned(), seconds: 0 }),
        }
    }
}

/// The thread of the load.
struct Shipping {
    out: Out,
    spec: FleetSpec,
    stop: Arc<AtomicBool>,
    /// Stamp of the newest event, unix nanoseconds.
    last_ns: Arc<AtomicI64>,
}

impl Shipping {
    /// Sends a batch of each node in turn until it is stopped; returns how many events there were.
    fn run(mut self) -> Result<u64, BenchError> {
        let rows = self.spec.rows;
        let mut nodes = self.spec.build();
        let mut sent = 0;
        let mut due = Instant::now();
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // Open-loop load: times follow from the start and not from the last send, so that a slow broker does not
            // lower the rate (coordinated omission).
            due += BATCH_AGE / NODES;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now_ns = unix_ns();
            let node = &mut nodes[turn % NODES as usize];
            let message = node.message_until(rows, now_ns)?;
            self.out.send(&node.name, &message)?;
            self.last_ns.store(now_ns, Ordering::Relaxed);
            sent += rows as u64;
        }
        self.out.finish()?;
        Ok(sent)
    }
}

/// What answers have shown so far.
struct Watch {
    client: reqwest::Client,
    url: String,
    began_ns: i64,
    measured_ns: std::ops::Range<i64>,
    /// Events by node and stretch.
    counts: HashMap<(String, i64), u64>,
    newest: HashMap<String, i64>,
    /// Age when first seen, and of how many events, milliseconds.
    ages: Vec<(f64, u64)>,
    /// How long each answer took, and how long after the one before an answer had something new, milliseconds.
    answers: Vec<(f64, u64)>,
    steps: Vec<(f64, u64)>,
    stepped: Option<Instant>,
}

impl Watch {
    fn new(port: u16, began_ns: i64) -> Self {
        Self {
            client: reqwest::Client::new(),
            url: format!("http://127.0.0.1:{port}/api/v1/sql"),
            began_ns,
            measured_ns: i64::MAX..i64::MAX,
            counts: HashMap::new(),
            newest: HashMap::new(),
            ages: Vec::new(),
            answers: Vec::new(),
            steps: Vec::new(),
            stepped: None,
        }
    }

    fn measure_from(&mut self, from_ns: i64) {
        self.measured_ns.start = from_ns;
        // Answers of the warm-up were given over nearly empty tables.
        self.answers.clear();
        self.steps.clear();
    }

    fn measure_to(&mut self, to_ns: i64) {
        self.measured_ns.end = to_ns;
    }

    fn seen(&self) -> u64 {
        self.counts.values().sum()
    }

    async fn until(&mut self, limit: Duration, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let started = Instant::now();
        while !done(self) {
            if started.elapsed() > limit {
                let what = format!("{what} ({} seen)", self.seen());
                return Err(BenchError::Timeout { what, seconds: limit.as_secs() });
            }
            // At first nothing listens.
            let _ = self.poll().await;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Queries once, and records what is new.
    async fn poll(&mut self) -> Result<(), BenchError> {
        // The node that is furthest behind sets the bound: its events must not fall out of the condition.
        let newest = if self.newest.len() < NODES as usize { None } else { self.newest.values().min() };
        let from_ns = newest.map_or(self.began_ns, |newest| newest * STRETCH_NS - LOOK_BACK_NS);
        let sql = format!(
            "SELECT node, ts_ns / {STRETCH_NS} AS stretch, count(*) AS n FROM silver.events WHERE ts_ns >= {from_ns} GROUP BY 1, 2"
        );
        let asked = Instant::now();
        let request = self.client.post(&self.url).json(&json!({ "sql": sql, "limit": 1_000_000 }));
        let answer = read_json(request).await.map_err(|source| BenchError::Http { url: self.url.clone(), source })?;
        let now_ns = unix_ns();
        self.answers.push((asked.elapsed().as_secs_f64() * 1e3, 1));
        let mut is_new = false;
        // The first stretch may be cut by the condition, so that it counts fewer events than before.
        for row in answer["rows"].as_array().into_iter().flatten() {
            if let Some(node) = row[0].as_str()
                && let Some(stretch) = row[1].as_i64()
                && let Some(n) = row[2].as_u64()
            {
                is_new |= self.note(node, stretch, n, now_ns);
            }
        }
        if is_new {
            let step = self.stepped.replace(Instant::now()).map(|before| before.elapsed());
            self.steps.extend(step.map(|step| (step.as_secs_f64() * 1e3, 1)));
        }
        Ok(())
    }

    fn note(&mut self, node: &str, stretch: i64, n: u64, now_ns: i64) -> bool {
        let count = self.counts.entry((node.to_owned(), stretch)).or_default();
        // An event is counted once, at its first sight.
        let new = n.saturating_sub(*count);
        *count += new;
        let newest = self.newest.entry(node.to_owned()).or_insert(stretch);
        *newest = stretch.max(*newest);
        let stamp_ns = stretch * STRETCH_NS;
        if new > 0 && self.measured_ns.start <= stamp_ns && stamp_ns < self.measured_ns.end {
            self.ages.push(((now_ns - stamp_ns) as f64 / 1e6, new));
        }
        new > 0
    }

    fn report(mut self, rate: usize, cpu: [f64; 2]) -> Report {
        let mut report = Report::new("freshness");
        let measured: u64 = self.ages.iter().map(|(_, events)| events).sum();
        report.add("events per second", rate as f64, "/s", "");
        report.add("events measured", measured as f64, "", "");
        report.add("stamp to SQL answer, p50", quantile(&mut self.ages, 0.5), "ms", "<= 2,000");
        report.add("stamp to SQL answer, p99", quantile(&mut self.ages, 0.99), "ms", "<= 2,000");
        report.add("stamp to SQL answer, longest", quantile(&mut self.ages, 1.0), "ms", "");
        report.add("  of which: an agent's batch is this old", BATCH_AGE.as_secs_f64() * 1e3, "ms", "");
        report.add("  of which: time between two commits seen, p50", quantile(&mut self.steps, 0.5), "ms", "");
        report.add("  of which: time between two commits seen, p99", quantile(&mut self.steps, 0.99), "ms", "");
        report.add("  of which: an answer takes, p50", quantile(&mut self.answers, 0.5), "ms", "");
        report.add("  of which: an answer takes, p99", quantile(&mut self.answers, 0.99), "ms", "");
        report.add("answers", self.answers.len() as f64, "", "");
        report.add("CPU of causeway-ingest", cpu[0], "%", "");
        report.add("CPU of causeway-query", cpu[1], "%", "");
        report
    }
}

/// Sends a request and reads the JSON document of its answer.
async fn read_json(request: reqwest::RequestBuilder) -> reqwest::Result<Value> {
    request.send().await?.error_for_status()?.json().await
}

/// Of values with weights: the least value that a share of the weight does not exceed.
fn quantile(values: &mut [(f64, u64)], share: f64) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = share * values.iter().map(|(_, weight)| *weight as f64).sum::<f64>();
    let mut sum = 0.0;
    let found = values.iter().find(|(_, weight)| {
        sum += *weight as f64;
        sum >= wanted
    });
    found.map_or(f64::NAN, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_old_as_when_it_was_first_seen() {
        let mut watch = Watch::new(1, 0);
        let at = |stretch: i64, ms: i64| stretch * STRETCH_NS + ms * 1_000_000;
        watch.note("a", 100, 5, at(100, 9));
        watch.measure_from(at(200, 0));
        watch.measure_to(at(300, 0));
        assert!(watch.note("a", 200, 3, at(200, 10)), "measured");
        assert!(!watch.note("a", 200, 3, at(200, 50)), "seen before");
        assert!(watch.note("a", 200, 4, at(200, 90)), "one more");
        watch.note("a", 300, 7, at(300, 10));
        assert_eq!(watch.ages, [(10.0, 3), (90.0, 1)]);
        assert_eq!(watch.seen(), 16);
        assert_eq!((quantile(&mut watch.ages, 0.5), quantile(&mut watch.ages, 0.99)), (10.0, 90.0));
    }
}
