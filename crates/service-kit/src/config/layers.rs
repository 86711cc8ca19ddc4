//! The layers before they are decoded: the tree of the file, and values that come by name (variables and flags).
//!
//! Which option a variable names is known only when the fields are: `KAFKA_SASL_PASSWORD` may be `kafka.sasl.password`
//! or `kafka.sasl_password`. So names stay whole here and the decoder takes them apart against the fields it meets.

use std::path::Path;

use super::tree::{self, Entry};
use super::{ConfigError, PREFIX, Place, Problems, Sections};

/// Variables with our prefix that are no options, without the prefix: those of flags, of the build and of test scripts.
const NOT_OPTIONS: [&str; 10] =
    ["CACHE", "COMMIT", "CONFIG", "DATA", "FAULT_LOG", "LOG", "LOG_FORMAT", "SEED", "SERVER", "VERSION"];

/// A value given by a variable or a flag.
#[derive(Debug, Clone)]
pub(super) struct Override {
    /// The option in the form of a variable without its prefix: `KAFKA_BROKERS`.
    pub name: String,
    /// The text given.
    pub value: String,
    /// The variable or flag that gives it.
    pub place: Place,
}

/// What a variable of the environment is.
#[derive(Debug)]
pub(super) enum Variable {
    Option(Override),
    /// It has our prefix and names nothing that is known here.
    Unknown,
    /// It belongs to a flag, to a script or to another program.
    Other,
}

impl Variable {
    pub(super) fn of(variable: &str, value: String, sections: Sections) -> Self {
        let Some(name) = variable.strip_prefix(PREFIX) else { return Self::Other };
        // First: `CAUSEWAY_QUERY_PORT` of Kubernetes looks like an option of the section `query`.
        if is_service_discovery(name, &value) || NOT_OPTIONS.contains(&name) {
            return Self::Other;
        }
        if is_option(name, sections) {
            return Self::Option(Override {
                name: name.to_owned(),
                value,
                place: Place::Variable(variable.to_owned()),
            });
        }
        Self::Unknown
    }
}

impl Override {
    pub(super) fn of_flag(flag: &str, key: &str, value: String) -> Self {
        let place = if flag == "--set" { format!("--set {key}") } else { flag.to_owned() };
        Self { name: variable_stem(key), value, place: Place::Flag(place) }
    }
}

/// The name of the variable of an option, without the prefix.
pub(super) fn variable_stem(key: &str) -> String {
    key.replace(['.', '-'], "_").to_uppercase()
}

/// Whether a variable is meant to be an option: its first word is a section, or looks like one misspelt. Others with
/// our prefix belong to scripts and to flags.
fn is_option(name: &str, sections: Sections) -> bool {
    let first = name.split('_').next().unwrap_or(name).to_lowercase();
    // A section alone is no option. A short word is too like others to be a misspelt section.
    name.contains('_')
        && sections.iter().any(|section| distance(&first, section) <= if section.len() > 4 { 2 } else { 0 })
}

/// Kubernetes puts variables for every service of a namespace into every pod; a service named `causeway-query` makes
/// `CAUSEWAY_QUERY_PORT=tcp://…` and similar ones.
fn is_service_discovery(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP_")
        || (name.contains("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
}

/// Levenshtein distance: the least number of edits (insertion, deletion, replacement) that turns one word into another.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Wagner-Fischer with one row: `row[j]` is the distance of the letters of `a` so far to the first `j` of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// All layers of one load.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    /// The tree of the file; `None` without one.
    pub file: Option<Entry>,
    /// In rising order of precedence.
    pub overrides: &'a [Override],
    /// Sections that the file may have.
    pub sections: Sections,
}

impl<'a> Layers<'a> {
    pub(super) fn read(
        file: Option<&Path>,
        overrides: &'a [Override],
        sections: Sections,
    ) -> Result<Self, ConfigError> {
        let file = file.map(read_file).transpose()?;
        Ok(Self { file, overrides, sections })
    }
}

fn read_file(path: &Path) -> Result<Entry, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    tree::parse(path, &text).map_err(|problems| ConfigError::Invalid(Problems(problems)))
}
