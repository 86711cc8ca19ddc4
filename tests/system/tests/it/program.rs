//! A program of this workspace as a process: its log, its metrics, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{TEST_TIMEOUT, wait_until};

/// Log lines printed when a test fails.
const LAST_LINES: usize = 40;

/// The command of a program, in an environment without our variables.
pub(crate) fn command(name: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let program: PathBuf = here.ancestors().nth(2).unwrap().join(name);
    assert!(program.exists(), "{} is not there: build it first (`make build`)", program.display());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
        command.env_remove(name);
    }
    command.env("CAUSEWAY_ADMIN_PORT", "0").stdin(Stdio::null());
    command
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

/// Runs a program to its end, which must come in time.
pub(crate) fn run(command: Command) -> Said {
    Program::start(command).end(TEST_TIMEOUT)
}

/// A running program. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    name: String,
    out: Arc<Mutex<String>>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, log) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to_out, to_log) = (Arc::clone(&out), Arc::clone(&log));
        let readers = vec![
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stdout.read_to_string(&mut text);
                *to_out.lock().unwrap() = text;
            }),
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    to_log.lock().unwrap().push(line);
                }
            }),
        ];
        Self { child, name, out, log, readers }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL. False when it had ended before.
    pub(crate) fn kill(&mut self) -> bool {
        let lived = self.ended().is_none();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        lived
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// SIGTERM, and its orderly end.
    pub(crate) fn terminate(self) -> Said {
        self.signal(Signal::SIGTERM);
        self.end(TEST_TIMEOUT)
    }

    /// Its end, which must come within `limit`.
    #[track_caller]
    pub(crate) fn end(mut self, limit: Duration) -> Said {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} has not ended within {limit:?}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let err = self.log.lock().unwrap().join("\n");
        Said { code: status.code(), out: std::mem::take(&mut self.out.lock().unwrap()), err }
    }

    /// The part of the first log line with `text` that follows it.
    pub(crate) fn logged(&self, text: &str) -> Option<String> {
        let log = self.log.lock().unwrap();
        log.iter().find_map(|line| line.split_once(text).map(|(_, after)| after.to_owned()))
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        let what = format!("{} logs `{text}`", self.name);
        wait_until(&what, || {
            let is_there = self.logged(text).is_some();
            assert!(is_there || self.ended().is_none(), "{} ended: {}", self.name, self.last_lines());
            is_there
        });
    }

    /// Sum of the samples whose line begins with `metric` and holds each of `labels`; `None` when there are none, or nothing
    /// answers.
    pub(crate) fn metric(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let is_meant = name.split('{').next() == Some(metric) && labels.iter().all(|label| name.contains(label));
            is_meant.then(|| value.parse::<f64>().ok()).flatten()
        };
        let samples: Vec<f64> = self.metrics()?.lines().filter_map(sample).collect();
        (!samples.is_empty()).then(|| samples.iter().sum())
    }

    /// What the admin port answers, if it does.
    pub(crate) fn metrics(&self) -> Option<String> {
        let address = self.logged("\"address\":\"")?;
        let mut stream = TcpStream::connect(address.split('"').next()?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// Resident memory, KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn last_lines(&self) -> String {
        let log = self.log.lock().unwrap();
        log[log.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- last words of {}:\n{}", self.name, self.last_lines());
        }
    }
}
