//! The agent as a library: every call of the job is landed or counted, with rank and job, and the epoch's account is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bpf::probes::CALLS;
use bpf::{Class, Library};
use edge_agent::{Agent, Metrics, Options, Outcome, SpoolOptions};
use event_schema::catalog::{Op, Source};
use event_schema::kind::RecordKind;
use service_kit::run::Drain;
use stream::log::LogOptions;
use tempfile::TempDir;

use crate::harness::{Job, LIBRARIES, alone_as_root};
use crate::spool::{Row, calls, check_ledger, read, rows};

pub(crate) fn options(spool: &TempDir, libraries: Vec<Library>) -> Options {
    Options {
        cluster: "lab".to_owned(),
        node: Some("node-1".to_owned()),
        probes: bpf::Options { variables: edge_agent::process::VARIABLES, ..bpf::Options::default() },
        priority: bpf::priority::Priority::RealTime,
        libraries,
        batch: edge_agent::batcher::Limits::default(),
        keep_probes: Duration::ZERO,
        spool: SpoolOptions { dir: spool.path().to_owned(), log: LogOptions::default(), shared: true },
        kafka: None,
        drain_timeout: Duration::from_secs(1),
    }
}

pub(crate) fn libraries(job: &Job) -> Vec<Library> {
    LIBRARIES.into_iter().map(|(name, kind)| Library { path: job.library(name), kind }).collect()
}

/// Runs an agent around `body`.
pub(crate) fn run(options: &Options, body: impl FnOnce()) -> Outcome {
    run_with(options, &Metrics::default(), body)
}

pub(crate) fn run_with(options: &Options, metrics: &Metrics, body: impl FnOnce()) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let agent = Agent::open(options, metrics).unwrap();
    let drain = Drain::new();
    let running = runtime.spawn(agent.run(drain.clone()));
    body();
    drain.cancel();
    runtime.block_on(running).unwrap().unwrap()
}

fn expected(job: &Job) -> BTreeMap<(i32, i32), u64> {
    let made = job.calls();
    let mut expected = BTreeMap::new();
    for probe in CALLS {
        let sum: u64 = probe.symbols.iter().filter_map(|symbol| made.get(*symbol)).sum();
        *expected.entry(probe.op.numbers()).or_default() += sum;
    }
    expected.retain(|_, count| *count > 0);
    expected
}

/// Attempts, drops and records read, as the accounts of the two streams report them together.
fn epoch_end(rows: &[Row]) -> [i64; 3] {
    let end = Op::EpochEnd.numbers();
    let ends: Vec<&Row> = rows.iter().filter(|row| (row.source, row.op) == end).collect();
    assert_eq!(ends.len(), 2, "one per stream");
    let sum = |of: fn(&Row) -> i64| ends.iter().map(|row| of(row)).sum();
    [sum(|row| row.arg0), sum(|row| row.arg1), sum(|row| row.bytes.unwrap())]
}

fn is_of_agent(row: &Row) -> bool {
    Source::ALL.iter().any(|source| source.is_of_agent() && source.number() == row.source)
}

/// The account at the end of the epoch is the probes' own, and the rows are what it says.
fn check_epoch_end(rows: &[Row], outcome: &Outcome) {
    let (end, events) = (epoch_end(rows), outcome.counters.events());
    assert_eq!(events.attempts, events.drained + events.ring_drop);
    assert_eq!(end, [events.attempts, events.ring_drop, events.drained].map(|n| n as i64));
    let of_probes = rows.iter().filter(|row| !is_of_agent(row)).count();
    assert_eq!(of_probes as u64, events.drained);
}

#[test]
fn root_every_call_of_the_job_is_in_the_spool_with_its_rank_and_job() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let outcome = run(&options(&spool, libraries(&job)), || {
        let mut child = job.start("--ranks 4 --iterations 60 --launches 40 --gpu-us 1000 --job llm-7");
        assert!(child.wait().unwrap().success());
    });
    let messages = read(spool.path());
    let (all, reported) = check_ledger(&messages, outcome.epoch);
    let rows = rows(&messages);
    assert_eq!(rows.len() as u64, all);
    assert_eq!(calls(&rows), expected(&job));
    assert_eq!((reported.ring_drop, reported.shed, reported.spool_drop), (0, 0, 0));
    check_epoch_end(&rows, &outcome);
    let of_calls: Vec<&Row> = rows.iter().filter(|row| row.source == Source::Cuda.number()).collect();
    assert!(of_calls.iter().all(|row| row.job_id.as_deref() == Some("llm-7")));
    let ranks: BTreeSet<_> = of_calls.iter().map(|row| row.rank).collect();
    assert_eq!(ranks, (0..4).map(Some).collect());
    let own_pid = i32::try_from(std::process::id()).unwrap();
    assert!(rows.iter().all(|row| row.pid != own_pid || is_of_agent(row)));
    let beacons = rows.iter().filter(|row| row.source == Source::Clock.number());
    assert!(beacons.count() >= 2, "one on each stream at the start, when they fall idle, and every half minute");
    let count = |kind| messages.iter().filter(|m| m.header.kind == kind).map(|m| m.batch.num_rows()).sum::<usize>();
    assert_eq!(count(RecordKind::Session), 2, "begin and end");
    assert!(count(RecordKind::Process) >= 4 && count(RecordKind::Cgroup) >= 1);
}

