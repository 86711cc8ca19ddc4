//! The program: what it refuses, and a spool whose last message was torn.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{NextOffset, TopicPartition};

use crate::faults::{bring_back, take_away};
use crate::{Place, TOPIC, append, message, writer};

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn program(place: &Place, settings: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway-ingest"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
        command.env_remove(name);
    }
    let dir = place.dir.path().display();
    let lake = [format!("catalog.uri=sqlite://{dir}/catalog.sqlite"), format!("store.warehouse={dir}/warehouse")];
    command.args(lake.iter().chain(settings).flat_map(|setting| ["--set", setting]));
    command.args(["--set", "admin.port=0", "--log", "off"]).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn configured(file: &Path, text: &str) -> Output {
    fs::write(file, text).unwrap();
    program(&Place::new(), &[]).arg("--config").arg(file).output().unwrap()
}

#[test]
fn a_broken_configuration_is_refused_with_file_line_and_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.toml");
    let broken = configured(&file, "[ingest]\nmemory = \n");
    assert_eq!(broken.status.code(), Some(2), "{}", said(&broken));
    assert!(said(&broken).contains("broken.toml:2"), "{}", said(&broken));
    let unknown = configured(&file, "[ingest]\ncommit_interval = '1s'\n[kafka]\nbroker = 'k:9092'\n");
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
    let expected = "broken.toml:4:1: kafka.broker is not known; did you mean `brokers`?";
    assert!(said(&unknown).contains(expected), "{}", said(&unknown));
}

#[test]
fn a_broker_that_is_not_there_is_named_in_bounded_time() {
    let began = Instant::now();
    let settings = ["kafka.brokers=127.0.0.1:1", "kafka.connect_timeout_ms=1000"].map(str::to_owned);
    let output = program(&Place::new(), &settings).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("no kafka broker answered at 127.0.0.1:1 within 1s"), "{}", said(&output));
    assert!(began.elapsed() < TEST_TIMEOUT);
}

/// Runs the program over the spool until its tables have reached `next`, then drains it.
async fn land(place: &Place, next: i64) {
    land_within(place, &[("bronze", "messages")], &[0], next, &[]).await;
}

