//! Puts the commit into `--version`. A source tree without git builds all the same.

use std::path::Path;
use std::process::Command;

fn main() {
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit() {
        Some(commit) => format!("{version} (commit {commit})"),
        None => version,
    };
    println!("cargo::rustc-env=CAUSEWAY_VERSION={version}");
    println!("cargo::rerun-if-env-changed=CAUSEWAY_COMMIT");
    for file in ["../.git/HEAD", "../.git/logs/HEAD"] {
        // A path that does not exist would make cargo run this every time.
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit of a packager, else of git.
fn commit() -> Option<String> {
    if let Some(commit) = std::env::var("CAUSEWAY_COMMIT").ok().filter(|c| !c.is_empty()) {
        return Some(commit);
    }
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
