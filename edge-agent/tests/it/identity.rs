//! Whose an event was: ranks, jobs and pods of programs that say so in the ways real ones do, and processes that are not traced.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use edge_agent::Metrics;
use event_schema::catalog::Op;
use event_schema::kind::RecordKind;
use event_schema::wire::Decoded;
use tempfile::TempDir;

use crate::harness::{Job, LIBRARIES, alone_as_root};
use crate::live::{libraries, options, run, run_with, wait_for_libraries};
use crate::spool::read;

const STATED: [(&str, &str); 6] = [
    ("RANK", "3"),
    ("LOCAL_RANK", "1"),
    ("WORLD_SIZE", "8"),
    ("SLURM_JOB_ID", "77"),
    ("POD_NAME", "trainer-0"),
    ("POD_NAMESPACE", "ml"),
];

/// One row by the names of its fields; a null is left out.
type Fields = BTreeMap<String, String>;

fn rows(messages: &[Decoded], kind: RecordKind) -> Vec<Fields> {
    let of_kind = messages.iter().filter(|message| message.header.kind == kind);
    let of_batch = |batch: &arrow::array::RecordBatch| -> Vec<Fields> {
        let schema = batch.schema();
        let row = |row: usize| {
            let columns = schema.fields().iter().zip(batch.columns()).filter(|(_, column)| column.is_valid(row));
            columns.map(|(field, column)| (field.name().clone(), array_value_to_string(column, row).unwrap())).collect()
        };
        (0..batch.num_rows()).map(row).collect()
    };
    of_kind.flat_map(|message| of_batch(&message.batch)).collect()
}

fn of_pid(rows: &[Fields], pid: u32) -> Vec<&Fields> {
    rows.iter().filter(|row| row["pid"] == pid.to_string()).collect()
}

/// Synchronising calls.
fn calls(messages: &[Decoded]) -> Vec<Fields> {
    let (source, op) = Op::CudaDeviceSync.numbers();
    let is_call = |row: &Fields| row["source"] == source.to_string() && row["op"] == op.to_string();
    rows(messages, RecordKind::Event).into_iter().filter(is_call).collect()
}

fn start(job: &Job, mode: &str, environment: &[(&str, &str)]) -> Child {
    let mut command = Command::new(job.place().join("stub-identity"));
    command.args(mode.split(' ')).env_clear().envs(environment.iter().copied()).stdout(Stdio::null()).spawn().unwrap()
}

fn get<'a>(row: &'a Fields, names: [&str; 6]) -> [Option<&'a str>; 6] {
    names.map(|name| row.get(name).map(String::as_str))
}

const FACTS: [&str; 6] = ["rank", "local_rank", "world_size", "job_id", "pod", "namespace"];
const ALL: [Option<&str>; 6] = [Some("3"), Some("1"), Some("8"), Some("77"), Some("trainer-0"), Some("ml")];

#[test]
fn root_what_a_program_was_started_with_is_known_though_it_overwrites_it_forks_or_ends_at_once() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let mut pids = Vec::new();
    run(&options(&spool, libraries(&job)), || {
        // It says its title at once and calls later; calls and ends; and forks a child that says nothing itself.
        for mode in ["title 300 5 0", "plain 0 5 0", "plain 1500 5 0", "title 0 5 0"] {
            let mut child = start(&job, mode, &STATED);
            pids.push((mode, child.id()));
            assert!(child.wait().unwrap().success(), "{mode}");
        }
        assert!(start(&job, "inherit 0 5 0", &STATED).wait().unwrap().success());
    });
    let calls = calls(&read(spool.path()));
    for (mode, pid) in pids {
        let rows = of_pid(&calls, pid);
        assert_eq!(rows.len(), 5, "{mode}");
        assert!(rows.iter().all(|row| get(row, FACTS) == ALL), "{mode}: {rows:?}");
    }
    assert_eq!(calls.len(), 25);
    assert!(calls.iter().all(|row| get(row, FACTS) == ALL), "a child has what its parent was started with");
}

/// A cgroup as LXC makes them, with version 2 of cgroups or with version 1.
fn container(name: &str) -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"].into_iter().find_map(|hierarchy| {
        let hierarchy = Path::new(hierarchy);
        hierarchy.join("cgroup.procs").exists().then_some(())?;
        let cgroup = hierarchy.join(format!("lxc.payload.{name}"));
        // Of a run that was killed.
        let _ = fs::remove_dir(&cgroup);
        fs::create_dir(&cgroup).ok().map(|()| cgroup)
    })
}

