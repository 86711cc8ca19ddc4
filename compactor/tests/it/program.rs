//! The program itself: it starts, maintains, shows what it did, and ends when it is to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::place::Place;
use crate::rows::TIME_LIMIT;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_maintains_the_tables_shows_it_and_ends_on_sigterm() {
    let place = Place::embedded();
    let lake = place.lake().await;
    Fleet::new(2, 5).land(&lake, 10).await;
    let port = free_port();
    let program = Command::new(env!("CARGO_BIN_EXE_causeway-compactor"))
        .args(["--set", &format!("catalog.uri={}", place.options.catalog_uri)])
        .args(["--set", &format!("store.warehouse={}", place.options.warehouse)])
        .args(["--set", "compactor.interval=200ms", "--set", &format!("admin.port={port}")])
        .stderr(Stdio::null())
        .spawn();
    let mut program = Program(program.unwrap());
    until("ready", || get(port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))).await;
    // The day of the rows is long over by the clock of this machine.
    let replaced = r#"causeway_compactor_tasks_total{table="silver.events",outcome="replaced"} 1"#;
    until("a replacement", || get(port, "/metrics").is_some_and(|metrics| metrics.contains(replaced))).await;
    let metrics = get(port, "/metrics").unwrap();
    for shown in [
        r#"causeway_compactor_health{table="silver.events"}"#,
        r#"causeway_compactor_rows_total{table="silver.events"} 2000"#,
        r#"causeway_compactor_files_removed_total{table="silver.events"} 10"#,
        r#"causeway_compactor_files_added_total{table="silver.events"} 1"#,
    ] {
        assert!(metrics.contains(shown), "{shown} in {metrics}");
    }
    let terminated = Command::new("kill").args(["-TERM", &program.0.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    until("its end", || program.0.try_wait().unwrap().is_some()).await;
    assert!(program.0.wait().unwrap().success());
    let events = lake.table("silver", "events").snapshot().await.unwrap();
    assert_eq!((events.plan(&[]).await.unwrap().len(), events.total_records()), (1, Some(2_000)));
}

#[test]
fn a_configuration_that_names_no_lake_is_refused() {
    let program = Command::new(env!("CARGO_BIN_EXE_causeway-compactor"))
        .args(["--set", "compactor.fan_in=1", "config", "check"])
        .output();
    let output = program.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for named in ["catalog.uri", "store.warehouse", "compactor.fan_in"] {
        assert!(shown.contains(named), "{named} in {shown}");
    }
}
