//! Files that are dropped into a bucket land once each: announced by S3 through SQS, several times and in any order,
//! while ingest is killed in the middle of them; and what cannot be landed is explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use event_schema::batch::{Event, EventRows};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::TopicPartition;
use event_schema::stream::Stream;
use event_schema::wire::{HeaderDraft, encode};
use serde_json::Value;
use stream::log::{LogOptions, LogWriter};

use crate::chance::Chance;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::program::{self, Program, Said};
use crate::server::infra;
use crate::wait_until;

/// Files of one run, beside those that cannot be landed.
const FILES: usize = 200;
/// Well above every timeout of ours.
const SOON: Duration = Duration::from_secs(90);

/// A bucket with its queues.
struct Bulk<'a> {
    place: &'a Place,
    settings: Vec<String>,
}

impl<'a> Bulk<'a> {
    fn new(place: &'a Place) -> Self {
        let made = call(place, &["make"]);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        let settings = vec![
            format!("bulk.queue={}", text("queue")),
            format!("bulk.dead_letter_queue={}", text("dead_letter_queue")),
            format!("bulk.bucket={}", place.s3().env("S3_BUCKET")),
            // What a killed process was working on is announced again after this time.
            "bulk.visibility=10s".to_owned(),
        ];
        Self { place, settings }
    }

    fn ingest(&self) -> Ingest {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        Ingest::start_with(self.place, &settings)
    }

    /// Ingest with one setting more, which ends by itself.
    fn refused(&self, setting: &str) -> Said {
        let mut command = self.place.command("causeway-ingest");
        command.args(["--log", "off"]);
        for setting in self.settings.iter().map(String::as_str).chain([setting]) {
            command.args(["--set", setting]);
        }
        let said = Program::start(command).end(SOON);
        eprintln!("{}", said.err);
        assert_eq!(said.code, Some(1), "{}", said.err);
        said
    }

    fn state(&self) -> Value {
        call(self.place, &["state"])
    }

    /// The status of each object below `incoming/`.
    fn statuses(&self) -> Vec<(String, Option<String>)> {
        let state = self.state();
        let incoming = state["objects"].as_object().unwrap().iter().filter(|(key, _)| key.starts_with("incoming/"));
        incoming.map(|(key, tags)| (key.clone(), tags["processing_status"].as_str().map(str::to_owned))).collect()
    }

    #[track_caller]
    fn wait_until_empty(&self) {
        wait_until("nothing is in the queue", || {
            let state = self.state();
            state["visible"] == 0 && state["hidden"] == 0
        });
    }
}

fn call(place: &Place, args: &[&str]) -> Value {
    let cache = std::env::var("CAUSEWAY_CACHE");
    let cache = cache.unwrap_or_else(|_| format!("{}/.cache/causeway", std::env::var("HOME").unwrap()));
    let mut command = Command::new(Path::new(&cache).join("venv/bin/python"));
    command.arg(infra().join("bulk.py")).args(args);
    for name in ["S3_BUCKET", "AWS_ENDPOINT_URL"] {
        command.env(name, place.s3().env(name));
    }
    program::run(command).ok().json()
}

/// A message of events whose `arg0` are these numbers.
fn message(node: &str, first_seq: i64, numbers: std::ops::Range<i64>) -> Bytes {
    let mut rows = EventRows::new();
    for number in numbers.clone() {
        let event = Event { boot_ns: number, arg0: number, sample_weight: 1.0, ..Event::default() };
        rows.push(&event.with_op(Op::CudaLaunchKernel));
    }
    let draft = HeaderDraft {
        kind: RecordKind::Event,
        cluster: "c".into(),
        node: node.into(),
        boot_id: "0b14e8e2-6a0e-4c3f-9c55-0d7e3a1b2c4d".into(),
        epoch: 1,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: 1_763_000_000_000_000_000, error_ns: 1 },
        losses: LossCounters { emitted: numbers.count() as u64, ..LossCounters::default() },
        agent: "test".into(),
    };
    encode(&draft, event_schema::identity::first_seq(1, Stream::Data).unwrap() + first_seq, &rows.finish().unwrap())
        .unwrap()
}

