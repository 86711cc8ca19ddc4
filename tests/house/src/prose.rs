//! Words that the tree is not to use.

use std::path::Path;

use serde::Deserialize;

use crate::tree::File;
use crate::{HouseError, parse};

/// `tests/house/prose.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prose {
    /// Words, and sequences of words, in lower case.
    pub banned: Vec<String>,
}

/// Files whose words are data: decisions are history, and the list of the words has them.
const PASSED: [&str; 2] = ["docs/adr/", "tests/house/"];

impl Prose {
    /// Reads the list.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Self, HouseError> {
        parse(path)
    }

    /// Each line with a banned word, as `path:line: word`.
    pub fn violations(&self, files: &[File]) -> Vec<String> {
        let mut found = Vec::new();
        for file in files.iter().filter(|file| is_read(&file.path)) {
            for (line, text) in (1..).zip(file.text.lines()) {
                let words = words_of(text);
                let banned = self.banned.iter().filter(|word| words.contains(&format!(" {word} ")));
                found.extend(banned.map(|word| format!("{}:{line}: {word}", file.path)));
            }
        }
        found
    }
}

fn is_read(path: &str) -> bool {
    !PASSED.iter().any(|passed| path.starts_with(passed))
}

/// The words of a line in lower case, with a space around each. Names in code are one word: `is_told` is not `told`.
fn words_of(line: &str) -> String {
    let mut words = String::from(" ");
    for word in line.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
    {
        words += &word.to_lowercase();
        words.push(' ');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_word_is_named_with_its_line_and_names_in_code_are_words_of_their_own() {
        let prose = Prose { banned: vec!["tells".to_owned(), "in hand".to_owned()] };
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("a.rs", "fn is_told() {}\n// It Tells, with what is in hand."),
            file("older/c.md", "hand in, tell_tells"),
            file("docs/adr/0001.md", "It tells."),
        ];
        assert_eq!(prose.violations(&files), ["a.rs:2: tells", "a.rs:2: in hand"]);
    }
}
