//! Environments as programs began with them, whatever became of the programs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpf::{Class, Environments, Options, Tracer};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::harness::{Seen, alone_as_root, load};

const VARIABLES: &[&str] = &["RANK", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "KUBERNETES_SERVICE_HOST"];

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

/// A traced shell that has ended: what is kept of it.
fn ended(tracer: &Tracer, variables: &[(&str, &str)]) -> u32 {
    let mut child = shell("read go", variables);
    tracer.trace_process(child.id() as i32).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    child.id()
}

fn kept(environments: &Environments, pid: u32) -> Option<Vec<String>> {
    let (text, _) = of(environments, pid)?;
    let mut kept: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    kept.sort_unstable();
    Some(kept)
}

#[test]
fn root_wanted_variables_are_kept_of_traced_processes_that_have_ended_until_they_are_forgotten() {
    let Some(_alone) = alone_as_root() else { return };
    let (tracer, environments) = tracer();
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
    let pid = ended(&tracer, &variables);
    let cut = format!("SLURM_JOB_ID={}", "x".repeat(191 - "SLURM_JOB_ID=".len()));
    let expected = ["RANK=3", cut.as_str(), "TORCHELASTIC_RUN_ID=llm-7"].map(str::to_owned);
    assert_eq!(kept(&environments, pid).unwrap(), expected);
    let environment = environments.of(pid as i32, i64::MAX).unwrap();
    assert!(environment.parent.is_none() && !environment.is_cut);
    assert_eq!(environments.of(pid as i32, 1), None, "it had not been born");
    let silent = ended(&tracer, &[("PATH", "/bin")]);
    assert_eq!(kept(&environments, silent).unwrap(), [""; 0], "it is known that it had none");
    environments.forget_ended(environment.since_ns);
    assert!(kept(&environments, pid).is_some(), "it ended later");
    environments.forget_ended(i64::MAX);
    assert_eq!((kept(&environments, pid), kept(&environments, silent)), (None, None));
    let mut untraced = shell("exit 0", &variables);
    untraced.wait().unwrap();
    assert_eq!(of(&environments, untraced.id()), None, "no record of it will come");
}

#[test]
fn root_a_process_does_not_get_the_environment_of_one_that_had_its_number() {
    let Some(_alone) = alone_as_root() else { return };
    let (tracer, environments) = tracer();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = ended(&tracer, &[("RANK", "3"), ("SLURM_JOB_ID", "77")]);
        std::fs::write("/proc/sys/kernel/ns_last_pid", (before - 1).to_string()).unwrap();
        // Neither it nor this process has any of the variables.
        let mut next = shell("read go", &[("PATH", "/bin")]);
        let (next_pid, found) = (next.id(), kept(&environments, before));
        drop(next.stdin.take());
        next.wait().unwrap();
        if next_pid == before {
            assert!(found.is_none_or(|kept| kept.is_empty()), "{:?}", kept(&environments, before));
            break;
        }
        assert!(Instant::now() < deadline, "somebody else always gets the number");
    }
}

#[test]
fn root_the_last_records_of_a_process_keep_its_environment_when_its_number_is_used_again() {
    let Some(_alone) = alone_as_root() else { return };
    let (tracer, environments) = tracer();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = ended(&tracer, &[("RANK", "3")]);
        let then = environments.of(before as i32, i64::MAX).unwrap().since_ns;
        // A child that is forked has its parent's environment, also before it becomes another program.
        let last = before - 1;
        let script = format!("exec 3<&0; echo {last} > /proc/sys/kernel/ns_last_pid; (read go <&3) & echo $!; wait");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).env_clear().env("RANK", "4").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut parent = command.spawn().unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(parent.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let rank_at = |boot_ns| Some(String::from_utf8(environments.of(before as i32, boot_ns)?.text).unwrap());
        let ranks = (rank_at(then), rank_at(i64::MAX));
        drop(parent.stdin.take());
        parent.wait().unwrap();
        if line.trim().parse() == Ok(before) {
            assert_eq!(ranks, (Some("RANK=3\0".to_owned()), Some("RANK=4\0".to_owned())));
            break;
        }
        assert!(Instant::now() < deadline, "somebody else always gets the number");
    }
}