#[test]
fn root_a_job_that_ends_right_after_its_first_calls_has_its_container() {
    let Some(_alone) = alone_as_root() else { return };
    let Some(cgroup) = container("web1") else {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no cgroup can be made\n");
        return;
    };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    run(&options(&spool, libraries(&job)), || {
        let program = job.place().join("stub-identity");
        // Some end before the agent's next regular look at its rings.
        for wait_ms in [300, 20, 300, 20, 20] {
            let program = format!("{} plain {wait_ms} 5 0", program.display());
            let script = format!("echo $$ > {}/cgroup.procs; exec {program}", cgroup.display());
            assert!(Command::new("sh").args(["-c", &script]).envs(STATED).status().unwrap().success());
        }
    });
    fs::remove_dir(&cgroup).unwrap();
    let calls = calls(&read(spool.path()));
    assert_eq!(calls.len(), 25);
    let of_container = calls.iter().filter(|row| row.get("container_id").map(String::as_str) == Some("web1")).count();
    assert_eq!(of_container, 25);
}

#[test]
fn root_a_rank_that_a_program_sets_itself_or_gives_to_nccl_is_learned() {
    let Some(_alone) = alone_as_root() else { return };
    check_learned(&[("SLURM_JOB_ID", "77")]);
}

#[test]
fn root_a_rank_inherited_from_the_launcher_of_a_node_does_not_stand_in_the_way() {
    let Some(_alone) = alone_as_root() else { return };
    check_learned(&[("SLURM_JOB_ID", "77"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "1")]);
}

fn check_learned(inherited: &[(&str, &str)]) {
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let mut nccl = 0;
    run(&options(&spool, libraries(&job)), || {
        // A child that is forked is read by a scan, of which there is one every 2 s.
        let mut children = [start(&job, "fork 6000 5 500", inherited), start(&job, "nccl 300 5 500", inherited)];
        nccl = children[1].id();
        children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    });
    let messages = read(spool.path());
    let processes = rows(&messages, RecordKind::Process);
    let names = ["rank", "local_rank", "world_size", "rank_source", "job_id", "untraced"];
    let last = of_pid(&processes, nccl).pop().unwrap();
    let expected = [Some("5"), None, Some("8"), Some("ncclCommInitRank"), Some("77"), None];
    assert_eq!(get(last, names), expected);
    let calls = calls(&messages);
    assert!(of_pid(&calls, nccl).iter().all(|row| row.get("rank").map(String::as_str) == Some("5")), "NCCL came first");
    let forked: u32 = calls.iter().map(|row| row["pid"].parse().unwrap()).find(|pid| *pid != nccl).unwrap();
    let last = of_pid(&processes, forked).pop().unwrap();
    let expected = [Some("6"), Some("2"), Some("16"), Some("environment"), Some("77"), None];
    assert_eq!(get(last, names), expected);
    // It was read long before it calls.
    let calls = of_pid(&calls, forked);
    assert!(calls.len() == 5 && calls.iter().all(|row| row.get("rank").map(String::as_str) == Some("6")), "{calls:?}");
}

#[test]
fn root_a_child_has_the_rank_that_its_parent_had_set_itself() {
    let Some(_alone) = alone_as_root() else { return };
    let (job, spool) = (Job::new(), TempDir::new().unwrap());
    let launcher = [("SLURM_JOB_ID", "77"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "1")];
    run(&options(&spool, libraries(&job)), || {
        // One child lives on after its calls, the other ends with them.
        for mode in ["worker 1500 5 500", "worker 1500 5 0"] {
            assert!(start(&job, mode, &launcher).wait().unwrap().success());
        }
    });
    let calls = calls(&read(spool.path()));
    assert_eq!(calls.len(), 10);
    assert!(calls.iter().all(|row| row.get("rank").map(String::as_str) == Some("6")), "{calls:?}");
}