#[test]
fn root_with_a_ring_too_small_what_is_missing_is_counted_exactly() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let mut options = options(&spool, libraries(&job));
    options.probes.data_ring_bytes = 4096;
    let outcome = run(&options, || {
        let mut child = job.start("--ranks 4 --iterations 60 --launches 100 --gpu-us 200");
        assert!(child.wait().unwrap().success());
    });
    let messages = read(spool.path());
    let (_, reported) = check_ledger(&messages, outcome.epoch);
    let rows = rows(&messages);
    check_epoch_end(&rows, &outcome);
    let made: u64 = expected(&job).values().sum();
    let landed: u64 = calls(&rows).values().sum();
    let call = outcome.counters.of(Class::Call);
    assert_eq!((made, landed), (call.attempts, call.drained));
    assert!(reported.ring_drop > 0, "the ring was too small");
    assert_eq!(reported.ring_drop, outcome.counters.events().ring_drop);
}

#[test]
fn root_a_job_that_nobody_announced_is_found_while_it_runs() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    // One that is already running when the agent starts, and one that starts later from other files.
    let later = Job::new();
    let mut running = job.start("--ranks 2 --seconds 6 --gpu-us 2000 --job before");
    run(&options(&spool, Vec::new()), || {
        let mut late = later.start("--ranks 2 --seconds 4 --gpu-us 2000 --start-delay-ms 1500 --job after");
        assert!(late.wait().unwrap().success() && running.wait().unwrap().success());
    });
    let rows = rows(&read(spool.path()));
    for name in ["before", "after"] {
        let of_job: Vec<&Row> = rows.iter().filter(|row| row.job_id.as_deref() == Some(name)).collect();
        let seen = |source: Source| of_job.iter().filter(|row| row.source == source.number()).count();
        assert!(seen(Source::Cuda) > 100 && seen(Source::Nccl) > 10 && seen(Source::Host) > 10, "{name}");
    }
    let late = rows.iter().filter(|row| row.job_id.as_deref() == Some("after")).cloned().collect::<Vec<_>>();
    assert_eq!(calls(&late), expected(&later), "found in the time before its first call");
}

/// Waits until the agent has probes on so many library files.
pub(crate) fn wait_for_libraries(metrics: &Metrics, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while metrics.libraries.get() != count {
        assert!(Instant::now() < deadline, "{} libraries have probes", metrics.libraries.get());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_libraries_have_probes_while_they_are_used_and_again_when_they_are_used_again() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, named, spool, metrics) = (Job::new(), Job::new(), TempDir::new().unwrap(), Metrics::default());
    let outcome = run_with(&options(&spool, libraries(&named)), &metrics, || {
        assert_eq!(metrics.libraries.get(), 3);
        for name in ["first", "second"] {
            let arguments = "--ranks 2 --iterations 20 --gpu-us 2000 --start-delay-ms 1500 --job";
            let mut child = job.start(&format!("{arguments} {name}"));
            wait_for_libraries(&metrics, 6);
            assert!(child.wait().unwrap().success());
            wait_for_libraries(&metrics, 3);
        }
    });
    let messages = read(spool.path());
    check_ledger(&messages, outcome.epoch);
    assert_eq!(calls(&rows(&messages)), expected(&job), "of both runs");
    assert_eq!(metrics.libraries_failed.get(), 0);
}

fn has_thread(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the reading.
    let mut names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.any(|found| found.trim_end() == name)
}

fn wait_for_thread(name: &str, is_there: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while has_thread(name) != is_there {
        assert!(Instant::now() < deadline, "{name} runs: {}", !is_there);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn root_an_agent_whose_run_is_left_early_traces_no_more() {
    let Some(_alone) = alone_as_root() else { return };
    let spool = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let agent = Agent::open(&options(&spool, Vec::new()), &Metrics::default()).unwrap();
    let threads = ["causeway-probe", "causeway-spool"];
    let running = runtime.spawn(agent.run(Drain::new()));
    threads.iter().for_each(|name| wait_for_thread(name, true));
    // Dropped: as after an error, nothing of `run` is executed any more.
    running.abort();
    assert!(runtime.block_on(running).unwrap_err().is_cancelled());
    threads.iter().for_each(|name| wait_for_thread(name, false));
}
