//! Facts from real and from written-down `/proc` files.

use std::process::{Command, Stdio};

use super::*;

/// What is read of a child once it is what it was started as: between fork and exec it has our name and environment, and in exec its
/// own name before its own environment.
fn read_child(child: &std::process::Child) -> Process {
    let pid = i32::try_from(child.id()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let process = Process::read(pid).unwrap();
        if process.rank() == Some(3) || std::time::Instant::now() > deadline {
            return process;
        }
    }
}

#[test]
fn a_running_process_tells_its_rank_and_job() {
    let mut child = Command::new("sleep")
        .arg("60")
        .env_clear()
        .envs([("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8"), ("CAUSEWAY_JOB_ID", "llm-7")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let process = read_child(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    let ranks = Ranks { rank: 3, local_rank: Some(1), world_size: Some(8) };
    assert_eq!(process.ranks(), Some((ranks, RankSource::EnvironmentAtExec)));
    assert_eq!((process.job_id(), process.name.as_str()), (Some("llm-7"), "sleep"));
    assert!(process.start_ticks > 0 && process.cgroup_path.is_some());
    assert_eq!(Process::read(pid), None, "it is gone");
}

#[test]
fn a_process_whose_name_is_cut_inside_a_character_is_read() {
    let dir = tempfile::TempDir::new().unwrap();
    // The kernel names a process after the first 15 bytes of its file's name.
    let program = dir.path().join("train-lauf-nr-\u{e4}");
    let sleep = Command::new("sh").args(["-c", "command -v sleep"]).output().unwrap();
    // By another process: a child that a test beside this one forks would hold our writing end, and the file be busy.
    let sleep = String::from_utf8(sleep.stdout).unwrap();
    assert!(Command::new("cp").args([sleep.trim().as_ref(), program.as_os_str()]).status().unwrap().success());
    let mut child = Command::new(&program).arg("60").env("RANK", "3").spawn().unwrap();
    let (process, started) = (read_child(&child), Process::living_start_of(i32::try_from(child.id()).unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((process.name.as_str(), process.rank()), ("train-lauf-nr-\u{fffd}", Some(3)));
    assert_eq!(started, Some(process.start_ticks));
}

#[test]
fn the_latest_statement_about_a_process_wins() {
    let ranks = |rank| Some(Ranks { rank, local_rank: None, world_size: Some(8) });
    let mut process = Process { nccl: ranks(7), ..Process::default() };
    let said = |process: &Process| process.ranks().map(|(ranks, source)| (ranks.rank, source.name()));
    assert_eq!(said(&Process::default()), None);
    assert_eq!(said(&process), Some((7, "ncclCommInitRank")));
    process.at_exec = Statement::of_environment(b"RANK=1\0POD_NAME=a\0");
    assert_eq!(said(&process), Some((1, "environment at exec")));
    process.now = Statement::of_environment(b"RANK=2\0");
    assert_eq!((said(&process), process.pod()), (Some((2, "environment")), Some("a")), "what it does not say stays");
}

#[test]
fn a_communicator_of_more_ranks_than_the_environment_has_gives_the_rank() {
    let ranks = |rank, size| Some(Ranks { rank, local_rank: None, world_size: Some(size) });
    let at_exec = Statement::of_environment(b"SLURM_PROCID=1\0SLURM_NTASKS=2");
    let said = |process: &Process| process.ranks().map(|(ranks, source)| (ranks.rank, source.name()));
    let launched = Process { at_exec, ..Process::default() };
    let inherited = Process { nccl: ranks(11, 16), ..launched.clone() };
    assert_eq!(said(&inherited), Some((11, "ncclCommInitRank")), "of 2 launchers");
    let part = Process { nccl: ranks(0, 2), ..launched.clone() };
    assert_eq!(said(&part), Some((1, "environment at exec")), "a part of the job, or all of it");
    let set = Process { now: Statement::of_environment(b"RANK=12\0WORLD_SIZE=16"), ..inherited.clone() };
    assert_eq!(said(&set), Some((12, "environment")));
    let unsized_rank = Process { now: Statement::of_environment(b"RANK=3"), ..inherited };
    assert_eq!(said(&unsized_rank), Some((3, "environment")), "of how many it does not say");
}

#[test]
fn a_cgroup_of_no_container_is_known_by_its_path() {
    let mut process = Process::default();
    process.take_cgroup("12:memory:/a\n0::/user.slice/user-1000.slice");
    assert_eq!((process.container_id, process.cgroup_path.as_deref()), (None, Some("/user.slice/user-1000.slice")));
}

#[test]
fn a_name_with_parentheses_and_spaces_is_read_whole() {
    let fields = "S 1 2 3 4 5 2097216 7 8 9 10 11 12 13 14 15 16 17 18 777 4096 20";
    let stat = Stat::parse(format!("42 (a ) b (c) {fields}").as_bytes()).unwrap();
    assert_eq!((stat.name.as_str(), stat.start_ticks, stat.address_space_bytes), ("a ) b (c", 777, 4096));
    assert!(stat.is_kernel_thread() && !stat.has_ended);
    assert_eq!(Stat::parse(b"42 (x"), None);
}
