//! Puts the commit into the version of every program. A source tree without git builds all the same.

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
    // `HEAD` changes with a checkout, its log with each commit.
    for name in ["HEAD", "logs/HEAD"] {
        // A path that does not exist would make cargo run this with every build. `--git-path` also finds the files of a
        // linked worktree, whose `.git` is a file.
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit of a packager, else of git.
fn commit() -> Option<String> {
    let given = std::env::var("CAUSEWAY_COMMIT").ok().filter(|commit| !commit.is_empty());
    given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
