//! What the manifests and the lock file say: the crates of the workspace, what they depend on, and everything that is
//! linked behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::tree::File;
use crate::{HouseError, parse};

/// One crate of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The package's name.
    pub name: String,
    /// Its folder, relative to the root.
    pub folder: String,
    /// Packages it is built from: normal and build dependencies, for every target.
    pub dependencies: BTreeSet<String>,
    /// Feature names it declares, and optional dependencies, which are features too.
    pub features: BTreeSet<String>,
}

/// One package of the lock file.
#[derive(Debug, Clone, Deserialize)]
pub struct Locked {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it links: names, followed by the version where a name is not unique.
    #[serde(default)]
    pub dependencies: Vec<String>,
}

/// The workspace as cargo sees it.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// Its crates.
    pub members: Vec<Member>,
    /// Every package that can be linked.
    pub lock: Vec<Locked>,
}

#[derive(Deserialize)]
struct RootManifest {
    workspace: WorkspaceTable,
}

#[derive(Deserialize)]
struct WorkspaceTable {
    members: Vec<String>,
    dependencies: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct PackageTable {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct DependencyTables {
    dependencies: BTreeMap<String, toml::Value>,
    build_dependencies: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
struct Manifest {
    package: PackageTable,
    #[serde(flatten)]
    tables: DependencyTables,
    #[serde(default)]
    target: BTreeMap<String, DependencyTables>,
    #[serde(default)]
    features: BTreeMap<String, toml::Value>,
}

impl Workspace {
    /// Reads the manifests and the lock file under `root`.
    ///
    /// # Errors
    /// When one of them is missing or is not valid TOML.
    pub fn load(root: &Path) -> Result<Self, HouseError> {
        let RootManifest { workspace } = parse(&root.join("Cargo.toml"))?;
        let mut members = Vec::new();
        for folder in workspace.members {
            let manifest: Manifest = parse(&root.join(&folder).join("Cargo.toml"))?;
            members.push(member(folder, manifest, &workspace.dependencies));
        }
        let lock: LockFile = parse(&root.join("Cargo.lock"))?;
        Ok(Self { members, lock: lock.package })
    }

    /// Names of all packages linked into `member`: its dependencies, what they depend on, and so on.
    pub fn linked(&self, member: &Member) -> BTreeSet<String> {
        let mut open: Vec<String> = member.dependencies.iter().cloned().collect();
        let mut linked = BTreeSet::new();
        while let Some(package) = open.pop() {
            let name = package.split(' ').next().unwrap_or_default().to_owned();
            if !linked.insert(package.clone()) {
                continue;
            }
            // The lock file also lists what only the tests of a member need; its manifest does not.
            match self.members.iter().find(|m| m.name == name) {
                Some(member) => open.extend(member.dependencies.iter().cloned()),
                None => open.extend(self.locked(&package).flat_map(|p| p.dependencies.iter().cloned())),
            }
        }
        linked.iter().filter_map(|package| package.split(' ').next().map(str::to_owned)).collect()
    }

    /// Dependencies that no Rust file of the crate names.
    pub fn unused(&self, files: &[File]) -> Vec<String> {
        let mut unused = Vec::new();
        // Tests of the whole tree name some for the features that they switch on.
        for member in self.members.iter().filter(|member| !member.folder.starts_with("tests/")) {
            let mut words = BTreeSet::new();
            let below = format!("{}/", member.folder);
            for file in files.iter().filter(|file| file.path.starts_with(&below) && file.path.ends_with(".rs")) {
                words.extend(file.text.split(|c: char| !c.is_alphanumeric() && c != '_'));
            }
            let is_named = |dependency: &&String| words.contains(dependency.replace('-', "_").as_str());
            let left = member.dependencies.iter().filter(|dependency| !is_named(dependency));
            unused.extend(left.map(|dependency| format!("{} depends on {dependency}", member.name)));
        }
        unused
    }

    fn locked<'a>(&'a self, package: &str) -> impl Iterator<Item = &'a Locked> {
        let mut words = package.split(' ').map(str::to_owned);
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        self.lock.iter().filter(move |p| p.name == name && version.as_ref().is_none_or(|v| *v == p.version))
    }
}

fn member(folder: String, manifest: Manifest, inherited: &BTreeMap<String, toml::Value>) -> Member {
    let mut member = Member { name: manifest.package.name, folder, ..Member::default() };
    member.features.extend(manifest.features.into_keys());
    for tables in std::iter::once(manifest.tables).chain(manifest.target.into_values()) {
        for (key, value) in tables.dependencies.into_iter().chain(tables.build_dependencies) {
            if value.get("optional").and_then(toml::Value::as_bool).unwrap_or_default() {
                member.features.insert(key.clone());
            }
            let renamed =
                value.get("package").or_else(|| inherited.get(&key)?.get("package")).and_then(toml::Value::as_str);
            member.dependencies.insert(renamed.map_or(key, str::to_owned));
        }
    }
    member
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_no_file_of_the_crate_names_is_unused() {
        let dependencies = ["tokio-util".to_owned(), "serde".to_owned()].into();
        let member = Member { name: "a".into(), folder: "crates/a".into(), dependencies, ..Member::default() };
        let workspace = Workspace { members: vec![member], lock: Vec::new() };
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let others = [file("crates/ab/src/lib.rs", "use serde::Serialize;"), file("crates/a/README.md", "serde")];
        assert_eq!(workspace.unused(&others), ["a depends on serde", "a depends on tokio-util"]);
        let own = [file("crates/a/src/lib.rs", "use serde::Serialize;\nuse tokio_util::io;")];
        assert_eq!(workspace.unused(&own), [""; 0]);
    }
}
