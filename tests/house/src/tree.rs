//! What the files of the tree must look like, whatever is in them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::layers::FileRule;
use crate::workspace::Workspace;
use crate::{HouseError, read};

#[cfg(test)]
mod tests;

/// Folders that hold nothing a person wrote.
const SKIPPED_FOLDERS: [&str; 6] = [".git", "target", "causeway-data", "node_modules", "__pycache__", ".venv"];

/// Endings of the files that a person writes and reads as code.
const SOURCE_ENDINGS: [&str; 11] = ["rs", "c", "h", "py", "sh", "ts", "tsx", "js", "css", "html", "sql"];

/// Marks of unfinished work. Split, so that this file does not hold them.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];

/// A file of the tree that is text.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path relative to the root, with `/`.
    pub path: String,
    /// What it holds; empty where it is neither a source file nor a page.
    pub text: String,
}

impl File {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn is_source(&self) -> bool {
        self.name().rsplit_once('.').is_some_and(|(_, ending)| SOURCE_ENDINGS.contains(&ending))
    }
}

/// Every file under `root` except in folders of generated and downloaded things, in order of path.
///
/// # Errors
/// When a folder or a source file cannot be read.
pub fn walk(root: &Path) -> Result<Vec<File>, HouseError> {
    let mut files = Vec::new();
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        let unreadable = |source| HouseError::Read { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let below = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_file() {
                files.push(File { path: below, text: String::new() });
            } else if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                open.push(below);
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in &mut files {
        if file.is_source() || file.name().ends_with(".md") {
            file.text = read(&root.join(&file.path))?;
        }
    }
    Ok(files)
}

/// Source files by length: those that are over the limit, and those that come near it.
#[derive(Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Over `max_lines`.
    pub too_long: Vec<String>,
    /// Over `warn_lines`.
    pub long: Vec<String>,
}

/// Measures every source file.
pub fn lengths(files: &[File], rule: FileRule) -> Lengths {
    let over = |from: usize, to: usize| {
        let measured = files.iter().filter(|f| f.is_source()).map(|f| (&f.path, f.text.lines().count()));
        measured
            .filter(|(_, lines)| (from + 1..=to).contains(lines))
            .map(|(path, lines)| format!("{path} has {lines} lines"))
            .collect()
    };
    Lengths { too_long: over(rule.max_lines, usize::MAX), long: over(rule.warn_lines, rule.max_lines) }
}

/// Files named `mod.rs`: a module's file is named after it.
pub fn mod_files(files: &[File]) -> Vec<String> {
    files.iter().filter(|f| f.name() == "mod.rs").map(|f| format!("{}: name it after its module", f.path)).collect()
}

/// Lines of source that say the work is not finished.
pub fn unfinished(files: &[File]) -> Vec<String> {
    let lines = files
        .iter()
        .filter(|f| f.is_source())
        .flat_map(|f| f.text.lines().enumerate().map(move |(i, line)| (f, i + 1, line)));
    let marked =
        lines.filter_map(|(f, number, line)| Some((f, number, UNFINISHED.iter().find(|mark| line.contains(**mark))?)));
    marked.map(|(f, number, mark)| format!("{}:{number} holds {mark}", f.path)).collect()
}

/// Top-level folders without a README or crate doc, and crates without a crate doc.
pub fn undescribed(files: &[File], workspace: &Workspace) -> Vec<String> {
    let described = |folder: &str| {
        let begins = |path: String, start: &str| files.iter().any(|f| f.path == path && f.text.starts_with(start));
        begins(format!("{folder}/README.md"), "#") || begins(format!("{folder}/src/lib.rs"), "//!")
    };
    let top = files
        .iter()
        .filter_map(|f| f.path.split_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| !folder.starts_with('.'));
    let folders: BTreeSet<&str> = top.chain(workspace.members.iter().map(|m| m.folder.as_str())).collect();
    folders
        .into_iter()
        .filter(|folder| !described(folder))
        .map(|folder| format!("{folder} does not say what belongs in it"))
        .collect()
}

/// Rust files that do not begin with `//!`: every file says why it exists. Files of tests are named for what they test.
pub fn silent_files(files: &[File]) -> Vec<String> {
    let rust =
        files.iter().filter(|f| f.path.ends_with(".rs") && f.name() != "tests.rs" && !f.path.contains("/tests/"));
    rust.filter(|f| !f.text.starts_with("//!")).map(|f| format!("{} does not begin with a //! line", f.path)).collect()
}
