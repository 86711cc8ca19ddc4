//! An S3 of one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use objects::S3Options;

/// The server of `infra/dev/s3.sh`, which ends with this value.
pub(crate) struct S3 {
    dir: tempfile::TempDir,
    env: String,
}

impl S3 {
    pub(crate) fn up() -> Self {
        let dir = tempfile::tempdir().unwrap();
        script("up", dir.path(), &["--port", "auto"]);
        let env = script("env", dir.path(), &[]);
        Self { dir, env }
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.env("AWS_ENDPOINT_URL")
    }

    pub(crate) fn bucket(&self) -> &str {
        self.env("S3_BUCKET")
    }

    /// How a lake reaches it.
    pub(crate) fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint().to_owned()),
            access_key_id: Some("test".to_owned()),
            secret_access_key: Some("test".into()),
            path_style: true,
            ..S3Options::default()
        }
    }

    fn env(&self, key: &str) -> &str {
        let value = self.env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{key} in {}", self.env)).trim_matches(['\'', '"'])
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        script("kill", self.dir.path(), &[]);
    }
}

fn script(command: &str, dir: &Path, more: &[&str]) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../infra/dev/s3.sh");
    let output = Command::new("bash").arg(path).arg(command).arg(dir.join("s3")).args(more).output().unwrap();
    assert!(output.status.success(), "s3.sh {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
