use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("lake `{0}` did not open")]
struct Outer(&'static str, #[source] std::io::Error);

impl Fatal for Outer {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

#[test]
fn a_report_names_every_cause_once() {
    let error = Outer("a", std::io::Error::other(std::io::Error::other("disk gone")));
    assert_eq!(report(&error), "error: lake `a` did not open\n  caused by: disk gone");
    assert_eq!(in_a_line(&error), "lake `a` did not open: disk gone");
}

#[test]
fn the_exit_code_comes_from_the_outcome() {
    let same = |a: ExitCode, b: ExitCode| format!("{a:?}") == format!("{b:?}");
    let done = service(|_| async { Ok::<_, Outer>(Exit::Incomplete) });
    assert!(same(done, ExitCode::from(3)));
    let failed = service(|_| async { Err::<Exit, _>(Outer("b", std::io::Error::other("x"))) });
    assert!(same(failed, ExitCode::from(2)));
}

#[test]
fn a_terminal_is_never_given_what_it_would_obey() {
    assert_eq!(printable("a\tb\u{1b}[2J\u{9b}1m\n"), "a\tb\\u001b[2J\\u009b1m\n");
    assert_eq!(printable("caf\u{e9} \u{1f600}"), "caf\u{e9} \u{1f600}");
}

/// Waits for one timer after another.
async fn waits_for_ever() {
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends with an error while a thread for work that blocks waits for a timer, as one that tries a request again does.
#[test]
#[ignore = "the body of the process that `what_still_runs_at_the_end_does_not_panic` starts"]
fn a_program_whose_threads_outlive_it() {
    service(|_| async {
        let runtime = tokio::runtime::Handle::current();
        let _outlives = tokio::task::spawn_blocking(move || runtime.block_on(waits_for_ever()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err::<Exit, _>(Outer("late", std::io::Error::other("gone")))
    });
    // The thread comes to its next timer.
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn what_still_runs_at_the_end_does_not_panic() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    let name = "run::tests::a_program_whose_threads_outlive_it";
    let said = program.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("lake `late` did not open") && !said.contains("panicked"), "{said}");
}

/// Blocks its thread, as a write to a pipe that is full does.
#[test]
#[ignore = "the body of the process that `a_second_signal_ends_a_program_whose_thread_is_blocked` starts"]
fn a_program_whose_thread_is_blocked() {
    service(|_| async {
        note("is blocked");
        std::thread::sleep(Duration::from_secs(600));
        Ok::<_, Outer>(Exit::Done)
    });
}

#[test]
fn a_second_signal_ends_a_program_whose_thread_is_blocked() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "run::tests::a_program_whose_thread_is_blocked", "--ignored", "--nocapture"]);
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "is blocked"));
    let signal =
        |name: &str| assert!(Command::new("kill").arg(name).arg(child.id().to_string()).status().unwrap().success());
    signal("-TERM");
    // Within a second it would be the same signal.
    std::thread::sleep(ONE_SIGNAL + Duration::from_millis(200));
    signal("-INT");
    assert_eq!(child.wait().unwrap().code(), Some(143), "128 and the number of the first signal");
}
