//! A real server, run by its script in `infra/dev`, gone with its guard.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) struct Server {
    script: &'static str,
    dir: TempDir,
}

impl Server {
    pub(crate) fn kafka() -> Self {
        Self::start("kafka.sh")
    }

    pub(crate) fn postgres() -> Self {
        Self::start("postgres.sh")
    }

    pub(crate) fn s3() -> Self {
        Self::start("s3.sh")
    }

    fn start(script: &'static str) -> Self {
        let server = Self { script, dir: TempDir::new().unwrap() };
        server.call("up", &["--port", "auto"]);
        server
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.call("kill", &[]);
    }

    /// Sends a signal to the process of the only broker.
    pub(crate) fn signal(&self, signal: Signal) {
        let status = self.call("status", &[]);
        let pid = status.split_whitespace().skip_while(|word| *word != "pid").nth(1).unwrap();
        kill(Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
    }

    /// How often the controller has found the only broker silent for longer than its session.
    pub(crate) fn fenced(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join("broker-1/server.log")).unwrap();
        log.lines().filter(|line| line.contains("Fencing broker")).count()
    }

    /// Starts again after [`Self::kill`], with what was on disk.
    pub(crate) fn restart(&self) {
        self.call("up", &[]);
    }

    /// Orders S3 to fail, or with `clear` to stop failing.
    pub(crate) fn fault(&self, order: &str) {
        self.call("fault", &[order]);
    }

    /// How many requests S3 has answered with an ordered error so far.
    pub(crate) fn faulted(&self) -> u64 {
        let url = format!("{}/__fault", self.env("AWS_ENDPOINT_URL"));
        let output = Command::new("curl").args(["-fsS", "-m", "10", &url]).output().unwrap();
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        state["faulted"].as_u64().unwrap()
    }

    /// A variable that the script prints.
    pub(crate) fn env(&self, name: &str) -> String {
        let env = self.call("env", &[]);
        let value = env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is not in {env}")).trim_matches(['\'', '"']).to_owned()
    }

    fn call(&self, verb: &str, more: &[&str]) -> String {
        let script = infra().join(self.script);
        let output = Command::new("bash").arg(script).arg(verb).arg(self.dir.path()).args(more).output().unwrap();
        assert!(output.status.success(), "{} {verb}: {}", self.script, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.kill();
        }
        // A failure during the unwinding of another would hide the first.
        let _ = Command::new("bash").arg(infra().join(self.script)).arg("kill").arg(self.dir.path()).status();
    }
}

/// `infra/dev` of this repository.
pub(crate) fn infra() -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("infra/dev"));
    above.find(|dir| dir.exists()).expect("infra/dev in this repository")
}
