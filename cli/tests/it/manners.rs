//! How the command behaves at a terminal and in a pipe: signals, closed outputs, addresses, several statements, help.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Lake, Said, TIME_LIMIT, Up, causeway, run};

/// Runs until the limit of a query, a minute, unless it is cancelled.
pub(crate) const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b";

/// Whether `holds` becomes true while a busy machine may need.
pub(crate) fn comes_true(holds: impl Fn() -> bool) -> bool {
    let until = Instant::now() + TIME_LIMIT;
    while Instant::now() < until {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

pub(crate) fn cancelled(up: &Up, count: usize) -> bool {
    up.metrics().contains(&format!("causeway_query_queries_total{{outcome=\"Cancelled\"}} {count}"))
}

pub(crate) fn is_running(up: &Up) -> bool {
    up.csv("SELECT count(*) FROM sources").starts_with("count") && up.metrics().contains("causeway_query_running 1")
}

#[test]
fn standard_error_that_cannot_be_written_stops_nothing() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let program = env!("CARGO_BIN_EXE_causeway");
    for command in ["query 'SELECT 1 AS x'", "nodes", "status", "query 'SELECT nonsense'", "explain"] {
        for script in [
            format!("{program} --server {} {command} 2>/dev/full; echo $?", up.url),
            format!("{program} --server {} {command} 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}", up.url),
        ] {
            let said = Said::of(Command::new("bash").args(["-c", &script]).output().unwrap());
            let code = said.out.lines().last().unwrap_or_default();
            assert!(matches!(code, "0" | "1" | "2"), "{script}: {} {}", said.out, said.err);
        }
    }
    // A server logs from its first moment to its last.
    for format in ["json", "text"] {
        let lake = Lake::new();
        let mut command = Command::new("bash");
        command.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full", program, "--log-format", format, "up", "--no-agent"]);
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(lake.path()).env("CAUSEWAY_ADMIN_PORT", "0");
        Up::start(command).stop().ok();
    }
}

#[test]
fn an_interrupted_query_exits_with_130_and_is_cancelled_at_the_server() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let mut child = up.command(&["query", ENDLESS]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(comes_true(|| is_running(&up)), "{}", up.metrics());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(comes_true(|| cancelled(&up, 1)), "{}", up.metrics());

    let mut child = up.command(&["query", ENDLESS]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(comes_true(|| is_running(&up)), "{}", up.metrics());
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_statement_that_never_comes_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = causeway(&["query", "-f"]).arg(&pipe).stderr(Stdio::null()).spawn().unwrap();
        // Opened once the command has opened it too.
        let writer = fs::File::options().write(true).open(&pipe).unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(exit_code(&mut child), Some(code));
        drop(writer);
    }
}

/// The system call that a process is in, and its first argument.
fn system_call(pid: u32) -> Option<(i64, i64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let (number, rest) = text.split_once(' ')?;
    let argument = rest.split(' ').next()?.trim_start_matches("0x");
    Some((number.parse().ok()?, i64::from_str_radix(argument, 16).ok()?))
}

#[test]
fn two_signals_end_a_command_whose_output_is_not_read() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let sql = "SELECT value FROM generate_series(1, 10000000)";
    let mut command = up.command(&["query", sql, "--limit", "all", "--format", "csv"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    // The pipe is full once it waits in write(1, …).
    assert!(comes_true(|| system_call(child.id()) == Some((nix::libc::SYS_write, 1))), "{:?}", system_call(child.id()));
    let interrupt = || Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success();
    assert!(interrupt());
    // Within a second it would be the same signal.
    std::thread::sleep(Duration::from_millis(1200));
    assert!(interrupt());
    assert_eq!(exit_code(&mut child), Some(130));
}

/// The exit code of a process, which is killed should it not end.
pub(crate) fn exit_code(child: &mut std::process::Child) -> Option<i32> {
    let until = Instant::now() + TIME_LIMIT;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap().code()
}

#[test]
fn statements_of_a_file_run_in_turn_and_an_error_is_placed_in_the_file() {
    let lake = Lake::new();
    let up = lake.up(&[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.sql");
    let ask = |text: &str, more: &[&str]| {
        fs::write(&file, text).unwrap();
        up.ask(&[&["query", "-f", file.to_str().unwrap()], more].concat())
    };
    let said = ask("\u{feff}SELECT 1 AS a; -- one; only\nSELECT 'b;' AS b;\n-- end\n;", &["--format", "csv"]).ok();
    assert_eq!(said.out, "a\r\n1\r\nb\r\nb;\r\n");
    let said = ask("SELECT 1;\nSELECT 2;  SELECT nodee FROM events;\nSELECT 3", &["--format", "csv"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("line 2, column 19"), "{}", said.err);
    assert!(!said.out.contains('3'), "{}", said.out);
    let said = ask("SELECT 1; SELECT 2", &["--format", "parquet"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("2 statements"), "{}", said.err);
}

#[test]
fn a_listener_takes_a_port_alone_and_warns_when_others_can_reach_it() {
    let lake = Lake::new();
    let data = lake.path();
    let start = |listen: &str| {
        let mut command = causeway(&["up", "--no-agent", "--listen", listen, "--data"]);
        command.arg(&data);
        Up::start(command)
    };
    let up = start("0");
    assert!(up.url.starts_with("http://127.0.0.1:"), "{}", up.url);
    let port = up.url.rsplit_once(':').unwrap().1.to_owned();
    run(&["query", "SELECT 1", "--server", &format!("localhost:{port}")]).ok();
    // A port in use is found before anything is made.
    let elsewhere = data.with_file_name("elsewhere");
    let mut second = causeway(&["up", "--no-agent", "--listen", &port, "--data"]);
    let said = Said::of(second.arg(&elsewhere).output().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", said.err);
    assert!(!elsewhere.exists());
    assert!(!up.stop().err.contains("reachable from other hosts"));
    let up = start("0.0.0.0:0");
    assert!(up.stop().err.contains("reachable from other hosts"));
    assert_eq!(run(&["up", "--listen", "nowhere"]).code, 2);
}

#[test]
fn a_machine_without_a_lake_is_well() {
    let lake = Lake::new();
    let said = run(&["doctor", "--json", "--data", lake.path().to_str().unwrap()]);
    let checks = said.json();
    let fails = |check: &&serde_json::Value| check["verdict"] == "fails";
    let failing: Vec<_> = checks.as_array().unwrap().iter().filter(fails).collect();
    assert!(failing.iter().all(|check| check["area"] == "probes"), "{failing:?}");
    assert_eq!(said.code, i32::from(!failing.is_empty()), "{}", said.out);
    let lake_check = checks.as_array().unwrap().iter().find(|check| check["area"] == "lake").unwrap();
    assert!(lake_check["found"].as_str().unwrap().contains("`causeway up`"), "{lake_check}");
}

#[test]
fn a_configured_catalog_that_ingest_has_not_made_yet_is_no_fault() {
    let lake = Lake::new();
    let catalog = format!("catalog.uri=sqlite://{}/catalog.sqlite", lake.path().display());
    let warehouse = format!("store.warehouse={}", lake.path().display());
    let said = run(&["doctor", "--json", "--set", &catalog, "--set", &warehouse]);
    let checks = said.json();
    let lake_check = checks.as_array().unwrap().iter().find(|check| check["area"] == "lake").unwrap();
    assert_eq!(lake_check["verdict"], "unused", "{lake_check}");
    assert!(lake_check["found"].as_str().unwrap().contains("start ingest first"), "{lake_check}");
}

#[test]
fn times_are_taken_as_people_write_them() {
    let lake = Lake::new();
    lake.import(&["sample-cluster.db"], &[]).ok();
    let up = lake.up(&[]);
    let count = |since: &str| {
        let said = up.ask(&["query", "SELECT count(*) AS n FROM events", "--since", since, "--format", "csv"]).ok();
        said.out.lines().nth(1).unwrap().to_owned()
    };
    for since in ["2026-04-03", "2026-04-03 12:00", "2026-04-03T12:00:00Z", "1775217600"] {
        assert_eq!(count(since), "600", "{since}");
    }
    for since in ["-5m", "now", "today"] {
        assert_eq!(count(since), "0", "{since}");
    }
    let said = up.ask(&["query", "SELECT 1", "--since", "soon"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("`soon` is not a time: write 2026-"), "{}", said.err);
}

#[test]
fn help_has_examples_and_offers_a_server_only_where_one_is_asked() {
    for (command, has_server) in
        [("query", true), ("explain", true), ("up", false), ("audit", false), ("import", false)]
    {
        let said = run(&[command, "--help"]).ok();
        assert_eq!(said.out.contains("--server"), has_server, "{command}: {}", said.out);
        assert!(said.out.contains("Global options:"), "{}", said.out);
    }
    assert!(run(&["query", "--help"]).ok().out.contains("Examples:"));
    for command in [&["query", "SELECT 1"][..], &["explain"], &["stragglers"]] {
        let said = run(&[command, &["--nodes", ""]].concat());
        assert!(said.code == 2 && said.err.contains("the name of a node cannot be empty"), "{}", said.err);
    }
    let elsewhere = run(&["query", "SELECT 1", "--server", "127.0.0.1:1"]);
    assert!(elsewhere.err.contains("no server answers at http://127.0.0.1:1"), "{}", elsewhere.err);
}

#[test]
fn a_simulated_fleet_shows_a_slow_rank_and_why() {
    let lake = Lake::new();
    let up = lake.up(&["--simulate", "nodes=2,ranks=2,rate=2000,slow=1"]);
    let blamed = || {
        let said = up.ask(&["explain", "--since", "5m"]);
        said.out.contains("rank 1 ") && said.out.contains("cpu-hog")
    };
    assert!(comes_true(blamed), "{:?}", up.ask(&["explain", "--since", "5m"]));
}
