//! Libraries and processes, in written-down maps and in a real process.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

const MAPS: &str = "\
7f00-7f10 r--p 00000000 fd:01 77                         /usr/lib/libcudart.so.12
7f10-7f20 r-xp 00001000 fd:01 77                         /usr/lib/libcudart.so.12
7f20-7f30 r-xp 00001000 fd:01 78                         /opt/with space/libnccl.so.2
7f30-7f40 r-xp 00001000 fd:01 79                         /usr/lib/libcuda.so.1 (deleted)
7f40-7f50 r-xp 00001000 fd:01 80                         /usr/lib/libm.so.6
7f50-7f60 r-xp 00001000 00:00 0                          [vdso]
7f60-7f70 rw-p 00000000 00:00 0
7f70-7f80 r-xp 00002000 fd:01 77                         /usr/lib/libcudart.so.12
";

#[test]
fn executable_mappings_of_probed_libraries_are_found_once_per_file() {
    let found: Vec<_> = libraries(MAPS.as_bytes()).into_iter().map(|(_, kind, path)| (kind, path)).collect();
    let expected =
        [(LibraryKind::Cudart, "usr/lib/libcudart.so.12"), (LibraryKind::Nccl, "opt/with space/libnccl.so.2")];
    assert_eq!(found, expected.map(|(kind, path)| (kind, PathBuf::from(path))));
}

#[test]
fn a_process_that_maps_no_end_of_libraries_is_not_followed_through_all() {
    let line = |inode: usize| format!("7f00-7f10 r-xp 00000000 fd:01 {inode}   /tmp/libcuda.so.{inode}\n");
    let maps: String = (0..1000).map(line).collect();
    assert_eq!(libraries(maps.as_bytes()).len(), LIBRARIES_MAX);
    let maps = "7f00-7f10 rw-p 00000000 00:00 0\n".repeat(MAPPINGS_MAX) + &line(1);
    assert!(libraries(maps.as_bytes()).is_empty());
}

#[test]
fn a_file_whose_path_is_not_utf8_is_found() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join(OsStr::from_bytes(b"mod\xe8les"));
    fs::create_dir(&place).unwrap();
    let mut child = sleeper(&place, "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let found = found(pid);
    let there = found.libraries.iter().all(|library| fs::metadata(&library.path).is_ok_and(|meta| meta.is_file()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.libraries.len() == 1 && there, "{found:?}");
}

#[test]
fn a_process_that_ended_is_gone_also_when_nobody_has_asked_for_its_status() {
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = Discovery::new(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while discovery.look(&[pid]).pids.is_empty() {
        assert!(Instant::now() < deadline);
    }
    assert!(discovery.is_still_there(pid));
    child.kill().unwrap();
    while fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().split(' ').nth(2) != Some("Z") {
        assert!(Instant::now() < deadline);
    }
    assert!(!discovery.is_still_there(pid));
    child.wait().unwrap();
}

/// What is found of a process once its loader has run.
fn found(pid: i32) -> Findings {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let findings = Discovery::new(0).look(&[pid]);
        if findings.pids == [pid] || Instant::now() > deadline {
            return findings;
        }
    }
}

/// A process that has a library of that name mapped.
fn sleeper(dir: &Path, name: &str) -> Child {
    let library = dir.join(name);
    let source =
        Command::new("sh").args(["-c", "ldconfig -p | sed -n 's/.*libm.so.6.*x86-64.*=> //p' | head -1"]).output();
    let source = String::from_utf8(source.unwrap().stdout).unwrap();
    fs::copy(source.trim(), &library).unwrap();
    Command::new("sleep").arg("60").env("LD_PRELOAD", &library).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_process_and_its_library_are_found_once_and_a_second_process_shares_the_library() {
    let dir = TempDir::new().unwrap();
    let mut children = vec![sleeper(dir.path(), "libcudart.so.12")];
    let mut discovery = Discovery::new(i32::try_from(std::process::id()).unwrap());
    let pid = i32::try_from(children[0].id()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let findings = loop {
        let findings = discovery.scan();
        if findings.pids.contains(&pid) {
            break findings;
        }
        assert!(Instant::now() < deadline, "{findings:?}");
    };
    // Other tests have processes of their own.
    let place = format!("/proc/{pid}/root");
    let library = findings.libraries.iter().find(|l| l.path.starts_with(&place)).unwrap();
    assert_eq!(library.kind, LibraryKind::Cudart);
    assert!(fs::metadata(&library.path).unwrap().is_file(), "the path reaches the file from here");
    assert!(discovery.is_still_there(pid));
    assert_eq!(discovery.look(&[pid]), Findings::default(), "nothing new");
    discovery.forget(library);
    assert_eq!(discovery.look(&[pid]).libraries.len(), 1);

    children.push(sleeper_of(&dir));
    let second = i32::try_from(children[1].id()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let findings = discovery.look(&[second]);
        assert!(findings.libraries.is_empty(), "the same file");
        if findings.pids == [second] {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!discovery.is_still_there(pid), "it was found, and it is gone");
}

fn sleeper_of(dir: &TempDir) -> Child {
    let library = dir.path().join("libcudart.so.12");
    Command::new("sleep").arg("60").env("LD_PRELOAD", library).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn the_agent_never_finds_itself() {
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcuda.so.1");
    let pid = i32::try_from(child.id()).unwrap();
    let mut others = Discovery::new(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while others.look(&[pid]).pids.is_empty() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(Discovery::new(pid).look(&[pid]), Findings::default());
    child.kill().unwrap();
    child.wait().unwrap();
}
