//! The program: killed at any time it goes on with the next epoch, and it needs capabilities, not root.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{Job, LIBRARIES, alone_as_root};
use crate::spool::{check_ledger, read, rows};

const CAPABILITIES: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";

/// An agent whose Kafka is nowhere, so that everything stays in the spool.
fn agent(mut command: Command, spool: &TempDir, libraries: &str) -> Child {
    command.env("CAUSEWAY_KAFKA_BROKERS", "127.0.0.1:1").env("CAUSEWAY_ADMIN_PORT", "0");
    command.env("CAUSEWAY_SPOOL_DIR", spool.path()).env("CAUSEWAY_AGENT_DRAIN_TIMEOUT", "100ms");
    command.env("CAUSEWAY_AGENT_LIBRARIES", libraries).env("CAUSEWAY_LOG_FORMAT", "text");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("the agent ended: {seen:#?}")).unwrap();
        if line.contains("agent started") {
            break;
        }
        seen.push(line);
    }
    // It is not read on: a full pipe must not stop the agent.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn libraries(job: &Job) -> String {
    LIBRARIES.map(|(name, _)| job.library(name).display().to_string()).join(",")
}

fn terminate(mut child: Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn root_killed_at_any_time_it_goes_on_with_the_next_epoch_and_keeps_the_spool() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let mut work = job.start("--ranks 2 --seconds 8 --gpu-us 1000");
    for lives_ms in [900, 400, 1300] {
        let mut child = agent(Command::new(env!("CARGO_BIN_EXE_causeway-agent")), &spool, &libraries(&job));
        std::thread::sleep(Duration::from_millis(lives_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = agent(Command::new(env!("CARGO_BIN_EXE_causeway-agent")), &spool, &libraries(&job));
    assert!(work.wait().unwrap().success());
    terminate(last);
    let messages = read(spool.path());
    let epochs: BTreeSet<i64> = messages.iter().map(|message| message.header.epoch).collect();
    assert_eq!(epochs.len(), 4);
    for epoch in epochs {
        let (rows, _) = check_ledger(&messages, epoch);
        assert!(rows > 0, "epoch {epoch}");
    }
    assert!(rows(&messages).iter().any(|row| row.rank == Some(1)));
}

#[test]
fn root_four_capabilities_are_enough() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    // Where another user can execute it.
    let program = spool.path().join("causeway-agent");
    fs::copy(env!("CARGO_BIN_EXE_causeway-agent"), &program).unwrap();
    chown(spool.path(), Some(65534), Some(65534)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps", CAPABILITIES]);
    command.args(["--ambient-caps", CAPABILITIES]).arg(&program);
    let child = agent(command, &spool, "");
    let mut work = job.start("--ranks 2 --seconds 4 --gpu-us 2000 --job plain");
    assert!(work.wait().unwrap().success());
    terminate(child);
    let rows = rows(&read(spool.path()));
    let of_job = rows.iter().filter(|row| row.job_id.as_deref() == Some("plain") && row.rank.is_some()).count();
    assert!(of_job > 100, "{of_job} of {}", rows.len());
}

#[test]
fn root_a_named_library_that_cannot_be_probed_is_a_wrong_configuration() {
    let Some(_alone) = alone_as_root() else { return };
    let spool = TempDir::new().unwrap();
    let (exit, said) = refused(
        Command::new(env!("CARGO_BIN_EXE_causeway-agent"))
            .args(["--set", "agent.libraries=/nonexistent/libcudart.so.12", "--set", "admin.port=0"])
            .env("CAUSEWAY_SPOOL_DIR", spool.path()),
    );
    assert_eq!(exit, Some(2), "{said}");
    assert!(said.contains("/nonexistent/libcudart.so.12"), "{said}");
}

#[test]
fn root_without_capabilities_it_says_which_are_missing() {
    let Some(_alone) = alone_as_root() else { return };
    let spool = TempDir::new().unwrap();
    let program = spool.path().join("causeway-agent");
    fs::copy(env!("CARGO_BIN_EXE_causeway-agent"), &program).unwrap();
    chown(spool.path(), Some(65534), Some(65534)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    let (exit, said) = refused(command.args(["--set", "admin.port=0"]).env("CAUSEWAY_SPOOL_DIR", spool.path()));
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("this process lacks CAP_BPF and CAP_PERFMON; run it as root"), "{said}");
}

#[test]
fn root_without_btf_it_says_what_kernel_is_needed() {
    let Some(_alone) = alone_as_root() else { return };
    let spool = TempDir::new().unwrap();
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" --set admin.port=0";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_causeway-agent")]);
    let (exit, said) = refused(command.env("CAUSEWAY_SPOOL_DIR", spool.path()));
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("no BTF at /sys/kernel/btf/vmlinux") && said.contains("CONFIG_DEBUG_INFO_BTF=y"), "{said}");
}

#[test]
fn the_version_names_the_commit_and_shells_can_complete() {
    let said = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_causeway-agent")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["--version"]).starts_with(&format!("causeway-agent {}", service_kit::program::VERSION)));
    assert!(said(&["completion", "zsh"]).contains("#compdef causeway-agent"));
}

/// Exit code and words of an agent that does not start.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_wrong_configuration_is_told_and_nothing_is_started() {
    let output = Command::new(env!("CARGO_BIN_EXE_causeway-agent"))
        .args(["--set", "agent.data_ring=5000", "--set", "agent.no_such_option=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("agent.data_ring") && said.contains("no_such_option"), "{said}");
}
