//! The floors of the house: `layers.toml` against the manifests and the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::workspace::{Member, Workspace};
use crate::{HouseError, matches, parse};

#[cfg(test)]
mod tests;

/// The table in `layers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    layer: BTreeMap<String, Layer>,
    #[serde(rename = "crate")]
    crates: BTreeMap<String, CrateRule>,
    confined: BTreeMap<String, Confined>,
    lock: LockRule,
    /// Bounds on source files.
    pub files: FileRule,
}

/// Bounds on source files, in lines.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Longer files are listed.
    pub warn_lines: usize,
    /// Longer files fail.
    pub max_lines: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Layer {
    never_links: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CrateRule {
    layer: String,
    imports: Vec<String>,
    #[serde(default)]
    never_links: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confined {
    to: Vec<String>,
    why: String,
}

impl Confined {
    /// Whether a crate may name it, by its own name or by that of its layer.
    fn admits(&self, member: &Member, rule: &CrateRule) -> bool {
        self.to.iter().any(|to| *to == member.name || *to == rule.layer)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockRule {
    single_version: Vec<String>,
}

impl Layers {
    /// Reads the table.
    ///
    /// # Errors
    /// When the file is missing, is not valid TOML, or holds an unknown key.
    pub fn load(path: &Path) -> Result<Self, HouseError> {
        parse(path)
    }

    /// Arrows between crates, or to confined crates, that the table does not draw; and gaps between table and workspace.
    pub fn arrows(&self, workspace: &Workspace) -> Vec<String> {
        let names: BTreeSet<&str> = workspace.members.iter().map(|m| m.name.as_str()).collect();
        let gone = self.crates.keys().filter(|name| !names.contains(name.as_str()));
        let mut found: Vec<String> =
            gone.map(|name| format!("{name} is in layers.toml but not in the workspace")).collect();
        for member in &workspace.members {
            match self.crates.get(&member.name) {
                Some(rule) => found.extend(self.arrows_of(member, rule, &names)),
                None => found.push(format!("{} has no line in layers.toml", member.name)),
            }
        }
        found
    }

    fn arrows_of(&self, member: &Member, rule: &CrateRule, names: &BTreeSet<&str>) -> Vec<String> {
        let mut found = Vec::new();
        if !self.layer.contains_key(&rule.layer) {
            found.push(format!("{} is on layer {}, which layers.toml does not know", member.name, rule.layer));
        }
        for dependency in &member.dependencies {
            if names.contains(dependency.as_str()) && !rule.imports.iter().any(|i| i == "*" || i == dependency) {
                let allowed = rule.imports.join(", ");
                found.push(format!("{} imports {dependency}, but may import only [{allowed}]", member.name));
            }
            let named = self.confined.iter().filter(|(pattern, _)| matches(pattern, dependency));
            for (_, confined) in named.filter(|(_, confined)| !confined.admits(member, rule)) {
                found.push(format!("{} names {dependency}, but {}", member.name, confined.why));
            }
        }
        found
    }

    /// Crates that link, however indirectly, what their layer or their own line forbids.
    pub fn links(&self, workspace: &Workspace) -> Vec<String> {
        let mut found = Vec::new();
        for member in &workspace.members {
            let Some(rule) = self.crates.get(&member.name) else { continue };
            let linked = workspace.linked(member);
            let of_layer = self.layer.get(&rule.layer).map(|layer| &layer.never_links);
            let forbidden = of_layer.into_iter().flatten().chain(&rule.never_links);
            for forbidden in forbidden.filter(|forbidden| linked.contains(*forbidden)) {
                found.push(format!("{} links {forbidden}, which it never may", member.name));
            }
        }
        found
    }

    /// Packages that must have one version in the lock file and have another number of them.
    pub fn versions(&self, workspace: &Workspace) -> Vec<String> {
        let versions = |name: &String| {
            workspace.lock.iter().filter(|p| p.name == *name).map(|p| p.version.as_str()).collect::<Vec<_>>()
        };
        let several = self.lock.single_version.iter().map(|name| (name, versions(name))).filter(|(_, v)| v.len() != 1);
        several
            .map(|(name, v)| {
                format!("{name} must have one version in Cargo.lock, it has {}: {}", v.len(), v.join(", "))
            })
            .collect()
    }
}

/// Crates that declare features: what is compiled must not depend on who asks for it.
pub fn features(workspace: &Workspace) -> Vec<String> {
    let declared = workspace.members.iter().flat_map(|m| m.features.iter().map(|f| (&m.name, f)));
    declared.map(|(name, feature)| format!("{name} declares the feature {feature}")).collect()
}
