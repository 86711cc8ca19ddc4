//! Libraries and processes, in written-down maps and in a real process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

const MAPS: &str = "\
7f00-7f10 r--p 00000000 fd:01 77                         /usr/lib/libcudart.so.12
7f10-7f20 r-xp 00001000 fd:01 77                         /usr/lib/libcudart.so.12
7f20-7f30 r-xp 00001000 fd:01 78                         /opt/with space/libnccl.so.2
00007f30-00007f40 r-xp 00001000 fd:01 79                         /usr/lib/libcuda.so.1 (deleted)
7f40-7f50 r-xp 00001000 fd:01 80                         /usr/lib/libm.so.6
7f50-7f60 r-xp 00001000 00:00 0                          [vdso]
7f60-7f70 rw-p 00000000 00:00 0
7f70-7f80 r-xp 00002000 fd:01 77                         /usr/lib/libcudart.so.12
";

#[test]
fn executable_mappings_of_probed_libraries_are_found_once_per_file() {
    let likeliest = |mapping: &Mapping| mapping.paths(Path::new("/"))[0].clone();
    let found =
        libraries(MAPS.as_bytes()).libraries.into_iter().map(|(_, kind, m)| (kind, likeliest(&m), m.is_deleted));
    let expected = [
        (LibraryKind::Cudart, "root/usr/lib/libcudart.so.12", false),
        (LibraryKind::Nccl, "root/opt/with space/libnccl.so.2", false),
        (LibraryKind::Cuda, "map_files/7f30-7f40", true),
    ];
    let expected = expected.map(|(kind, path, is_deleted)| (kind, PathBuf::from(path), is_deleted));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn a_process_that_maps_no_end_of_libraries_is_not_followed_through_all() {
    let line = |inode: usize| format!("7f00-7f10 r-xp 00000000 fd:01 {inode}   /tmp/libcuda.so.{inode}\n");
    let maps: String = (0..1000).map(line).collect();
    assert_eq!(libraries(maps.as_bytes()).libraries.len(), LIBRARIES_MAX);
    let maps = "7f00-7f10 rw-p 00000000 00:00 0\n".repeat(maps::MAPPINGS_MAX) + &line(1);
    assert_eq!(libraries(maps.as_bytes()), Mapped { libraries: vec![], has_mappings: true });
    assert!(!libraries(&b""[..]).has_mappings);
}

#[test]
fn a_file_whose_path_is_not_utf8_is_found() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join(OsStr::from_bytes(b"mod\xe8les"));
    fs::create_dir(&place).unwrap();
    let mut child = sleeper(&place, "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let found = found(pid);
    let there = found.libraries.iter().all(|library| fs::metadata(&library.paths[0]).is_ok_and(|meta| meta.is_file()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.libraries.len() == 1 && there, "{found:?}");
}

#[test]
fn a_process_that_ended_is_gone_also_when_nobody_has_asked_for_its_status() {
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let process = found(pid).processes[0];
    let deadline = Instant::now() + Duration::from_secs(10);
    assert!(process.is_still_there());
    child.kill().unwrap();
    while fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().split(' ').nth(2) != Some("Z") {
        assert!(Instant::now() < deadline);
    }
    assert!(!process.is_still_there());
    child.wait().unwrap();
}

fn look(discovery: &mut Discovery, pids: &[i32]) -> Findings {
    look_at(discovery, pids, Instant::now())
}

fn look_at(discovery: &mut Discovery, pids: &[i32], now: Instant) -> Findings {
    let mut findings = Findings::default();
    discovery.look(pids.iter().copied(), Occasion::Notice, now, &mut findings);
    findings
}

fn scan(discovery: &mut Discovery) -> (Findings, Scanned) {
    let mut findings = Findings::default();
    let pids = discovery.begin_scan();
    discovery.look(pids, Occasion::Scan, Instant::now(), &mut findings);
    (findings, discovery.end_scan(Instant::now()))
}

/// A scan of chosen processes: other tests have theirs.
fn scan_of(discovery: &mut Discovery, pids: &[i32]) -> Scanned {
    discovery.begin_scan();
    let pids = pids.iter().copied();
    discovery.look(pids, Occasion::Scan, Instant::now(), &mut Findings::default());
    discovery.end_scan(Instant::now())
}

fn pids(findings: &Findings) -> Vec<i32> {
    findings.processes.iter().map(|process| process.pid).collect()
}

/// What is found of a process once its loader has run.
fn found(pid: i32) -> Findings {
    found_by(&mut Discovery::new(0, Duration::ZERO), pid)
}

fn found_by(discovery: &mut Discovery, pid: i32) -> Findings {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let findings = look(discovery, &[pid]);
        if pids(&findings) == [pid] || Instant::now() > deadline {
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
    let mut discovery = Discovery::new(i32::try_from(std::process::id()).unwrap(), Duration::ZERO);
    let pid = i32::try_from(children[0].id()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let findings = loop {
        let (findings, _) = scan(&mut discovery);
        if pids(&findings).contains(&pid) {
            break findings;
        }
        assert!(Instant::now() < deadline, "{findings:?}");
    };
    // Other tests have processes of their own.
    let place = format!("/proc/{pid}/root");
    let library = findings.libraries.iter().find(|l| l.paths[0].starts_with(&place)).unwrap();
    assert_eq!(library.kind, LibraryKind::Cudart);
    assert!(fs::metadata(&library.paths[0]).unwrap().is_file(), "the path reaches the file from here");
    let process = findings.processes.iter().find(|process| process.pid == pid).unwrap();
    assert!(process.is_still_there());
    let again = look(&mut discovery, &[pid]);
    assert_eq!((again.libraries, again.processes, again.users), (vec![], vec![], vec![*process]), "nothing new");

    children.push(sleeper_of(&dir));
    let second = i32::try_from(children[1].id()).unwrap();
    let findings = found_by(&mut discovery, second);
    assert_eq!((findings.libraries.len(), pids(&findings)), (0, vec![second]), "the same file");
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!process.is_still_there(), "it was found, and it is gone");
}

#[test]
fn a_library_that_could_not_be_probed_is_found_again_ever_more_rarely_or_never() {
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = Discovery::new(0, Duration::ZERO);
    let library = found_by(&mut discovery, pid).libraries[0].clone();
    let began = Instant::now();
    let is_found_after = |discovery: &mut Discovery, seconds| {
        !look_at(discovery, &[pid], began + Duration::from_secs(seconds)).libraries.is_empty()
    };
    assert!(!discovery.failed(&library.key, Fault::Passing, "no room", began), "the process may have ended");
    assert!(is_found_after(&mut discovery, 0), "another process may lead to it");
    assert!(!is_found_after(&mut discovery, 0), "it is being tried");
    assert!(discovery.failed(&library.key, Fault::Passing, "no room", began), "logged once");
    assert!(!is_found_after(&mut discovery, 1) && is_found_after(&mut discovery, 2));
    let untraced: Vec<_> = discovery.untraced().map(|(process, reason)| (process.pid, reason.to_owned())).collect();
    assert_eq!(untraced, [(pid, "no room".to_owned())]);
    assert!((0..20).all(|_| !discovery.failed(&library.key, Fault::Passing, "no room", began)));
    assert!(!is_found_after(&mut discovery, 63) && is_found_after(&mut discovery, 64));
    discovery.failed(&library.key, Fault::File, "no room", began);
    assert!(!is_found_after(&mut discovery, 1_000_000), "it is no library");
    discovery.probed(&library.key);
    assert_eq!(discovery.untraced().count(), 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_library_is_gone_when_two_scans_in_a_row_have_not_seen_it_and_is_new_after_that() {
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = Discovery::new(0, Duration::ZERO);
    let library = found_by(&mut discovery, pid).libraries[0].clone();
    assert_eq!(scan_of(&mut discovery, &[]).gone, []);
    assert_eq!(scan_of(&mut discovery, &[pid]).gone, []);
    assert_eq!(scan_of(&mut discovery, &[]).gone, []);
    look(&mut discovery, &[pid]);
    assert_eq!(scan_of(&mut discovery, &[]).gone, [], "seen since");
    discovery.begin_scan();
    discovery.is_whole = false;
    assert_eq!(discovery.end_scan(Instant::now()).gone, [], "it did not look everywhere");
    assert_eq!(scan_of(&mut discovery, &[]).gone, []);
    discovery.keep = Duration::from_secs(60);
    assert_eq!(scan_of(&mut discovery, &[]).gone, [], "the next job may come soon");
    discovery.keep = Duration::ZERO;
    assert_eq!(scan_of(&mut discovery, &[]).gone, std::slice::from_ref(&library.key));
    assert_eq!(look(&mut discovery, &[pid]).libraries, [library]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_no_longer_maps_its_library_keeps_nobody_from_being_forgotten() {
    let dir = TempDir::new().unwrap();
    drop(sleeper(dir.path(), "libcudart.so.12").kill());
    let library = dir.path().join("libcudart.so.12");
    let mut command = Command::new("sh");
    command.args(["-c", "read go; unset LD_PRELOAD; exec sleep 60"]).env("LD_PRELOAD", &library);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = Discovery::new(0, Duration::ZERO);
    let library = found_by(&mut discovery, pid).libraries[0].clone();
    drop(child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("libcudart") {
        assert!(Instant::now() < deadline);
    }
    let scans: Vec<Scanned> = (0..3).map(|_| scan_of(&mut discovery, &[pid])).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(scans.iter().all(|scanned| scanned.alive.as_ref().is_some_and(|alive| alive.contains_key(&pid))));
    assert!(scans.iter().any(|scanned| scanned.gone.contains(&library.key)));
    assert_eq!(discovery.processes.len(), 0);
}

#[test]
fn a_process_is_not_traced_only_when_none_of_its_libraries_is() {
    let dir = TempDir::new().unwrap();
    let mut other = sleeper(dir.path(), "libcuda.so.1");
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    for child in [&mut other, &mut child] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let preload = ["libcuda.so.1", "libcudart.so.12"].map(|name| dir.path().join(name).display().to_string());
    let mut child = Command::new("sleep").arg("60").env("LD_PRELOAD", preload.join(" ")).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut discovery = Discovery::new(0, Duration::ZERO);
    let mut libraries = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while libraries.len() < 2 {
        libraries.extend(look(&mut discovery, &[pid]).libraries);
        assert!(Instant::now() < deadline);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let [good, bad] = [&libraries[0], &libraries[1]];
    assert!(discovery.failed(&bad.key, Fault::File, "it has none of the functions", Instant::now()));
    assert_eq!(discovery.untraced().count(), 0, "it has another");
    assert!(discovery.failed(&good.key, Fault::File, "no room", Instant::now()));
    assert_eq!(discovery.untraced().map(|(process, _)| process.pid).collect::<Vec<_>>(), [pid]);
    discovery.probed(&good.key);
    assert_eq!(discovery.untraced().count(), 0);
}

#[test]
fn a_scan_passes_over_who_has_changed_nothing_and_finds_who_has() {
    let dir = TempDir::new().unwrap();
    let mut user = sleeper(dir.path(), "libcudart.so.12");
    let script = "import ctypes, sys; sys.stdin.read(); ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read(1); \
                  import time; time.sleep(60)";
    let library = dir.path().join("libcudart.so.12");
    let mut late = Command::new("python3");
    let mut late =
        late.args(["-c", script]).arg(&library).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let pids = [&user, &late].map(|child| i32::try_from(child.id()).unwrap());
    let mut discovery = Discovery::new(0, Duration::from_secs(60));
    let found = found_by(&mut discovery, pids[0]);
    let look = |discovery: &mut Discovery, now| {
        let mut findings = Findings::default();
        discovery.look(pids, Occasion::Scan, now, &mut findings);
        findings
    };
    let now = Instant::now();
    look(&mut discovery, now);
    let again = look(&mut discovery, now);
    assert_eq!((again.users, again.libraries), (found.processes, vec![]), "it goes on using it");
    discovery.failed(&found.libraries[0].key, Fault::NoRoom, "no room", now);
    assert_eq!(look(&mut discovery, now).libraries, found.libraries, "it is to be tried again");
    drop(late.stdin.take());
    io::Read::read_exact(&mut late.stdout.take().unwrap(), &mut [0]).unwrap();
    let loaded = look(&mut discovery, now);
    for child in [&mut user, &mut late] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(loaded.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), pids[1..]);
}

#[test]
fn root_a_library_that_was_deleted_is_reached_through_its_mapping() {
    if !nix::unistd::geteuid().is_root() {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped: following a mapping needs root\n");
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut child = sleeper(dir.path(), "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    assert_eq!(found(pid).libraries.len(), 1);
    let content = fs::read(dir.path().join("libcudart.so.12")).unwrap();
    fs::remove_file(dir.path().join("libcudart.so.12")).unwrap();
    let found = found(pid).libraries;
    let reached = fs::read(&found[0].paths[0]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found[0].is_deleted && reached.unwrap() == content, "{found:?}");
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
    assert_eq!(pids(&found(pid)), [pid]);
    assert_eq!(look(&mut Discovery::new(pid, Duration::ZERO), &[pid]), Findings::default());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_library_below_a_directory_with_a_line_break_in_its_name_is_reached() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("nl\nx");
    fs::create_dir(&place).unwrap();
    let mut child = sleeper(&place, "libcudart.so.12");
    let pid = i32::try_from(child.id()).unwrap();
    let found = found(pid);
    let opened = fs::metadata(&found.libraries[0].paths[0]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(opened.is_ok_and(|meta| meta.is_file()), "{found:?}");
}
