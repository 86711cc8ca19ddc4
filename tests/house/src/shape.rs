//! What the Rust code of the tree looks like, by its syntax: closures and tuples bound by `let`, fields that other files reach into,
//! public fields without docs, and modules that import one another in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use syn::visit::{self, Visit};

use crate::tree::File;
use crate::{HouseError, parse};

/// `tests/house/shape.toml`: the most that the tree may have, and the least of what it should have.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Closures bound by `let` in 1,000 lines.
    pub closures_per_kloc: f64,
    /// Tuples bound to tuples by `let` in 1,000 lines.
    pub tuple_lets_per_kloc: f64,
    /// Fields that are `pub(super)`.
    pub pub_super_fields: usize,
    /// Public fields without a docstring, per cent.
    pub mute_public_fields_percent: f64,
    /// Circles of modules.
    pub circles: usize,
    /// The least share of lines that are comments beside the code, per cent.
    pub step_comments_percent: f64,
}

impl Limits {
    /// Reads the limits.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Self, HouseError> {
        parse(path)
    }
}

/// What was counted in production code: modules named `tests`, and files and folders of tests, are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Lines.
    pub lines: usize,
    /// Lines that are comments beside the code: `//`, and neither `///` nor `//!`.
    pub step_comments: usize,
    /// `let name = |…| …`.
    pub closures: usize,
    /// `let (a, b) = (x, y)`.
    pub tuple_lets: usize,
    /// Fields that are `pub(super)`.
    pub pub_super_fields: usize,
    /// Fields that are `pub`.
    pub public_fields: usize,
    /// Of them: those without a docstring.
    pub mute_public_fields: usize,
    /// Modules that import one another in a circle, as `crate: a, b, c`.
    pub circles: Vec<String>,
    /// Files that are no Rust.
    pub unreadable: Vec<String>,
}

impl Shape {
    /// Measures the Rust files of the tree.
    pub fn of(files: &[File]) -> Self {
        let mut shape = Self::default();
        let mut crates: BTreeMap<&str, Imports> = BTreeMap::new();
        for file in files.iter().filter(|file| is_production(&file.path)) {
            let Ok(mut syntax) = syn::parse_file(&file.text) else {
                shape.unreadable.push(file.path.clone());
                continue;
            };
            syntax.items.retain(|item| !is_of_tests(item));
            shape.lines += file.text.lines().count();
            shape.step_comments += file.text.lines().filter(|line| is_step_comment(line)).count();
            shape.visit_file(&syntax);
            if let Some((name, module)) = module_of(&file.path) {
                crates.entry(name).or_default().read(module, &syntax);
            }
        }
        for (name, imports) in crates {
            shape.circles.extend(imports.circles().into_iter().map(|circle| format!("{name}: {}", circle.join(", "))));
        }
        shape
    }

    /// How many of something there are in 1,000 lines.
    pub fn per_kloc(&self, count: usize) -> f64 {
        count as f64 * 1_000.0 / self.lines.max(1) as f64
    }

    /// Public fields without a docstring, per cent.
    pub fn mute_public_fields_percent(&self) -> f64 {
        self.mute_public_fields as f64 * 100.0 / self.public_fields.max(1) as f64
    }

    /// Comments beside the code, per cent of the lines.
    pub fn step_comments_percent(&self) -> f64 {
        self.step_comments as f64 * 100.0 / self.lines.max(1) as f64
    }

    /// The limits that are passed.
    pub fn violations(&self, limits: Limits) -> Vec<String> {
        let mut passed = self.unreadable.clone();
        for (what, found, limit) in [
            ("closures bound by let in 1,000 lines", self.per_kloc(self.closures), limits.closures_per_kloc),
            ("tuples bound to tuples in 1,000 lines", self.per_kloc(self.tuple_lets), limits.tuple_lets_per_kloc),
            ("pub(super) fields", self.pub_super_fields as f64, limits.pub_super_fields as f64),
            (
                "per cent of the public fields have no docstring",
                self.mute_public_fields_percent(),
                limits.mute_public_fields_percent,
            ),
            ("circles of modules", self.circles.len() as f64, limits.circles as f64),
        ] {
            if found > limit {
                passed.push(format!("{found:.2} {what}, at most {limit} may be"));
            }
        }
        let comments = self.step_comments_percent();
        if comments < limits.step_comments_percent {
            passed.push(format!(
                "{comments:.2} per cent of the lines are comments beside the code, at least {} should be",
                limits.step_comments_percent
            ));
        }
        passed
    }
}

