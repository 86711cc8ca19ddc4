//! What is wrong with a configuration, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::PREFIX;

/// Where an option was set. The order of the variants is that in which problems are reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Place {
    /// Line and column count from 1, columns in characters.
    File {
        path: Arc<str>,
        line: usize,
        column: usize,
    },
    Variable(String),
    Flag(String),
    /// Nowhere: the default holds.
    #[default]
    Unset,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing wrong with one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was set.
    pub place: Place,
    /// Full key, such as `kafka.brokers`; empty when the problem is not about one option.
    pub key: String,
    /// Reads on after the key: `is empty: name at least one host:port`.
    pub what: String,
}

impl Problem {
    /// A problem whose place the loader fills in. `what` reads on after the key: `is empty: name at least one
    /// host:port`.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: Place::Unset, key: key.into(), what: what.into() }
    }

    pub(super) fn placed_by(mut self, places: &BTreeMap<String, Place>) -> Self {
        // A rule names an option by its key only; an option that no layer sets has no place.
        if self.place == Place::Unset
            && let Some(place) = places.get(&self.key)
        {
            self.place = place.clone();
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.key.as_str()) {
            (Place::Unset, "") => f.write_str(&self.what),
            (Place::Unset, key) => {
                let variable = super::layers::variable_stem(key);
                write!(f, "{key} {} (not set: set it in the file or as {PREFIX}{variable})", self.what)
            }
            (place, "") => write!(f, "{place}: {}", self.what),
            (place, key) => write!(f, "{place}: {key} {}", self.what),
        }
    }
}

/// All that is wrong: the file from top to bottom, then variables and flags, then what was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} {} in the configuration", if count == 1 { "problem" } else { "problems" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Invalid(Problems),
    #[error("the settings cannot be written as TOML")]
    Show(#[source] toml::ser::Error),
    #[error("the settings cannot be written")]
    Write(#[source] std::io::Error),
}

impl crate::run::Fatal for ConfigError {
    fn exit(&self) -> crate::run::Exit {
        crate::run::Exit::Usage
    }
}
