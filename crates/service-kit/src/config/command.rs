//! `config check` and `config show`, the same on every program.

use std::collections::BTreeMap;
use std::io::Write;

use super::{ConfigError, ConfigSource, Loaded, Place, Settings};

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is valid, and all that is not
    Check,
    /// Print the settings in force as TOML, with where each comes from; secrets are masked
    Show,
}

impl ConfigCommand {
    /// Runs the command; what it prints goes to `out`.
    ///
    /// # Errors
    /// When the configuration is not valid, or `out` fails.
    pub fn run<T: Settings>(self, source: &ConfigSource, out: &mut impl Write) -> Result<(), ConfigError> {
        let loaded = source.load_placed::<T>()?;
        let text = match self {
            Self::Check => match source.file() {
                Some(file) => format!("{}: valid\n", file.display()),
                None => "valid (no file; defaults, environment and flags)\n".to_owned(),
            },
            Self::Show => show(&loaded)?,
        };
        out.write_all(text.as_bytes()).map_err(ConfigError::Write)
    }
}

/// The settings as TOML, each option that a layer sets followed by its place.
///
/// # Errors
/// When the settings cannot be written as TOML.
fn show<T: Settings>(loaded: &Loaded<T>) -> Result<String, ConfigError> {
    let text = toml::to_string(&loaded.settings).map_err(ConfigError::Show)?;
    Ok(annotate(&text, &loaded.places))
}

fn annotate(text: &str, places: &BTreeMap<String, Place>) -> String {
    let mut section = String::new();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = format!("{name}.");
        }
        out.push_str(line);
        let place = line.split_once(" = ").and_then(|(key, _)| places.get(&format!("{section}{key}")));
        if let Some(place) = place {
            out.push_str(&format!("  # {place}"));
        }
        out.push('\n');
    }
    out
}
