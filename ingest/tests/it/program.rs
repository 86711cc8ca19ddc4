//! The program: what it refuses, and a spool whose last message was torn.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};

use crate::faults::{bring_back, take_away};
use crate::{Place, TOPIC, append, message, writer};

const PATIENCE: Duration = Duration::from_secs(60);

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
    assert!(began.elapsed() < PATIENCE);
}

/// Runs the program over the spool until every table has reached `next`, then drains it.
async fn land(place: &Place, next: i64) {
    let mut child = program(place, &[format!("ingest.spool={}", place.spool().display())]).spawn().unwrap();
    let (at, deadline) = (TopicPartition::new(TOPIC, 0), Instant::now() + PATIENCE);
    loop {
        let lake = place.lake().await;
        let offsets = lake.table("bronze", "messages").offsets().await;
        if offsets.is_ok_and(|offsets| offsets.get(&at) == Some(&NextOffset(next))) {
            break;
        }
        assert!(Instant::now() < deadline, "offset {next} was not reached");
        if child.try_wait().unwrap().is_some() {
            panic!("ended before offset {next} was reached: {}", said(&child.wait_with_output().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(terminate(child).status.code(), Some(0));
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
    let deadline = Instant::now() + PATIENCE;
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
    let told = wait_until_ready_says(port, "503");
    assert!(told.contains("failed"), "{told}");
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
    // Whoever writes on cuts the torn end off first.
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
