//! Builds the stub job once, gives each test libraries of its own, and collects what the probes report.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bpf::{Attached, Counters, Library, LibraryKind, Notice, Options, Record, Tracer};
use tempfile::TempDir;

pub(crate) const POLL: Duration = Duration::from_millis(50);
pub(crate) const LIBRARIES: [(&str, LibraryKind); 3] = [
    ("libcudart.so.12", LibraryKind::Cudart),
    ("libcuda.so.1", LibraryKind::Cuda),
    ("libnccl.so.2", LibraryKind::Nccl),
];

/// One test at a time: waits of one job must not be the load of another. `None`, with a word, when not root.
pub(crate) fn alone_as_root() -> Option<MutexGuard<'static, ()>> {
    if !nix::unistd::geteuid().is_root() {
        // Past the test runner, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "skipped: loading probes needs root");
        return None;
    }
    Some(alone())
}

/// Keeps the other tests that ask for it waiting: this one needs the machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy of the stub job: probes attach to files, so a test with files of its own sees its own processes only.
pub(crate) struct Job {
    dir: TempDir,
    /// Empty, or "cet" for the libraries whose functions begin with endbr64.
    variant: &'static str,
}

impl Job {
    pub(crate) fn new() -> Self {
        Self::of_variant("")
    }

    pub(crate) fn of_variant(variant: &'static str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("cet")).unwrap();
        for (name, _) in LIBRARIES {
            fs::copy(built().join(name), dir.path().join(name)).unwrap();
            fs::copy(built().join("cet").join(name), dir.path().join("cet").join(name)).unwrap();
        }
        for program in ["stub-train", "stub-identity"] {
            fs::copy(built().join(program), dir.path().join(program)).unwrap();
        }
        Self { dir, variant }
    }

    /// Where its files are.
    pub(crate) fn place(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.place().join("stub-train")
    }

    pub(crate) fn library(&self, name: &str) -> PathBuf {
        self.dir.path().join(self.variant).join(name)
    }

    pub(crate) fn attach(&self, tracer: &mut Tracer) -> Vec<Attached> {
        let library = |(name, kind)| Library { path: self.library(name), kind };
        LIBRARIES.into_iter().map(|l| tracer.attach_library(&library(l)).unwrap()).collect()
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments.split_whitespace()).arg("--counts").arg(self.counts_file());
        if !self.variant.is_empty() {
            command.env("LD_LIBRARY_PATH", self.dir.path().join(self.variant));
        }
        command
    }

    pub(crate) fn start(&self, arguments: &str) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Starts a shell that becomes the job when a line is written to it: its process can be traced before it does anything.
    pub(crate) fn start_held(&self, arguments: &str) -> Child {
        let script =
            format!("read go; exec {} {arguments} --counts {}", self.program().display(), self.counts_file().display());
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn counts_file(&self) -> PathBuf {
        self.dir.path().join("counts.json")
    }

    /// What each rank says it did.
    pub(crate) fn ranks(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.counts_file()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Calls of each API function over all ranks.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for rank in self.ranks() {
            for (name, calls) in rank["calls"].as_object().unwrap() {
                *sum.entry(name.clone()).or_default() += calls.as_u64().unwrap();
            }
        }
        sum
    }
}

/// Starts one of the ignored tests that are processes for others to trace; `command` runs this program, however.
pub(crate) fn start_helper(mut command: Command, test: &str) -> Child {
    command.args(["--ignored", "--exact", test]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stub");
        let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("loadtest/stub"));
        let sources = above.find(|dir| dir.exists()).expect("loadtest/stub in this repository");
        let made = Command::new("make").arg("-sC").arg(sources).arg(format!("OUT={}", out.display())).status().unwrap();
        assert!(made.success(), "make -C loadtest/stub failed");
        out
    })
}

/// What came out of the rings.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) records: Vec<Record>,
    pub(crate) notices: Vec<Notice>,
}

impl Seen {
    pub(crate) fn poll(&mut self, tracer: &mut Tracer, timeout: Duration) {
        tracer.poll(timeout, &mut |record| self.records.push(record)).unwrap();
        self.notices.extend(tracer.take_notices());
    }

    /// Polls until `child` has ended.
    pub(crate) fn follow(&mut self, tracer: &mut Tracer, child: &mut Child) -> ExitStatus {
        loop {
            self.poll(tracer, POLL);
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
        }
    }

    /// Polls until `enough` says so; fails after half a minute.
    pub(crate) fn poll_until(&mut self, tracer: &mut Tracer, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !enough(self) {
            assert!(Instant::now() < deadline, "the expected records did not come");
            self.poll(tracer, POLL);
        }
    }

    /// Detaches, drains, and checks the law of this crate for every class.
    pub(crate) fn finish(&mut self, tracer: &mut Tracer) -> Counters {
        tracer.detach();
        self.poll(tracer, Duration::ZERO);
        let counters = tracer.counters().unwrap();
        for class in bpf::Class::ALL {
            let c = counters.of(class);
            assert_eq!(c.attempts, c.drained + c.ring_drop, "{} records: {c:?}", class.name());
        }
        assert_eq!(counters.undecodable, 0);
        assert_eq!(counters.events().drained, self.records.len() as u64);
        counters
    }

    pub(crate) fn of(&self, op: &str) -> Vec<&Record> {
        self.records.iter().filter(|r| event_schema::catalog::op_name(r.source, r.op) == Some(op)).collect()
    }
}

pub(crate) fn load(options: &Options) -> Tracer {
    Tracer::load(options).unwrap()
}