/// Segments of the spool of an air-gapped node in `dir`; its rows are numbered from `from`. Returns the number behind.
fn segments(place: &Place, dir: &Path, from: i64) -> i64 {
    let spool = place.dir("carried");
    let options = LogOptions { segment_bytes: 4096, ..LogOptions::default() };
    let mut log = LogWriter::open(&spool, &TopicPartition::new(EVENTS, 0), options).unwrap();
    let mut next = from;
    for _ in 0..40 {
        let message = message("air-gapped", next - from, next..next + 50);
        log.append(Some(b"air-gapped"), &message, 0).unwrap();
        next += 50;
    }
    log.sync().unwrap();
    for (number, segment) in std::fs::read_dir(spool.join(EVENTS).join("0")).unwrap().enumerate() {
        let path = segment.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "log") {
            std::fs::copy(&path, dir.join(format!("segment-{number}"))).unwrap();
        }
    }
    next
}

fn fixture() -> PathBuf {
    infra().join("../../tests/fixtures/ingero/sample-gpu-node-01.db")
}

#[test]
fn each_file_lands_once_whatever_is_announced_twice_reordered_or_killed() {
    let _alone = alone();
    let mut chance = Chance::seeded().0;
    let place = Place::remote(4);
    let bulk = Bulk::new(&place);
    let dir = place.dir("files");
    std::fs::create_dir(&dir).unwrap();
    let written = call(&place, &["write", dir.to_str().unwrap(), &chance.below(1000).to_string(), &FILES.to_string()]);
    let rows = written["rows"].as_i64().unwrap();
    let end = segments(&place, &dir, rows + 1);
    std::fs::copy(fixture(), dir.join("recording.db")).unwrap();
    let dropped = call(&place, &["drop", dir.to_str().unwrap(), &chance.below(1000).to_string(), "1"]);
    eprintln!("{dropped}");

    let mut kills = 0;
    while kills < 4 {
        let mut ingest = bulk.ingest();
        ingest.wait_for_log("bulk path open");
        // Chance decides how far it comes.
        std::thread::sleep(chance.millis(200..2500));
        kills += u32::from(ingest.kill());
    }
    let ingest = bulk.ingest();
    bulk.wait_until_empty();
    place.wait_for_no_lag(&[&ingest]);
    eprintln!(
        "{}",
        ingest.metrics().unwrap().lines().filter(|line| line.contains("_bulk_")).collect::<Vec<_>>().join("\n")
    );
    ingest.0.terminate().ok();

    let poison: BTreeSet<&str> =
        written["poison"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for (key, status) in bulk.statuses() {
        let expected = if poison.contains(&key["incoming/".len()..]) { "failed" } else { "complete" };
        assert_eq!(status.as_deref(), Some(expected), "{key}");
    }
    let state = bulk.state();
    let explained = state["dead"].as_array().unwrap();
    for name in &poison {
        let key = format!("incoming/{name}");
        let letter = explained.iter().find(|letter| letter["key"] == *key);
        let letter = letter.unwrap_or_else(|| panic!("{name} is not explained: {explained:?}"));
        assert!(letter["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{letter}");
        eprintln!("{name}: {} ({})", letter["cause"], letter["reason"]);
        let is_copied = state["objects"]
            .as_object()
            .unwrap()
            .keys()
            .any(|key| key.contains(&format!("dead-letter/incoming/{name}.")));
        assert_eq!(is_copied, *name != "empty", "{name}");
    }
    place.assert_audit_holds();
    let events = place.oracle("silver.events", &["--sum", "arg0"]);
    let of = |node: &str| events.groups.get(node).copied().unwrap_or(0);
    let bulk_rows: u64 = (0..4).map(|node| of(&format!("bulk-{node}"))).sum();
    assert_eq!((bulk_rows, of("air-gapped"), of("poison")), (rows as u64, (end - rows - 1) as u64, 0));
    assert_eq!(of("gpu-node-01"), 200, "{:?}", events.groups);
}

#[test]
fn what_is_wrong_at_the_start_is_named_in_one_message() {
    let _alone = alone();
    let place = Place::remote(1);
    let bulk = Bulk::new(&place);
    let queue = bulk.settings[0].clone();
    for (setting, message) in [
        ("bulk.bucket=absent", "there is no bucket absent"),
        (&*queue.replace("/incoming", "/absent"), "there is no queue http"),
    ] {
        let said = bulk.refused(setting);
        assert!(said.err.contains(message), "{said:?}");
    }
    for (fault, message) in [
        ("status=403&query=list-type&code=ExpiredToken&seconds=60", "whether they have expired"),
        (
            "status=403&target=GetQueueAttributes&code=ExpiredToken&seconds=60",
            "ExpiredToken (fault ordered by the test)",
        ),
        ("status=301&query=list-type&seconds=60", "check the region"),
    ] {
        place.s3().fault(fault);
        let said = bulk.refused("bulk.prefix=incoming/");
        place.s3().fault("clear");
        assert!(said.err.contains(message), "{fault}: {said:?}");
    }
}

#[test]
fn what_goes_wrong_on_the_way_is_shown_and_nothing_is_lost() {
    let _alone = alone();
    let place = Place::remote(1);
    let bulk = Bulk::new(&place);
    let file = place.dir("one.jsonl");
    let line = r#"{"node":"n","ts_ns":1763000000000000000,"source":1,"op":1,"pid":1,"tid":1,"arg0":1}"#;
    std::fs::write(&file, line).unwrap();
    let file = file.to_str().unwrap();
    let mut ingest = bulk.ingest();
    ingest.wait_for_log("bulk path open");

    // A policy that forbids tagging, and then one that forbids deleting the announcement.
    for (number, (fault, message)) in [
        ("status=403&query=tagging&method=PUT", "landing an object failed; it is attempted again"),
        ("status=403&target=DeleteMessageBatch", "deleting announcements failed; it is attempted again"),
    ]
    .into_iter()
    .enumerate()
    {
        place.s3().fault(fault);
        call(&place, &["put", &format!("incoming/{number}.jsonl"), file]);
        ingest.wait_for_log(message);
        assert_ne!(bulk.state()["hidden"], 0, "the announcement stays");
        place.s3().fault("clear");
        bulk.wait_until_empty();
    }

    // An object that is gone when its announcement comes, and a message of another sender.
    place.s3().fault("status=403&target=ReceiveMessage&code=ExpiredToken");
    ingest.wait_for_log("receiving announcements failed");
    call(&place, &["put", "incoming/gone.jsonl", file]);
    call(&place, &["delete", "incoming/gone.jsonl"]);
    call(&place, &["say", r#"{"order": 7}"#]);
    place.s3().fault("clear");
    ingest.wait_for_log("a message of the queue is no event of the bucket; it is left");
    wait_until("the missing object is explained", || !bulk.state()["dead"].as_array().unwrap().is_empty());
    let state = bulk.state();
    assert_eq!((&state["dead"][0]["cause"], &state["dead"][0]["key"]), (&"gone".into(), &"incoming/gone.jsonl".into()));
    assert_eq!(
        state["visible"].as_i64().unwrap() + state["hidden"].as_i64().unwrap(),
        1,
        "the other consumer's message stays"
    );
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    let statuses = bulk.statuses();
    assert!(
        statuses.len() == 2 && statuses.iter().all(|(_, status)| status.as_deref() == Some("complete")),
        "{statuses:?}"
    );
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &["--sum", "arg0"]).rows, 2);
}

#[test]
fn a_prefix_is_landed_without_announcements_and_what_is_announced_later_lands_no_second_time() {
    let _alone = alone();
    let place = Place::remote(1);
    let bulk = Bulk::new(&place);
    let dir = place.dir("files");
    std::fs::create_dir(&dir).unwrap();
    let written = call(&place, &["write", dir.to_str().unwrap(), "7", "12"]);
    call(&place, &["drop", dir.to_str().unwrap(), "7", "0"]);
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    let import = || {
        let mut command = place.command("causeway");
        command.args(["import", "--json", &format!("s3://{}/incoming", place.s3().env("S3_BUCKET"))]);
        program::run(command)
    };
    let said = import();
    assert_eq!(said.code, Some(1), "some cannot be landed: {}", said.err);
    let outcomes = said.json();
    let outcome_is = |wanted: &str| outcomes.as_array().unwrap().iter().filter(|of| of["outcome"] == wanted).count();
    assert_eq!(outcome_is("landed"), 12, "{outcomes}");
    assert!(said.err.contains("unknown field `when`"), "{}", said.err);
    let again = import().json();
    assert!(
        again.as_array().unwrap().iter().all(|of| of["outcome"] == "dealt with before" || of["error"].is_string()),
        "{again}"
    );
    ingest.0.terminate().ok();

    let ingest = bulk.ingest();
    bulk.wait_until_empty();
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    let events = place.oracle("silver.events", &["--sum", "arg0"]);
    assert_eq!(
        (events.rows as i64, events.sum),
        (written["rows"].as_i64().unwrap(), i128::from(written["sum"].as_i64().unwrap()))
    );
}
