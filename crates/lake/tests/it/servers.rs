//! PostgreSQL and S3 for the tests of this program, started once, gone with it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The servers that all tests share. Each test has its own database and its own prefix of the bucket.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) postgres: Server,
    pub(crate) s3: Server,
    /// Stops the servers when its standard input closes: however this program ends, statics are never dropped.
    _undertaker: Child,
}

const UNDERTAKER: &str = r#"cat; for name in postgres s3; do bash "$1/$name.sh" kill "$2/$name"; done; rm -rf "$2""#;

impl Servers {
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Servers> = OnceLock::new();
        SHARED.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap().keep();
            let undertaker = Command::new("setsid")
                .args(["bash", "-c", UNDERTAKER, "undertaker"])
                .args([infra(), dir.clone()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let undertaker = undertaker.unwrap();
            let (postgres, s3) = std::thread::scope(|scope| {
                let postgres = scope.spawn(|| Server::up("postgres", &dir));
                let s3 = Server::up("s3", &dir);
                (postgres.join().unwrap(), s3)
            });
            Self { postgres, s3, _undertaker: undertaker }
        })
    }
}

/// A server started by a script of `infra/dev`.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    dir: PathBuf,
    env: String,
}

impl Server {
    /// Starts `infra/dev/<name>.sh` in `<dir>/<name>`.
    pub(crate) fn up(name: &'static str, dir: &Path) -> Self {
        let dir = dir.join(name);
        script(name, &["up"], &dir, &["--port", "auto"]);
        let env = script(name, &["env"], &dir, &[]);
        Self { name, dir, env }
    }

    pub(crate) fn env(&self, key: &str) -> &str {
        let value = self.env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{key} in {}", self.env)).trim_matches(['\'', '"'])
    }

    pub(crate) fn kill(&self) {
        script(self.name, &["kill"], &self.dir, &[]);
    }
}

fn script(name: &str, before: &[&str], dir: &Path, after: &[&str]) -> String {
    let path = infra().join(format!("{name}.sh"));
    let output = Command::new("bash").arg(path).args(before).arg(dir).args(after).output().unwrap();
    assert!(output.status.success(), "{name}.sh {before:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn infra() -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("infra/dev"));
    above.find(|path| path.exists()).expect("infra/dev in this repository")
}

/// The Python that `infra/dev/setup.sh` made.
pub(crate) fn python() -> Command {
    let cache = std::env::var_os("CAUSEWAY_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/causeway"), PathBuf::from);
    Command::new(cache.join("venv/bin/python"))
}

/// One request to a server's control port; the answer's body.
pub(crate) fn order(address: &str, method: &str, target: &str) -> serde_json::Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.split(' ').nth(1) == Some("200"), "{method} {target}: {answer}");
    serde_json::from_str(body).unwrap()
}