impl<'ast> Visit<'ast> for Shape {
    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some(init) = &local.init {
            match (&local.pat, &*init.expr) {
                (syn::Pat::Tuple(_), syn::Expr::Tuple(_)) => self.tuple_lets += 1,
                (_, syn::Expr::Closure(_)) => self.closures += 1,
                _ => {}
            }
        }
        visit::visit_local(self, local);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        match &field.vis {
            syn::Visibility::Restricted(within) if within.path.is_ident("super") => self.pub_super_fields += 1,
            syn::Visibility::Public(_) => {
                self.public_fields += 1;
                let is_mute = !field.attrs.iter().any(|attribute| attribute.path().is_ident("doc"));
                self.mute_public_fields += usize::from(is_mute);
            }
            _ => {}
        }
        visit::visit_field(self, field);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }
}

fn is_step_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
}

fn is_production(path: &str) -> bool {
    let is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    path.ends_with(".rs") && !is_test && !path.contains("/benches/")
}

fn is_of_tests(item: &syn::Item) -> bool {
    matches!(item, syn::Item::Mod(module) if module.ident == "tests")
}

/// The crate of a file, and the path of its module within: `crates/lake/src/commit/decide.rs` is `commit::decide` of `crates/lake`.
fn module_of(path: &str) -> Option<(&str, Vec<String>)> {
    let (name, below) = path.split_once("/src/")?;
    let below = below.strip_suffix(".rs")?;
    let module = match below {
        "lib" | "main" => Vec::new(),
        _ => below.split('/').map(str::to_owned).collect(),
    };
    Some((name, module))
}

/// What the modules of a crate import of one another.
#[derive(Debug, Default)]
struct Imports {
    modules: BTreeSet<Vec<String>>,
    paths: Vec<(Vec<String>, Vec<String>)>,
}

impl Imports {
    fn read(&mut self, module: Vec<String>, syntax: &syn::File) {
        for item in &syntax.items {
            if let syn::Item::Use(import) = item {
                self.walk(&module, &import.tree, Vec::new());
            }
        }
        self.modules.insert(module);
    }

    fn walk(&mut self, module: &[String], tree: &syn::UseTree, mut before: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.walk(module, &path.tree, before);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.walk(module, tree, before.clone()));
            }
            syn::UseTree::Name(name) => {
                before.push(name.ident.to_string());
                self.add(module, before);
            }
            syn::UseTree::Rename(name) => {
                before.push(name.ident.to_string());
                self.add(module, before);
            }
            syn::UseTree::Glob(_) => self.add(module, before),
        }
    }

    /// Notes an import by its path from the root of the crate; of another crate none.
    fn add(&mut self, module: &[String], path: Vec<String>) {
        let mut from_root = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => module.to_vec(),
            _ => return,
        };
        for part in path {
            match part.as_str() {
                "crate" | "self" => {}
                "super" => drop(from_root.pop()),
                _ => from_root.push(part),
            }
        }
        self.paths.push((module.to_vec(), from_root));
    }

    /// The modules that a module imports from, except those above and below it.
    fn arrows(&self) -> BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> {
        let mut arrows: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (from, path) in &self.paths {
            let longest = (1..=path.len()).rev().find_map(|length| self.modules.get(&path[..length]));
            if let Some(to) = longest.filter(|to| !from.starts_with(to) && !to.starts_with(from)) {
                arrows.entry(from).or_default().insert(to);
            }
        }
        arrows
    }

    /// Groups of modules each of which reaches the others.
    fn circles(&self) -> Vec<Vec<String>> {
        let arrows = self.arrows();
        let mut circles = Vec::new();
        let mut placed = BTreeSet::new();
        for module in arrows.keys().copied() {
            let reached = reach(&arrows, module);
            let is_in_circle = |other: &&&Vec<String>| reach(&arrows, other).contains(module);
            let circle: BTreeSet<&Vec<String>> = reached.iter().filter(is_in_circle).copied().collect();
            if circle.len() > 1 && placed.insert(circle.clone()) {
                circles.push(circle.into_iter().map(|module| module.join("::")).collect());
            }
        }
        circles
    }
}

fn reach<'a>(
    arrows: &BTreeMap<&'a Vec<String>, BTreeSet<&'a Vec<String>>>,
    from: &'a Vec<String>,
) -> BTreeSet<&'a Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in arrows.get(module).into_iter().flatten() {
            if reached.insert(*next) {
                open.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests;
