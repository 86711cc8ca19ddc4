//! Logs and metrics. Logs go to standard error: as text on a terminal, else as one JSON object per line. Metrics go
//! into one registry that `main` makes and passes on.

use std::io::IsTerminal;

use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

#[cfg(test)]
mod tests;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    #[default]
    Auto,
    Text,
    Json,
}

/// The flags every program has for its logs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// What to log: a level, or directives such as `info,ingest=debug`
    #[arg(long, value_name = "FILTER", env = "CAUSEWAY_LOG", global = true, help_heading = "Global options")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "CAUSEWAY_LOG_FORMAT",
        global = true,
        help_heading = "Global options"
    )]
    pub log_format: LogFormat,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log filter `{filter}` is not valid: give a level or directives such as `info,ingest=debug`")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging is already set up in this process")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl crate::run::Fatal for TelemetryError {
    fn exit(&self) -> crate::run::Exit {
        crate::run::Exit::Usage
    }
}

/// Sets up logging for the process; call it once, first. `default_filter` holds when the user names none (`info` for a
/// service, `warn` for a command).
///
/// # Errors
/// When the filter does not parse, or logging was set up before.
pub fn init(args: &LogArgs, default_filter: &str) -> Result<(), TelemetryError> {
    let filter = filter(args.log.as_deref().unwrap_or(default_filter))?;
    let is_terminal = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // The library reports a line that cannot be written with `eprintln!`, which panics where standard error is
        // full.
        .log_internal_errors(false);
    // A pipe or a journal is read by programs.
    let json = args.log_format == LogFormat::Json || (args.log_format == LogFormat::Auto && !is_terminal);
    let outcome = if json {
        subscriber.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        subscriber.with_ansi(is_terminal && colour_wanted()).with_target(false).try_init()
    };
    outcome.map_err(TelemetryError::AlreadySet)
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(text).map_err(|source| TelemetryError::Filter { filter: text.to_owned(), source })
}

/// Whether the user has not turned colour off (`NO_COLOR`). Whether the output is a terminal is for the caller to find
/// out.
pub fn colour_wanted() -> bool {
    // By no-color.org an empty value does not count as set.
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The registry of a program. Every metric is named `causeway_<service>_…`; the build is shown as `…_build_info`.
pub fn registry(service: &str, version: &str) -> Registry {
    let mut registry = Registry::with_prefix(format!("causeway_{service}"));
    // The suffix `_info` is added by the encoder (OpenMetrics, type Info).
    registry.register("build", "Version of this program", Info::new(vec![("version".to_owned(), version.to_owned())]));
    registry
}
