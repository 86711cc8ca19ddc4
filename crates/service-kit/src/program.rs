//! What the command lines of all programs have: the version with its commit, the completion script, and the flags and
//! commands of a service.

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;

use clap::CommandFactory;

use crate::config::{ConfigArgs, ConfigCommand, ConfigError, ConfigSource, Sections, Settings};
use crate::run::{Exit, Fatal};
use crate::telemetry::{self, LogArgs, TelemetryError};

/// Version and commit of this build.
pub const VERSION: &str = env!("CAUSEWAY_VERSION");

/// Print the completion script of a shell
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct CompletionArgs {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

impl CompletionArgs {
    /// Prints the script for the command line `C`. A reader that closes the pipe early is no failure.
    pub fn print<C: CommandFactory>(self) -> Exit {
        match std::io::stdout().write_all(&self.script::<C>()) {
            // The Rust runtime ignores SIGPIPE, so that a closed pipe (`| head`) comes as EPIPE.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::Failed,
            _ => Exit::Done,
        }
    }

    fn script<C: CommandFactory>(self) -> Vec<u8> {
        let mut command = C::command();
        let mut script = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        script
    }
}

/// The command line of a service. Without a command it serves.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Option<ServiceCommand>,
}

/// What a service does in place of serving.
#[derive(Debug, clap::Subcommand)]
enum ServiceCommand {
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    Completion(CompletionArgs),
}

/// Why a service does not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

impl Fatal for StartError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Telemetry(error) => error.exit(),
        }
    }
}

impl ServiceArgs {
    /// Sets up logging and returns the settings to serve with; or runs the command, and returns how the program ends.
    /// `C` is the whole command line, `sections` are those that the configuration file may have.
    ///
    /// # Errors
    /// The configuration or the filter of the log is not valid, or standard output fails.
    pub fn start<C: CommandFactory, T: Settings>(self, sections: Sections) -> Result<ControlFlow<Exit, T>, StartError> {
        let source = ConfigSource::of_process(&self.config, sections);
        // A command opens nothing: a configuration is checked on hosts that cannot reach what it names.
        match self.command {
            Some(ServiceCommand::Completion(completion)) => Ok(ControlFlow::Break(completion.print::<C>())),
            Some(ServiceCommand::Config(command)) => {
                command.run::<T>(&source, &mut std::io::stdout())?;
                Ok(ControlFlow::Break(Exit::Done))
            }
            None => {
                telemetry::init(&self.log, "info")?;
                Ok(ControlFlow::Continue(source.load()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! The script completes the program's own words.

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(name = "causeway-thing", version = VERSION)]
    struct Thing {
        #[arg(long)]
        some_flag: bool,
    }

    #[test]
    fn a_completion_script_knows_the_program_and_its_flags() {
        let script = CompletionArgs { shell: clap_complete::Shell::Bash }.script::<Thing>();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("causeway-thing") && script.contains("--some-flag"));
    }

    /// Does things
    #[derive(Parser)]
    #[command(name = "causeway-service")]
    struct Service {
        #[command(flatten)]
        service: ServiceArgs,
    }

    #[test]
    fn a_service_serves_without_a_command_and_keeps_its_own_description() {
        assert!(Service::parse_from(["causeway-service"]).service.command.is_none());
        let checked = Service::parse_from(["causeway-service", "config", "check", "--set", "a.b=1"]).service;
        let is_check = matches!(checked.command, Some(ServiceCommand::Config(ConfigCommand::Check { json: false })));
        assert!(is_check && checked.config.set == ["a.b=1"], "{checked:?}");
        let help = Service::command().render_long_help().to_string();
        assert!(help.starts_with("Does things\n"), "{help}");
        for word in ["config", "completion", "--log", "--config"] {
            assert!(help.contains(word), "{word}: {help}");
        }
    }
}
