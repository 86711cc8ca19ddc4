//! `config check` and `config show`, the same on every program.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};

use serde_json::json;

use super::{Checked, ConfigError, ConfigSource, Place, Problem, Problems, Settings};

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is valid, and all that is not
    Check {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the settings in force as TOML, with where each comes from; secrets are masked
    ///
    /// An option that is wrong is shown with its default, and what is wrong is printed to standard error.
    Show {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

impl ConfigCommand {
    /// Runs the command; what it prints goes to `out`. A reader that closes the pipe early is no failure.
    ///
    /// # Errors
    /// When the configuration is not valid, or `out` fails.
    pub fn run<T: Settings>(self, source: &ConfigSource, out: &mut impl Write) -> Result<(), ConfigError> {
        let checked = source.check::<T>()?;
        let text = match self {
            Self::Check { json: true } => format!("{}\n", checked_json(source, &checked)),
            Self::Check { json: false } if checked.problems.is_empty() => valid(source),
            Self::Check { json: false } => String::new(),
            Self::Show { json: true } => format!("{}\n", shown_json(source, &checked)),
            Self::Show { json: false } => show(&checked)?,
        };
        // Before the problems are returned: `show` prints the settings that could be decoded as well.
        match out.write_all(text.as_bytes()) {
            // The Rust runtime ignores SIGPIPE, so that a closed pipe (`| head`) comes as EPIPE.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(ConfigError::Write(error)),
            _ => {}
        }
        if checked.problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(Problems(checked.problems))) }
    }
}

fn valid(source: &ConfigSource) -> String {
    let mut text = match source.file() {
        Some(file) => format!("{}: valid\n", file.display()),
        None => "valid (no file; defaults, environment and flags)\n".to_owned(),
    };
    for variable in &source.ignored {
        text += &format!("environment {variable} {}\n", source.ignored_because());
    }
    text
}

fn checked_json<T>(source: &ConfigSource, checked: &Checked<T>) -> serde_json::Value {
    let mut problems = Vec::new();
    for Problem { place, key, what } in &checked.problems {
        problems.push(json!({ "key": key, "place": place.to_string(), "problem": what }));
    }
    json!({
        "file": source.file(),
        "valid": checked.problems.is_empty(),
        "problems": problems,
        "ignored_variables": source.ignored,
    })
}

fn shown_json<T: Settings>(source: &ConfigSource, checked: &Checked<T>) -> serde_json::Value {
    let mut value = checked_json(source, checked);
    value["settings"] = json!(checked.settings);
    value["places"] = checked.places.iter().map(|(key, place)| (key.clone(), json!(place.to_string()))).collect();
    value
}

/// The settings as TOML, each option that a layer sets followed by its place.
///
/// # Errors
/// When the settings cannot be written as TOML.
fn show<T: Settings>(checked: &Checked<T>) -> Result<String, ConfigError> {
    let Some(settings) = &checked.settings else { return Ok(String::new()) };
    let text = toml::to_string(settings).map_err(ConfigError::Show)?;
    Ok(annotate(&text, &checked.places))
}

fn annotate(text: &str, places: &BTreeMap<String, Place>) -> String {
    let mut section = String::new();
    let mut out = String::new();
    for line in text.lines() {
        // `toml` writes the full name of a table into its header, and the options of a table below it.
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
