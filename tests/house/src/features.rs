//! Building and testing must resolve the same features: where a test-only dependency asks more of a shared crate, cargo
//! compiles that crate, and all that stands on it, a second time. On a fresh machine that doubles the wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::HouseError;

#[cfg(test)]
mod tests;

/// Packages whose features differ between `cargo build` and `cargo test` of the whole workspace.
///
/// # Errors
/// When `cargo tree` fails.
pub fn split(root: &Path) -> Result<Vec<String>, HouseError> {
    let build = cargo_tree(root, "normal,build")?;
    let test = cargo_tree(root, "normal,build,dev")?;
    Ok(differences(&build, &test))
}

fn cargo_tree(root: &Path, edges: &str) -> Result<String, HouseError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{f}", "--edges", edges];
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|e| HouseError::CargoTree(e.to_string()))?;
    if !output.status.success() {
        return Err(HouseError::CargoTree(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compares two listings of `package|features` lines over the packages that both name.
fn differences(build: &str, test: &str) -> Vec<String> {
    let features = packages(test);
    let split = packages(build).into_iter().filter_map(|(name, built)| Some((name, built, *features.get(name)?)));
    let split = split.filter(|(_, built, tested)| built != tested);
    split.map(|(name, built, tested)| format!("{name} is built with [{built}] but tested with [{tested}]")).collect()
}

/// A package that is listed again is marked `(*)`.
fn packages(listing: &str) -> BTreeMap<&str, &str> {
    listing.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|')).collect()
}
