//! Configuration in layers: TOML file < environment (`CAUSEWAY_…`) < flags. Everything wrong is reported at once, each
//! problem with its place: file, line and column, variable, or flag.
//!
//! A service describes its options as a serde struct whose fields are the sections it reads (`struct Settings { kafka:
//! KafkaConfig, ingest: IngestConfig }`), all with `#[serde(default)]`, and implements [`Settings::validate`]. Unknown
//! keys are found by the decoder: `deny_unknown_fields` is not needed. One file may serve several services: a program
//! passes the sections that its file may have ([`ConfigSource::of_process`]). One of them that its settings do not read
//! is skipped, any other is a problem.
//!
//! The variable of option `kafka.sasl.password` is `CAUSEWAY_KAFKA_SASL_PASSWORD`. In variables and flags a list is
//! written `a,b`, a map `k=v,k2=v2`. Avoid untagged or internally tagged enums in settings: serde buffers them, and a
//! problem inside is then placed at the whole value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

mod command;
mod decode;
mod layers;
mod problem;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod units;

pub use command::ConfigCommand;
pub use problem::{ConfigError, Place, Problem, Problems};
pub use secret::{Secret, SecretUri};
pub use units::{ByteSize, HumanDuration};

use layers::{Layers, Override, Variable};

/// The file that is read when none is named and it is there.
pub const DEFAULT_FILE: &str = "/etc/causeway/causeway.toml";
/// What the name of every variable begins with.
pub const PREFIX: &str = "CAUSEWAY_";
/// The sections that a configuration file may have, whichever of them a program reads.
pub type Sections = &'static [&'static str];

/// The options of a program.
pub trait Settings: DeserializeOwned + Serialize {
    /// Rules that types alone cannot express. Name options by full key (`kafka.brokers`); places are filled in by the
    /// loader.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// The flags every program has for its configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML) [default: /etc/causeway/causeway.toml if present]
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG", global = true, help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Set one option, for example `--set kafka.brokers=host:9092`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", global = true, help_heading = "Global options")]
    pub set: Vec<String>,
}

/// Where the options of a program come from.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// Sections that the file may have.
    sections: Sections,
    file: Option<PathBuf>,
    overrides: Vec<Override>,
    /// Variables with our prefix that name no option, in the order of their names.
    ignored: Vec<String>,
    problems: Vec<Problem>,
}

/// Settings together with where each came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What is in force.
    pub settings: T,
    /// Place of each option that some layer sets, by full key.
    pub places: BTreeMap<String, Place>,
}

impl ConfigSource {
    /// Only the file, if one is named. What tests start from.
    pub fn of_file(file: Option<PathBuf>, sections: Sections) -> Self {
        Self { file, sections, ..Self::default() }
    }

    /// The layers of this process: the named or the default file, its environment, and `--set`.
    pub fn of_process(args: &ConfigArgs, sections: Sections) -> Self {
        // A file that is named must exist; the default one may be absent.
        let file = args.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()));
        let mut source = Self::of_file(file, sections).with_environment(std::env::vars_os().filter_map(
            // Names and texts of options are Unicode: a variable that is not cannot be one of ours.
            |(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)),
        ));
        for assignment in &args.set {
            match assignment.split_once('=') {
                Some((key, value)) => source = source.with_flag("--set", key.trim(), Some(value)),
                None => {
                    source.problems.push(Problem::new("", format!("`--set {assignment}` is not of the form KEY=VALUE")))
                }
            }
        }
        source
    }

    /// Adds variables; those not ours are skipped, and those with our prefix that name nothing are logged by
    /// [`Self::load`].
    #[must_use]
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in variables {
            match Variable::of(&name, value, self.sections) {
                Variable::Option(option) => self.overrides.push(option),
                Variable::Unknown => self.ignored.push(name),
                Variable::Other => {}
            }
        }
        // The order of an environment is arbitrary: sorted, problems have the same order with every run.
        self.overrides.sort_by(|a, b| a.name.cmp(&b.name));
        self.ignored.sort();
        self
    }

    /// Adds a flag that sets option `key`, unless its value is `None`. Call after [`Self::with_environment`]: what is
    /// added later wins.
    #[must_use]
    pub fn with_flag(mut self, flag: &str, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.overrides.push(Override::of_flag(flag, key, value.to_string()));
        }
        self
    }

    /// The file that is read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// When the file cannot be read, or with all problems of all layers.
    pub fn load<T: Settings>(&self) -> Result<T, ConfigError> {
        self.load_placed().map(|loaded| loaded.settings)
    }

    /// As [`Self::load`], with the place of each option.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_placed<T: Settings>(&self) -> Result<Loaded<T>, ConfigError> {
        let Checked { settings, places, problems } = self.check()?;
        // Not an error: a later version may have had the option, and other programs may use the prefix.
        for variable in &self.ignored {
            tracing::warn!(variable, "{}", self.ignored_because());
        }
        match settings {
            Some(settings) if problems.is_empty() => Ok(Loaded { settings, places }),
            _ => Err(ConfigError::Invalid(Problems(problems))),
        }
    }

    fn ignored_because(&self) -> String {
        format!(
            "is ignored: it names no option, which begin with {PREFIX} and one of {}",
            self.sections.join(", ").to_uppercase()
        )
    }

    /// The settings as far as they could be decoded, and all that is wrong with them.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    fn check<T: Settings>(&self) -> Result<Checked<T>, ConfigError> {
        let layers = Layers::read(self.file.as_deref(), &self.overrides, self.sections)?;
        let decoded = decode::decode::<T>(&layers);
        let mut problems = self.problems.clone();
        problems.extend(decoded.problems);
        if let Some(settings) = &decoded.settings {
            // An option that did not decode has its default: a rule would be about a value that was not given.
            let known: Vec<String> = problems.iter().map(|p| p.key.clone()).collect();
            let broken = settings.validate().into_iter().filter(|p| !known.contains(&p.key));
            problems.extend(broken.map(|p| p.placed_by(&decoded.places)));
        }
        // A stable sort, in the order of the variants of `Place`: file, variables, flags, then what is not set.
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(Checked { settings: decoded.settings, places: decoded.places, problems })
    }
}

/// Settings that may be wrong.
struct Checked<T> {
    /// `None` when a field without a default is missing or wrong.
    settings: Option<T>,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
}
