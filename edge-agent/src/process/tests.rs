//! Facts from real and from written-down `/proc` files.

use std::process::{Command, Stdio};

use super::*;

fn of_environment(variables: &[(&str, &str)]) -> Process {
    let mut process = Process::default();
    process.take_environment(&variables.iter().copied().collect());
    process
}

/// What a child tells once it is what it was started as: between fork and exec it has our name and environment, and in exec its
/// own name before its own environment.
fn read_child(child: &std::process::Child) -> Process {
    let pid = i32::try_from(child.id()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let process = Process::read(pid).unwrap();
        if process.rank == Some(3) || std::time::Instant::now() > deadline {
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
    assert_eq!((process.rank, process.local_rank, process.world_size), (Some(3), Some(1), Some(8)));
    assert_eq!((process.job_id.as_deref(), process.name.as_str()), (Some("llm-7"), "sleep"));
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
    let (process, started) = (read_child(&child), Process::start_of(i32::try_from(child.id()).unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((process.name.as_str(), process.rank), ("train-lauf-nr-\u{fffd}", Some(3)));
    assert_eq!(started, Some(process.start_ticks));
}

/// Rank, local rank and world size.
fn ranks(variables: &[(&str, &str)]) -> [Option<i32>; 3] {
    let process = of_environment(variables);
    [process.rank, process.local_rank, process.world_size]
}

#[test]
fn one_launcher_tells_all_that_is_known_of_a_rank() {
    let slurm = [("SLURM_PROCID", "1"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "2")];
    assert_eq!(ranks(&slurm), [Some(1), Some(0), Some(2)]);
    let torch = [("RANK", "11"), ("LOCAL_RANK", "3"), ("WORLD_SIZE", "16")];
    assert_eq!(ranks(&[slurm, torch].concat()), [Some(11), Some(3), Some(16)], "a worker of srun torchrun");
    assert_eq!(ranks(&[&slurm[..], &[("RANK", "11")]].concat()), [Some(11), None, None], "not of 2");
    assert_eq!(ranks(&[&slurm[..], &[("WORLD_SIZE", "16")]].concat()), [Some(1), Some(0), Some(2)]);
    let not_a_number = [&slurm[..], &[("RANK", "not a number"), ("LOCAL_RANK", "3")]].concat();
    assert_eq!(ranks(&not_a_number), [Some(1), Some(0), Some(2)]);
    let open_mpi = [("OMPI_COMM_WORLD_RANK", "5"), ("PMI_RANK", "6"), ("PMI_SIZE", "8")];
    assert_eq!(ranks(&open_mpi), [Some(5), None, None]);
    assert_eq!(ranks(&open_mpi[1..]), [Some(6), None, Some(8)]);
    assert_eq!(ranks(&[("RANK", "-1"), ("WORLD_SIZE", "8")]), [None; 3]);
}

#[test]
fn a_job_is_named_by_who_knows_it_best() {
    let slurm = [("TORCHELASTIC_RUN_ID", "run"), ("SLURM_JOB_ID", "123")];
    assert_eq!(of_environment(&slurm).job_id.as_deref(), Some("123"));
    assert_eq!(of_environment(&slurm[..1]).job_id.as_deref(), Some("run"));
    let named = [&slurm[..], &[("CAUSEWAY_JOB_ID", "llm-7")]].concat();
    assert_eq!(of_environment(&named).job_id.as_deref(), Some("llm-7"));
}

#[test]
fn a_long_job_name_is_cut_at_a_character() {
    let process = of_environment(&[("CAUSEWAY_JOB_ID", &"ä".repeat(100))]);
    assert_eq!(process.job_id.unwrap(), "ä".repeat(64));
}

#[test]
fn the_host_name_is_the_pod_only_in_kubernetes() {
    assert_eq!(of_environment(&[("HOSTNAME", "trainer-0")]).pod, None);
    let process = of_environment(&[("HOSTNAME", "trainer-0"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(process.pod.as_deref(), Some("trainer-0"));
}

#[test]
fn containers_are_recognised_in_the_cgroup_paths_of_every_runtime() {
    let id = "0123456789abcdef".repeat(4);
    for path in [
        format!("0::/system.slice/docker-{id}.scope"),
        format!("12:memory:/docker/{id}\n0::/"),
        format!("0::/kubepods.slice/kubepods-pod1234.slice/cri-containerd-{id}.scope"),
        format!("0::/kubepods/burstable/pod12-34/{id}"),
        format!("0::/machine.slice/libpod-{id}.scope/container"),
    ] {
        let mut process = Process::default();
        process.take_cgroup(&path);
        assert_eq!(process.container_id.as_deref(), Some(id.as_str()), "{path}");
    }
    let mut process = Process::default();
    process.take_cgroup("0::/user.slice/user-1000.slice");
    assert_eq!((process.container_id, process.cgroup_path.as_deref()), (None, Some("/user.slice/user-1000.slice")));
}

#[test]
fn a_name_with_parentheses_and_spaces_is_read_whole() {
    let stat = b"42 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
    assert_eq!(parse_stat(stat), Some(("a ) b (c".to_owned(), 777)));
    assert_eq!(parse_stat(b"42 (x"), None);
}