/// Runs the program over the spool until tables have reached `next` in each of the partitions, then drains it; returns the most
/// memory it had, MiB.
async fn land_within(place: &Place, tables: &[(&str, &str)], partitions: &[i32], next: i64, settings: &[&str]) -> u64 {
    let spool = format!("ingest.spool={}", place.spool().display());
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).chain([spool]).collect();
    let mut child = program(place, &settings).spawn().unwrap();
    let lake = place.lake().await;
    let deadline = Instant::now() + TEST_TIMEOUT;
    for (namespace, name) in tables {
        let reached = async || {
            let offsets = lake.table(namespace, name).offsets().await.unwrap_or_default();
            let has_reached =
                |partition: &i32| offsets.get(&TopicPartition::new(TOPIC, *partition)) == Some(&NextOffset(next));
            partitions.iter().all(has_reached)
        };
        while !reached().await {
            assert!(Instant::now() < deadline, "offset {next} was not reached in {namespace}.{name}");
            if child.try_wait().unwrap().is_some() {
                panic!("ended before offset {next} was reached: {}", said(&child.wait_with_output().unwrap()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    assert_eq!(terminate(child).status.code(), Some(0));
    peak.unwrap().trim().parse::<u64>().unwrap() >> 10
}

/// What may come on top of `ingest.memory`: what was polled, a message and a portion being decoded, and what the allocator keeps.
const BESIDE_MIB: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_land_within_the_memory_that_was_given_whether_they_decode_or_not() {
    const MEMORY_MIB: u64 = 32;
    let settings = ["ingest.memory=32MiB", "ingest.idle_commit_interval=100ms"];
    let partitions = [0, 1, 2, 3];
    let tables = [("bronze", "messages"), ("ops", "ledger"), ("silver", "events")];
    let small = Place::new();
    partitions.iter().for_each(|partition| append(&mut writer(&small.spool(), *partition), &[message("a", 0, 1)]));
    let base = land_within(&small, &tables, &partitions, 1, &settings).await;

    let garbage = Bytes::from(vec![b'x'; 4 << 20]);
    let nodes = partitions.map(|partition| {
        let node = format!("n{partition}");
        let large = (0..4).map(|i| message(&node, i * 50_000, 50_000));
        large.flat_map(|decodable| [decodable, garbage.clone()]).collect::<Vec<_>>()
    });
    let flood = Place::new();
    for (partition, messages) in partitions.iter().zip(&nodes) {
        append(&mut writer(&flood.spool(), *partition), messages);
    }
    let peak = land_within(&flood, &tables, &partitions, 8, &settings).await;
    assert_eq!(flood.longs("silver", "events", "seq").await.len(), 4 * 4 * 50_000);
    assert_eq!(flood.rows("ops", "dlq").await.num_rows(), 16);
    eprintln!("{base} MiB with small messages, {peak} MiB at most with large ones");
    assert!(peak <= base + MEMORY_MIB + BESIDE_MIB, "{base} MiB with small messages, {peak} MiB with large ones");
}

fn terminate(child: Child) -> Output {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

/// Waits until `/readyz` answers with this status line, and returns the answer.
fn wait_until_ready_says(port: u16, status: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let (mut connection, mut answer) = (TcpStream::connect(("127.0.0.1", port))?, String::new());
        connection.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let answer = ask();
        match answer {
            Ok(answer) if answer.starts_with(&format!("HTTP/1.0 {status}")) => return answer,
            answer => assert!(Instant::now() < deadline, "{status} was expected: {answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_admin_port_tells_to_the_end_what_a_drain_waits_for() {
    let place = Place::new();
    drop(writer(&place.spool(), 0));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = program(&place, &[format!("ingest.spool={}", place.spool().display())]);
    let child = command.args(["--set", &format!("admin.port={port}")]).spawn().unwrap();
    wait_until_ready_says(port, "200");
    take_away(&place);
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    wait_until_ready_says(port, "503");
    let draining = std::thread::spawn(move || terminate(child));
    // The drain has begun by now, and cannot end.
    std::thread::sleep(Duration::from_millis(500));
    let shown = wait_until_ready_says(port, "503");
    assert!(shown.contains("failed"), "{shown}");
    bring_back(&place);
    let ended = draining.join().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
}

/// Bytes of a segment before its first record.
const SEGMENT_HEADER_BYTES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_spool_whose_last_message_was_torn_the_rest_lands_and_what_is_written_after_it() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 10), message("a", 10, 10)]);
    let segment = segment(&place.spool());
    let torn = fs::read(&segment).unwrap()[SEGMENT_HEADER_BYTES..][..100].to_vec();
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(&torn).unwrap();
    land(&place, 2).await;
    assert_eq!(place.longs("silver", "events", "seq").await, (0..20).collect::<Vec<_>>());
    // The next writer cuts the torn end off first.
    append(&mut writer(&place.spool(), 0), &[message("a", 20, 15)]);
    land(&place, 3).await;
    assert_eq!(place.longs("silver", "events", "seq").await, (0..35).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_has_lost_what_was_safe_on_disk_is_refused_by_its_file() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 10), message("a", 10, 10)]);
    let segment = segment(&place.spool());
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 7).unwrap();
    let output = program(&place, &[format!("ingest.spool={}", place.spool().display())]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let expected = format!("{} is damaged", segment.display());
    assert!(said(&output).contains(&expected), "{}", said(&output));
}

/// The only segment under `dir`.
fn segment(dir: &Path) -> std::path::PathBuf {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                return path;
            }
        }
    }
    panic!("no segment under {}", dir.display());
}