#[test]
fn root_environments_of_ended_processes_that_there_is_no_room_for_are_counted() {
    let Some(_alone) = alone_as_root() else { return };
    let (mut tracer, _environments) = tracer();
    let script = "read go; n=0; while [ $n -lt 4200 ]; do (exit 0); n=$((n + 1)); done";
    let mut parent = shell(script, &[("RANK", "3")]);
    tracer.trace_process(parent.id() as i32).unwrap();
    drop(parent.stdin.take());
    let mut seen = Seen::default();
    assert!(seen.follow(&mut tracer, &mut parent).success());
    // Those of 4096 are kept; its own is the last.
    assert_eq!(seen.finish(&mut tracer).of(Class::Process).environs_drop, 4201 - 4096);
}

#[test]
fn root_what_does_not_fit_is_told_to_be_missing() {
    let Some(_alone) = alone_as_root() else { return };
    let (tracer, environments) = tracer();
    let long = "x".repeat(200);
    let names = [1, 2, 3, 4, 5, 6].map(|n| format!("KUBERNETES_SERVICE_{n}"));
    let mut variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    variables.push(("RANK", "3"));
    let pid = ended(&tracer, &variables);
    let environment = environments.of(pid as i32, i64::MAX).unwrap();
    assert!(environment.is_cut && !String::from_utf8(environment.text).unwrap().contains("RANK=3"));
    let pid = ended(&tracer, &variables[3..]);
    let environment = environments.of(pid as i32, i64::MAX).unwrap();
    assert!(!environment.is_cut && String::from_utf8(environment.text).unwrap().contains("RANK=3"));
}

/// The maps of this name that this process has open.
fn maps(name: &str) -> Vec<MapHandle> {
    let of_fd = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"))?;
        MapHandle::from_map_id(id.trim().parse().ok()?).ok()
    };
    let open = std::fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(of_fd);
    open.filter(|map| map.name() == name).collect()
}

#[test]
fn root_nothing_of_other_variables_or_processes_gets_into_a_map() {
    let Some(_alone) = alone_as_root() else { return };
    let (tracer, environments) = tracer();
    let first = ended(&tracer, &[("TORCHELASTIC_RUN_ID", &"of-another".repeat(10)), ("Z_SECRET", "hunter2")]);
    let mut living = shell("read go", &[("A_SECRET", "hunter2"), ("RANK", "3"), ("Z_SECRET", "hunter2")]);
    while kept(&environments, living.id()).is_none_or(|kept| kept != ["RANK=3"]) {}
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let of_process = |map: &str, pid: u32| {
        let values = maps(map).into_iter().map(|map| map.lookup(&pid.to_ne_bytes(), MapFlags::ANY).unwrap());
        values.flatten().collect::<Vec<_>>()
    };
    let (ended, living_one) = (of_process("ended_environs", first), of_process("environs", living.id()));
    let scratch = maps("environ_scratch")
        .into_iter()
        .flat_map(|map| map.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap());
    let all: Vec<Vec<u8>> = ended.iter().chain(&living_one).cloned().chain(scratch).collect();
    drop(living.stdin.take());
    living.wait().unwrap();
    assert!(ended.iter().any(|value| contains(value, "of-another")));
    assert!(!living_one.is_empty() && !living_one.iter().any(|value| contains(value, "of-another")));
    assert!(!all.iter().any(|value| contains(value, "hunter2") || contains(value, "SECRET")));
}

#[test]
fn root_a_forked_child_has_its_parents_environment_until_it_becomes_another_program() {
    let Some(_alone) = alone_as_root() else { return };
    let (mut tracer, environments) = tracer();
    // A subshell is forked and stays the shell; `env -i` replaces it by a program without any of the variables.
    let script = "read go; (exit 0) & echo $!; (exec env -i /bin/sleep 60) & echo $!; wait";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("RANK", "3").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    tracer.trace_process(child.id() as i32).unwrap();
    drop(child.stdin.take());
    let mut seen = Seen::default();
    seen.poll(&mut tracer, Duration::from_millis(500));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let [forked, replaced]: [u32; 2] = std::array::from_fn(|_| lines.next().unwrap().unwrap().parse().unwrap());
    assert_eq!(of(&environments, forked), Some(("RANK=3\0".to_owned(), Some(child.id() as i32))));
    seen.poll_until(&mut tracer, |_| of(&environments, replaced) == Some((String::new(), None)));
    for pid in [replaced, child.id()] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    child.wait().unwrap();
}