/// A root directory that holds the job and what it needs, and nothing else.
fn root_directory(job: &Job) -> PathBuf {
    let root = job.place().join("rootfs");
    let program = job.place().join("stub-identity");
    let needed = Command::new("ldd").arg(&program).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let system = needed.split_whitespace().filter(|word| word.starts_with("/lib") || word.starts_with("/usr"));
    for file in system.map(Path::new) {
        let copy = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    fs::create_dir_all(root.join("opt/s")).unwrap();
    for name in LIBRARIES.map(|(name, _)| name).into_iter().chain(["stub-identity"]) {
        fs::copy(job.place().join(name), root.join("opt/s").join(name)).unwrap();
    }
    // Where no link is, the loader looks under both names.
    if !root.join("lib64").exists() {
        let _ = symlink("lib", root.join("lib64"));
    }
    root
}

#[test]
fn root_jobs_in_another_root_directory_are_traced() {
    let Some(_alone) = alone_as_root() else { return };
    for unshare in [false, true] {
        let (job, spool, metrics) = (Job::new(), TempDir::new().unwrap(), Metrics::default());
        let root = root_directory(&job);
        run_with(&options(&spool, Vec::new()), &metrics, || {
            let mut words: Vec<&str> = if unshare { vec!["unshare", "-m"] } else { Vec::new() };
            words.extend(["chroot", root.to_str().unwrap(), "/opt/s/stub-identity", "plain", "2500", "5", "0"]);
            let mut command = Command::new(words[0]);
            // There is no /proc in that root, which the loader needs to find libraries beside a program.
            command.args(&words[1..]).envs(STATED).env("LD_LIBRARY_PATH", "/opt/s");
            let mut child = command.spawn().unwrap();
            wait_for_libraries(&metrics, 3);
            assert!(child.wait().unwrap().success());
        });
        let calls = calls(&read(spool.path()));
        assert_eq!(calls.len(), 5, "unshare: {unshare}");
        assert!(calls.iter().all(|row| get(row, FACTS) == ALL));
        assert_eq!(metrics.libraries_failed.get(), 0);
    }
}

#[test]
fn root_a_process_whose_library_cannot_be_probed_is_named_with_the_reason() {
    let Some(_alone) = alone_as_root() else { return };
    let (dir, spool, metrics) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Metrics::default());
    let library = dir.path().join("libcudart.so.12");
    let source = dir.path().join("other.c");
    fs::write(&source, "int something_else(void) { return 0; }").unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(made.success());
    let mut pid = 0;
    run_with(&options(&spool, Vec::new()), &metrics, || {
        let mut child = Command::new("sleep").arg("60").env("LD_PRELOAD", &library).spawn().unwrap();
        pid = child.id();
        let deadline = Instant::now() + Duration::from_secs(60);
        while metrics.untraced_processes.get() != 1 {
            assert!(Instant::now() < deadline, "{} are untraced", metrics.untraced_processes.get());
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while metrics.untraced_processes.get() != 0 {
            assert!(Instant::now() < deadline, "it has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let processes = rows(&read(spool.path()), RecordKind::Process);
    let untraced: Vec<&Fields> =
        of_pid(&processes, pid).into_iter().filter(|row| row.contains_key("untraced")).collect();
    let reason = &untraced.first().expect("a record of the process")["untraced"];
    assert!(reason.contains("libcudart.so.12 has none of the functions probed"), "{reason}");
}

#[test]
fn root_the_thread_that_reads_the_rings_is_real_time() {
    const SCHED_RR: &str = "2";
    let Some(_alone) = alone_as_root() else { return };
    if bpf::priority::permitted() != bpf::priority::Priority::RealTime {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: SCHED_RR is not permitted here\n");
        return;
    }
    let spool = TempDir::new().unwrap();
    let mut policies = BTreeMap::new();
    run(&options(&spool, Vec::new()), || {
        let deadline = Instant::now() + Duration::from_secs(20);
        while policies.get("causeway-probe").map(String::as_str) != Some(SCHED_RR) && Instant::now() < deadline {
            policies = own_threads();
        }
    });
    assert_eq!(policies.get("causeway-probe").map(String::as_str), Some(SCHED_RR), "{policies:?}");
    assert_ne!(policies.get("causeway-spool").map(String::as_str), Some(SCHED_RR), "{policies:?}");
}

/// Names of the threads of this process, and the scheduling policy of each.
fn own_threads() -> BTreeMap<String, String> {
    let stats = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        // Field 41 of stat(5); `rest` begins at field 3.
        Some((head.split_once('(')?.1.to_owned(), rest.split_whitespace().nth(38)?.to_owned()))
    });
    stats.collect()
}
