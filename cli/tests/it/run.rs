//! Runs the binary and reads what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long anything may take on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ingero").join(name)
}

/// The binary in a clean environment, with ports that are free.
pub(crate) fn causeway(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
        command.env_remove(name);
    }
    command.args(args).env("CAUSEWAY_ADMIN_PORT", "0").stdin(Stdio::null());
    command
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

pub(crate) fn run(args: &[&str]) -> Said {
    Said::of(causeway(args).output().unwrap())
}

/// A lake directory of a test.
pub(crate) struct Lake {
    dir: tempfile::TempDir,
}

impl Lake {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    pub(crate) fn import(&self, files: &[&str], more: &[&str]) -> Said {
        let files: Vec<PathBuf> = files.iter().map(|file| fixture(file)).collect();
        let mut command = causeway(&["import", "--data"]);
        command.arg(self.path()).args(more).args(files);
        Said::of(command.output().unwrap())
    }

    pub(crate) fn audit(&self) -> Said {
        let mut command = causeway(&["audit", "--json", "--data"]);
        command.arg(self.path());
        Said::of(command.output().unwrap())
    }

    /// With an agent that traces this host through a ring of this size.
    pub(crate) fn up_traced(&self, data_ring: &str) -> Up {
        let mut command = causeway(&["up", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(self.path()).env("CAUSEWAY_AGENT_DATA_RING", data_ring);
        Up::start(command)
    }

    pub(crate) fn up(&self, more: &[&str]) -> Up {
        let mut command = causeway(&["up", "--no-agent", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(self.path()).args(more);
        Up::start(command)
    }
}

/// A running `causeway up`; killed when dropped.
pub(crate) struct Up {
    child: Child,
    pub(crate) url: String,
    err: mpsc::Receiver<String>,
}

impl Up {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send_ready, ready) = mpsc::channel();
        let (send_err, err) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        let mut talk = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = send_ready.send(line);
            }
        });
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = talk.read_to_string(&mut text);
            let _ = send_err.send(text);
        });
        let Ok(line) = ready.recv_timeout(TIME_LIMIT) else {
            let _ = child.kill();
            panic!("never ready: {}", err.recv_timeout(TIME_LIMIT).unwrap_or_default());
        };
        let url = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, url, err }
    }

    /// A command that asks it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = causeway(&["--server", &self.url]);
        command.args(args);
        command
    }

    pub(crate) fn ask(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// What Prometheus reads of it.
    pub(crate) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn csv(&self, sql: &str) -> String {
        self.ask(&["query", sql, "--format", "csv"]).ok().out.replace("\r\n", "\n")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends it the orderly way.
    pub(crate) fn stop(mut self) -> Said {
        self.signal("-TERM");
        let status = self.child.wait().unwrap();
        let err = self.err.recv_timeout(TIME_LIMIT).unwrap_or_default();
        Said { code: status.code().unwrap_or(-1), out: String::new(), err }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
