//! Kafka is away while the agent traces: it goes on, its spool keeps everything, and order and numbers are as if nothing had
//! happened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_schema::identity::first_seq;
use event_schema::wire;

use crate::harness::{Job, alone_as_root};
use crate::ingest::Ingest;
use crate::place::Place;
use crate::program::Program;
use crate::{agent, wait_until};

/// Memory the agent may need for an outage however long: its queue to Kafka (16 MiB), and what its allocator keeps of it.
const GROWTH_MAX_KIB: u64 = 48 << 10;

/// By this name its calls are distinguished from those of another job on this machine.
const JOB: &str = "kafka-away";
/// Messages that come to wait in each second of the outage, at least.
const WAITING_PER_SECOND: f64 = 2.0;

const AWAY: Duration = Duration::from_secs(60);

#[test]
fn root_while_kafka_is_away_for_a_minute_the_agent_goes_on_and_nothing_is_lost() {
    let Some(_alone) = alone_as_root() else { return };
    let (place, job) = (Place::local(), Job::new());
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    // Many batches, and a ring so large that a busy machine loses nothing.
    let agent = agent::start(&place, &job, &["agent.batch_age=100ms", "agent.data_ring=64MiB"]);
    let seconds = AWAY.as_secs() + 15;
    let mut work =
        job.start(&format!("--ranks 4 --seconds {seconds} --launches 20 --gpu-us 10000 --cpu-us 0 --job {JOB}"));
    wait_until("events are shipped and landed", || ingest.commits("silver.events") > 1);

    let (before, spooled) = (agent.rss_kib(), spooled_bytes(&agent));
    place.kafka.kill();
    let mut peak = watch(&agent, || false, AWAY);
    let waiting = agent.metric("causeway_agent_unshipped_messages", &[]).unwrap_or(0.0);
    let spooled = spooled_bytes(&agent) - spooled;
    std::thread::scope(|scope| {
        let back = scope.spawn(|| place.kafka.restart());
        peak = peak.max(watch(&agent, || back.is_finished(), crate::TEST_TIMEOUT));
    });
    peak = peak.max(watch(&agent, || work.try_wait().unwrap().is_some(), crate::TEST_TIMEOUT));
    assert!(work.wait().unwrap().success());
    let said = agent.terminate().ok();
    assert!(!said.err.contains("panicked"), "{}", said.err);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();

    eprintln!(
        "away {AWAY:?}: {waiting} messages ({spooled} bytes) waited; memory {before} KiB before, {peak} KiB at most"
    );
    assert!(
        waiting > WAITING_PER_SECOND * AWAY.as_secs_f64(),
        "only {waiting} messages were made while Kafka was away"
    );
    assert!(peak < before + GROWTH_MAX_KIB, "memory grew from {before} to {peak} KiB");
    let replays = check_order(&place);
    eprintln!("{replays} messages are in Kafka twice");
    place.assert_audit_holds();
    assert_eq!(agent::landed(&place, JOB), agent::made(&job));
}

fn spooled_bytes(agent: &Program) -> f64 {
    agent.metric("causeway_agent_spooled_bytes_total", &[]).unwrap_or(0.0)
}

/// The largest memory of the agent until `done`, or for `longest`.
fn watch(agent: &Program, mut done: impl FnMut() -> bool, longest: Duration) -> u64 {
    let (until, mut peak) = (Instant::now() + longest, 0);
    while Instant::now() < until && !done() {
        peak = peak.max(agent.rss_kib());
        assert!(peak > 0, "the agent ended: {}", agent.last_lines());
        std::thread::sleep(Duration::from_millis(50));
    }
    peak
}

/// Within a stream every record follows the one before it, where it comes first. Returns how many messages are repetitions.
fn check_order(place: &Place) -> usize {
    let (mut next, mut replays) = (BTreeMap::new(), 0);
    for message in place.messages() {
        let header = wire::peek(&message.payload).unwrap();
        let begin = first_seq(header.epoch, header.stream).unwrap();
        let next: &mut i64 = next.entry((header.node, header.boot_id, header.epoch, header.stream)).or_insert(begin);
        let end = header.first_seq + i64::from(header.rows);
        assert!(header.first_seq <= *next, "{} offset {}: {next} is missing", message.at, message.offset);
        replays += usize::from(end <= *next && header.rows > 0);
        *next = end.max(*next);
    }
    replays
}
