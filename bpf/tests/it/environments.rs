//! Environments as programs began with them, whatever became of the programs.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bpf::{Environments, Options, Tracer};

use crate::harness::{Seen, alone_as_root, load};

const VARIABLES: &[&str] = &["RANK", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"];

fn tracer() -> (Tracer, Environments) {
    let tracer = load(&Options { variables: VARIABLES, ..Options::default() });
    let environments = tracer.environments().unwrap();
    (tracer, environments)
}

/// A shell with an environment of its own.
fn shell(script: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env_clear().envs(variables.iter().copied()).stdin(Stdio::piped());
    command.spawn().unwrap()
}

fn of(environments: &Environments, pid: u32) -> Option<(String, Option<i32>)> {
    let environment = environments.of(pid as i32, i64::MAX)?;
    Some((String::from_utf8(environment.text).unwrap(), environment.parent))
}

#[test]
fn root_wanted_variables_are_kept_of_processes_that_have_ended() {
    let Some(_alone) = alone_as_root() else { return };
    let (_tracer, environments) = tracer();
    let long = "x".repeat(10_000);
    let variables = [
        ("PATH", "/bin"),
        ("RANKS", "1"),
        ("A_LONG_ONE", &long),
        ("RANK", "3"),
        ("XRANK", "4"),
        ("SLURM_JOB_ID", &long),
        ("TORCHELASTIC_RUN_ID", "llm-7"),
        ("SLURM_JOB_IDS", "9"),
    ];
    let mut child = shell("exit 0", &variables);
    assert!(child.wait().unwrap().success());
    let (text, parent) = of(&environments, child.id()).unwrap();
    let mut kept: Vec<&str> = text.split_terminator('\0').collect();
    kept.sort_unstable();
    let cut = format!("SLURM_JOB_ID={}", "x".repeat(191 - "SLURM_JOB_ID=".len()));
    assert_eq!((kept, parent), (vec!["RANK=3", cut.as_str(), "TORCHELASTIC_RUN_ID=llm-7"], None));
    let mut silent = shell("exit 0", &[("PATH", "/bin")]);
    silent.wait().unwrap();
    assert_eq!(of(&environments, silent.id()), None);
}

#[test]
fn root_a_forked_child_has_its_parents_environment_until_it_becomes_another_program() {
    let Some(_alone) = alone_as_root() else { return };
    let (mut tracer, environments) = tracer();
    // A subshell is forked and stays the shell; `env -i` replaces it by a program without any of the variables.
    let script = "(read go; exit 0) & echo $!; (exec env -i /bin/sleep 60) & echo $!; wait";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("RANK", "3").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut seen = Seen::default();
    seen.poll(&mut tracer, Duration::from_millis(500));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let [forked, replaced]: [u32; 2] = std::array::from_fn(|_| lines.next().unwrap().unwrap().parse().unwrap());
    assert_eq!(of(&environments, forked), Some(("RANK=3\0".to_owned(), Some(child.id() as i32))));
    seen.poll_until(&mut tracer, |_| of(&environments, replaced).is_none());
    for pid in [replaced, child.id()] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    child.wait().unwrap();
}
