//! The laws of this code base, as functions from what is in the tree to the violations found: who may import whom
//! ([`layers`]), what source files must look like ([`tree`]), how they are written ([`shape`], [`prose`]), what the event catalogue
//! alone writes down ([`catalogue`]), that pages name files that exist ([`pages`]), and that building and testing share their
//! compiled dependencies ([`features`]).
//! `tests/house.rs` holds the tree against them; the unit tests break each law on purpose.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]
#![forbid(unsafe_code)]

pub mod catalogue;
pub mod features;
pub mod layers;
pub mod pages;
pub mod prose;
pub mod shape;
pub mod tree;
pub mod workspace;

use std::path::{Path, PathBuf};

/// The tree cannot be judged because it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// A file or folder that should be there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A TOML file does not hold what is expected of it.
    #[error("{} is not what it should be", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// `cargo tree` could not list the dependencies.
    #[error("cargo tree failed: {0}")]
    CargoTree(String),
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, HouseError> {
    std::fs::read_to_string(path).map_err(|source| HouseError::Read { path: path.to_path_buf(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, HouseError> {
    toml::from_str(&read(path)?).map_err(|source| HouseError::Parse { path: path.to_path_buf(), source })
}

/// True when `pattern` is `name`, or ends in `*` and `name` begins with the rest.
fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}
