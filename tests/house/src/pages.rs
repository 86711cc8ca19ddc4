//! What the pages say of the tree.

use crate::tree::File;

/// Pages that name files of the tree.
const PAGES: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/EXTENDING.md", "docs/GLOSSARY.md"];
/// What follows a path of a file that is still to be written.
const NEW: &str = " *new*";
/// A word in backticks with one of these is a pattern, a call or a statement.
const NO_PATH: [char; 11] = ['{', '}', '*', '<', '>', '(', ')', ' ', '$', '~', ':'];

/// The paths of Rust, C and TOML files that a page names in backticks and the tree does not have, as `page:line: path`. A page may
/// leave out the folders that a path begins with.
pub fn dead_paths(files: &[File]) -> Vec<String> {
    let mut dead = Vec::new();
    for page in files.iter().filter(|file| PAGES.contains(&file.path.as_str())) {
        for (line, text) in (1..).zip(page.text.lines()) {
            for path in named(text).filter(|path| !exists(files, path)) {
                dead.push(format!("{}:{line}: {path}", page.path));
            }
        }
    }
    dead
}

/// Paths of files in a line.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let parts: Vec<&str> = line.split('`').collect();
    let spans: Vec<(&str, &str)> =
        (1..parts.len()).step_by(2).map(|at| (parts[at], parts.get(at + 1).copied().unwrap_or_default())).collect();
    spans.into_iter().filter(|(span, behind)| is_path(span) && !behind.starts_with(NEW)).map(|(span, _)| span)
}

fn is_path(span: &str) -> bool {
    let has_ending = [".rs", ".h", ".c", ".toml"].iter().any(|ending| span.ends_with(ending));
    has_ending && span.contains('/') && !span.contains(NO_PATH)
}

fn exists(files: &[File], path: &str) -> bool {
    let below = format!("/{path}");
    files.iter().any(|file| file.path == path || file.path.ends_with(&below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_named_unless_it_is_new_or_no_path() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("crates/lake/src/catalog.rs", ""),
            file(
                "ARCHITECTURE.md",
                "`catalog.rs`, `src/catalog.rs`\n`lake/src/gone.rs`, `src/a.rs` *new*, `src/{b,c}.rs`",
            ),
            file("notes.md", "`lake/src/other.rs`"),
        ];
        assert_eq!(dead_paths(&files), ["ARCHITECTURE.md:2: lake/src/gone.rs"]);
    }
}
