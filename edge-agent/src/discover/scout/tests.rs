//! A library is to be probed while somebody maps it, and no longer.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use bpf::{Library, LibraryFile};
use tempfile::TempDir;

use super::*;

const PATIENT: Duration = Duration::from_secs(60);

/// A library that has one of the probed functions.
fn library(dir: &Path) -> Library {
    let (path, source) = (dir.join("libcudart.so.12"), dir.join("cudart.c"));
    std::fs::write(&source, "int cudaMalloc(void **out, unsigned long bytes) { return !out || !bytes; }").unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&path, &source]).status().unwrap();
    assert!(made.success());
    Library { path, kind: bpf::LibraryKind::Cudart }
}

struct Bench {
    dir: TempDir,
    library: Library,
    contact: Contact,
    scouting: JoinHandle<()>,
}

impl Bench {
    fn new(is_named: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let library = library(dir.path());
        let id = LibraryFile::open(&library).unwrap().id();
        let named = if is_named { vec![id] } else { Vec::new() };
        let (scout, contact) = Scout::new(0, named, Duration::ZERO, Waker::new().unwrap(), Metrics::default());
        Self { dir, library, contact, scouting: std::thread::spawn(|| scout.run()) }
    }

    fn id(&self) -> FileId {
        LibraryFile::open(&self.library).unwrap().id()
    }

    fn user(&self) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").env("LD_PRELOAD", &self.library.path).current_dir(self.dir.path()).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    /// Takes what is found until there is something of this library; other tests have theirs.
    fn until<T>(&self, what: impl Fn(Found) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENT;
        loop {
            assert!(Instant::now() < deadline);
            match self.contact.take().map(&what) {
                Some(Some(found)) => return found,
                Some(None) => {}
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn planned(&self) -> Plan {
        let id = self.id();
        self.until(|found| found.plans.into_iter().find(|plan| plan.id() == id))
    }

    /// Until the end of a scan; true when it says that no process maps the library.
    fn is_unused(&self) -> bool {
        let id = self.id();
        self.until(|found| found.alive.is_some().then(|| found.unused.contains(&id)))
    }

    fn end(self) {
        drop(self.contact);
        self.scouting.join().unwrap();
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_library_that_nobody_maps_any_more_loses_its_probes_and_the_next_process_is_traced_again() {
    let bench = Bench::new(false);
    for _ in 0..2 {
        let user = bench.user();
        let pid = i32::try_from(user.id()).unwrap();
        bench.contact.notice(pid);
        let plan = bench.planned();
        assert_eq!(plan.library().kind, bench.library.kind);
        assert!(!bench.is_unused());
        kill(user);
        let mut scans = 1;
        while !bench.is_unused() {
            scans += 1;
        }
        assert!((2..=4).contains(&scans), "{scans} scans");
    }
    bench.end();
}

#[test]
fn a_named_library_is_not_probed_again_and_keeps_its_probes() {
    let bench = Bench::new(true);
    let user = bench.user();
    let (pid, id) = (i32::try_from(user.id()).unwrap(), bench.id());
    bench.contact.notice(pid);
    let mut is_planned = false;
    let mut seen = |found: Found| {
        is_planned |= found.plans.iter().any(|plan| plan.id() == id);
        found.processes.iter().any(|process| process.pid == pid)
    };
    let deadline = Instant::now() + PATIENT;
    while !bench.contact.take().is_some_and(&mut seen) {
        assert!(Instant::now() < deadline);
    }
    kill(user);
    assert!(!is_planned);
    assert!((0..4).all(|_| !bench.is_unused()));
    bench.end();
}

#[test]
fn a_library_that_the_kernel_refused_is_planned_again() {
    let bench = Bench::new(false);
    let user = bench.user();
    let pid = i32::try_from(user.id()).unwrap();
    bench.contact.notice(pid);
    for _ in 0..3 {
        let plan = bench.planned();
        bench.contact.answer(plan.id(), Err("refused".to_owned()));
        bench.contact.notice(pid);
    }
    kill(user);
    bench.end();
}

#[test]
fn a_library_is_not_probed_before_the_kernel_has_agreed() {
    let dir = TempDir::new().unwrap();
    let library = library(dir.path());
    let (mut scout, contact) = Scout::new(0, Vec::new(), Duration::ZERO, Waker::new().unwrap(), Metrics::default());
    let mut user = Command::new("sleep").arg("60").env("LD_PRELOAD", &library.path).spawn().unwrap();
    let pid = i32::try_from(user.id()).unwrap();
    let deadline = Instant::now() + PATIENT;
    let mut findings = Findings::default();
    while findings.libraries.is_empty() {
        assert!(Instant::now() < deadline);
        scout.discovery.look([pid], Occasion::Notice, Instant::now(), &mut findings);
    }
    for attempt in 0..4 {
        let plan = scout.plan(&findings.libraries[0], Instant::now()).unwrap();
        assert_eq!(
            scout.discovery.untraced().count(),
            usize::from(attempt > 1),
            "nothing is known of attempt {attempt}"
        );
        contact.answer(plan.id(), Err("refused".to_owned()));
        scout.heed_answers(Instant::now());
    }
    assert_eq!(scout.metrics.libraries_failed.get(), 1, "counted once");
    let plan = scout.plan(&findings.libraries[0], Instant::now()).unwrap();
    contact.answer(plan.id(), Ok(()));
    scout.heed_answers(Instant::now());
    assert_eq!(scout.discovery.untraced().count(), 0);
    user.kill().unwrap();
    user.wait().unwrap();
}

#[test]
fn more_libraries_than_there_may_be_are_left_alone_and_counted() {
    let dir = TempDir::new().unwrap();
    let library = library(dir.path());
    let (mut scout, _contact) = Scout::new(0, Vec::new(), Duration::ZERO, Waker::new().unwrap(), Metrics::default());
    let mut plan = |n: usize| {
        let path = dir.path().join(format!("libcudart.so.{n}"));
        std::fs::copy(&library.path, &path).unwrap();
        let key = FileKey(n.to_string());
        scout.discovery.is_to_be_found(&key, Instant::now());
        let found = FoundLibrary { key, kind: library.kind, paths: vec![path], is_deleted: false };
        (scout.plan(&found, Instant::now()).is_some(), scout.metrics.libraries_failed.get())
    };
    assert!((100..100 + FILES_MAX).all(|n| plan(n) == (true, 0)));
    assert_eq!([plan(1000), plan(1001)], [(false, 1), (false, 2)]);
}
